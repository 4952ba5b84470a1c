"""Every sentence is in a batch."""

from typing import Any, Callable, List, Optional

import numpy as np
from fairseq.data import data_utils

from fairbeam_plugin.patches.patching import mend


def apply() -> None:
    """Put this page's mend in place."""
    mend(data_utils, "batch_by_size", batch_by_size)


def batch_by_size(
    stock: Callable,
    indices: Any,
    num_tokens_fn: Callable,
    num_tokens_vec: Optional[np.ndarray] = None,
    max_tokens: Optional[int] = None,
    max_sentences: Optional[int] = None,
    required_batch_size_multiple: int = 1,
    fixed_shapes: Optional[np.ndarray] = None,
) -> List[Any]:
    """Put the sentences of the last batch back.

    Stock throws the last batch away where its size is not a multiple of ``required_batch_size_multiple``,
    which is 8 unless the user says otherwise, and without a word: 100 sentences in, 96 hypotheses out.
    """
    indices = np.asarray(indices if hasattr(indices, "__len__") else list(indices), dtype=np.int64)
    if len(indices) == 0:
        return []  # where stock looks for its last batch and fails
    limits = (max_tokens, max_sentences, required_batch_size_multiple)
    batches = stock(indices, num_tokens_fn, num_tokens_vec, *limits, fixed_shapes)
    if fixed_shapes is not None:
        return batches
    # Batches are consecutive slices of `indices`, so what is missing is its end.
    batched = sum(len(batch) for batch in batches)
    return batches if batched == len(indices) else [*batches, indices[batched:]]
