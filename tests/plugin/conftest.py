"""fairseq, imported once and mended, for every test of the plugin."""

import warnings

import pytest

try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fairseq's own making, while it is imported
        import fairseq  # noqa: F401
        import fairseq_cli.train  # noqa: F401

        from fairbeam_plugin import patches
except ImportError:  # the engine's tests run without fairseq
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def mended_fairseq():
    """Put the mends in place again: pytest forgets a module's warning filters after each test."""
    patches.apply()
