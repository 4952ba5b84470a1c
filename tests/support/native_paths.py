"""Both ways to compute what the native library computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from fairbeam.network.inference import native

needs_library = pytest.mark.skipif(not native.available(), reason="fairbeam was installed without a C++ compiler")
needs_integers = pytest.mark.skipif(
    not native.multiplies_integers(), reason="this processor does not multiply integers"
)
WAYS = [True, False] if native.available() else [False]
"""Whether the library is there."""


@contextmanager
def library(there: bool) -> Iterator[None]:
    """Compute natively or by torch's operations."""
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        if not there:
            patch.setattr(native, "library", lambda: None)
        yield
