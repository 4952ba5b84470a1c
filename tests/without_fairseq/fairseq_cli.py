"""Stands before the installed package on the path, so that it looks absent: `make test-without-fairseq`."""

raise ModuleNotFoundError("No module named 'fairseq_cli'", name="fairseq_cli")
