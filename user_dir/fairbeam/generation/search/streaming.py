"""What of an output is certain while the search goes on."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from torch import Tensor

from fairbeam.generation.features import DIVERSITY, DRAFTS, MASKS, Capabilities, Feature
from fairbeam.generation.ranking import best_first
from fairbeam.generation.search.beams import Beams
from fairbeam.generation.search.finished import Finished

# Other options rank hypotheses, or explain them, when all have ended; or their search shows no steps.
STREAM = Capabilities(
    name="streaming",
    supports=(MASKS & ~Feature.PREFIX_FUNCTION)
    | DIVERSITY
    | DRAFTS
    | Feature.LENGTH_PENALTY
    | Feature.SAMPLING
    | Feature.STOCHASTIC_BEAM
    | Feature.SOURCE_LENGTH
    | Feature.PATIENCE
    | Feature.PREFIX_BIAS
    | Feature.ENSEMBLE
    | Feature.SHALLOW_FUSION,
)
Watcher = Callable[[Tensor, Beams, Finished], None]
"""Is shown, when a step is done, which sentences are left, (batch,) long, their beams, and all that has ended."""

Piece = TypeVar("Piece")


def certain_tokens(row: int, sentence: int, beams: Beams, finished: Finished) -> list[int]:
    """The tokens that the best hypothesis of a sentence is sure to begin with.

    It will be the best of those that have ended, or one that a live beam becomes; what all of these share stays.

    Args:
        row: the sentence's row of the beams.
        sentence: its number among the hypotheses that have ended.
    """
    rows = beams.tokens[row, beams.totals[row].isfinite(), 1 : beams.step + 1].tolist()
    rows += [hypothesis.tokens.tolist() for hypothesis in best_first(finished.hypotheses[sentence])[:1]]
    return common_prefix(rows)


def common_prefix(rows: list[list[int]]) -> list[int]:
    """What all rows begin with."""
    if not rows:
        return []
    lowest, highest = min(rows), max(rows)  # all others lie between them
    for place, (one, other) in enumerate(zip(lowest, highest, strict=False)):
        if one != other:
            return lowest[:place]
    return lowest[: len(highest)]


class _AbandonedError(Exception):
    """Nobody reads what a thread gives any more."""


def given_by_thread(work: Callable[[Callable[[Piece], None]], None]) -> Iterator[Piece]:
    """What ``work``, in a thread of its own, hands to the function that it is called with.

    The work ends at its next piece where the iterator is closed before its end; its errors are raised here.
    """
    pieces: queue.Queue[tuple[Piece] | BaseException | None] = queue.Queue()
    abandoned = threading.Event()

    def give(piece: Piece) -> None:
        if abandoned.is_set():
            raise _AbandonedError
        pieces.put((piece,))

    def run() -> None:
        try:
            work(give)
            pieces.put(None)
        except BaseException as error:
            pieces.put(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece[0]
    finally:
        abandoned.set()
        thread.join()
