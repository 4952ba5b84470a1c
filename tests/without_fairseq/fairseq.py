"""Stands before the installed package on the path, so that it looks absent: `make test-without-fairseq`."""

raise ModuleNotFoundError("No module named 'fairseq'", name="fairseq")
