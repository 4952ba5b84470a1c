"""``--no-repeat-ngram-size`` works without CUDA."""

from typing import Any, Callable

from fairseq.ngram_repeat_block import NGramRepeatBlock

from fairbeam_plugin.patches.patching import mend


def apply() -> None:
    """Put this page's mend in place."""
    mend(NGramRepeatBlock, "_no_repeat_ngram", no_repeat_ngram)


def no_repeat_ngram(stock: Callable, block: Any, tokens: Any, lprobs: Any, bsz: int, beam_size: int, step: int) -> Any:
    """Look for repeats of the latest tokens.

    Stock's CUDA kernel does; its Python fallback takes the last columns of the whole token buffer, which are
    padding until the length limit is reached, and so forbids nothing.
    """
    return stock(block, tokens[:, : step + 1], lprobs, bsz, beam_size, step)
