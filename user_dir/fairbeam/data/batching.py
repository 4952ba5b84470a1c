"""Batches of sentence pairs of like lengths, source and target together.

Sorting by source length leaves the target ragged. Here the set of pairs is cut in two, along the source or
the target length, wherever the two halves' rectangles of padded positions are smallest, and each half again,
until every part fits a batch: a k-d tree over the two lengths whose cuts avoid half-empty batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairbeam.errors import ConfigError, InputError

Indices = NDArray[np.int64]

_FILL = 1.03
"""Batches turn out about this much larger than the tokens in them; only a guide for where to cut."""
_EMPTINESS = 2.0
"""How much an empty position of a last batch weighs against a padded one."""


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """What a batch may hold; at least one limit is given."""

    max_tokens: int | None = None
    """Rows times the longest sequence, on the longer side, padding included (fairseq's ``--max-tokens``)."""
    max_sentences: int | None = None
    """Rows (fairseq's ``--batch-size``)."""

    def __post_init__(self) -> None:
        if self.max_tokens is None and self.max_sentences is None:
            raise ConfigError("a batch needs a limit: give --max-tokens, --batch-size or both")
        for name, value in (("--max-tokens", self.max_tokens), ("--batch-size", self.max_sentences)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: must be at least 1")

    def fit(self, rows: int, width: int) -> bool:
        """Whether ``rows`` sequences of at most ``width`` tokens are one batch."""
        return (self.max_tokens is None or rows * width <= self.max_tokens) and (
            self.max_sentences is None or rows <= self.max_sentences
        )

    def share(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """The part of a batch that each sequence takes."""
        by_tokens = widths / self.max_tokens if self.max_tokens else np.zeros(len(widths))
        return np.maximum(by_tokens, 1 / self.max_sentences if self.max_sentences else 0.0)


def make_batches(
    order: Indices, source: NDArray[np.int64], target: NDArray[np.int64] | None, limits: BatchLimits
) -> list[Indices]:
    """Cut pairs into batches; every index of ``order`` is in exactly one.

    Args:
        order: indices into the lengths; a random order makes other batches of equally long pairs.
        source: tokens of each source. target: tokens of each target, None where there is none.
        limits: what one batch may hold.

    Raises:
        InputError: one sequence alone is over ``max_tokens``; names it (counting from 1) and its length.
    """
    sides = [np.asarray(side, dtype=np.int64) for side in (source, target) if side is not None]
    widths = np.maximum.reduce(sides)
    too_wide = order[widths[order] > (limits.max_tokens or np.inf)]
    if len(too_wide):
        first = int(too_wide.min())
        raise InputError(
            f"sentence {first + 1} has {widths[first]} tokens, more than --max-tokens {limits.max_tokens}; "
            "raise --max-tokens, or shorten or leave out the sentence"
        )
    batches: list[Indices] = []
    waiting = [np.asarray(order, dtype=np.int64)] if len(order) else []
    while waiting:
        part = waiting.pop()
        if limits.fit(len(part), int(widths[part].max())):
            batches.append(part)
        else:
            waiting += _cut(part, sides, limits.share(widths[part]), _weight(limits, widths[part]))
    return batches


def _weight(limits: BatchLimits, widths: NDArray[np.int64]) -> float:
    """Positions of a full batch, which is what an empty one wastes."""
    return float(limits.max_tokens or limits.max_sentences * widths.mean())


def _cut(
    part: Indices, sides: Sequence[NDArray[np.int64]], shares: NDArray[np.float64], positions: float
) -> tuple[Indices, Indices]:
    """The cut, along one of the sides, that wastes least."""
    best: tuple[float, Indices, int] | None = None
    for axis in range(len(sides)):
        keys = [sides[axis][part]] if len(sides) == 1 else [sides[1 - axis][part], sides[axis][part]]
        ranked = np.lexsort(keys)
        costs = _cut_costs([side[part[ranked]] for side in sides], shares[ranked], positions)
        place = int(costs.argmin())
        if best is None or costs[place] < best[0]:
            best = (float(costs[place]), part[ranked], place + 1)
    assert best is not None
    _, ranked_part, place = best
    return ranked_part[:place], ranked_part[place:]


def _cut_costs(
    sides: Sequence[NDArray[np.int64]], shares: NDArray[np.float64], positions: float
) -> NDArray[np.float64]:
    """For each cut behind the first, second, … row: padded positions, and positions of batches left empty."""
    rows = len(shares)
    before = np.arange(1, rows)
    widest_before = sum(np.maximum.accumulate(side)[:-1] for side in sides)
    widest_after = sum(np.maximum.accumulate(side[::-1])[::-1][1:] for side in sides)
    area = before * widest_before + (rows - before) * widest_after
    full = np.cumsum(shares)[:-1] * _FILL
    rest = shares.sum() * _FILL - full
    empty = (np.ceil(full) - full) + (np.ceil(rest) - rest)
    return area + _EMPTINESS * positions * empty


def padding_fraction(batches: Sequence[Indices], *sides: NDArray[np.int64]) -> float:
    """The share of all positions, of all sides together, that is padding."""
    positions = sum(len(batch) * int(side[batch].max()) for batch in batches for side in sides)
    tokens = sum(int(side[batch].sum()) for batch in batches for side in sides)
    return 1 - tokens / positions if positions else 0.0


def sorted_batches(order: Indices, lengths: NDArray[np.int64], limits: BatchLimits) -> list[Indices]:
    """Full batches of neighbours in length, shortest first; for decoding, where only the source is known.

    A sequence longer than ``max_tokens`` is a batch of its own: decoding it needs no more than it needs.
    """
    ranked = np.asarray(order, dtype=np.int64)[np.argsort(lengths[order], kind="stable")]
    batches: list[Indices] = []
    start = 0
    for end in range(1, len(ranked) + 1):
        if end == len(ranked) or not limits.fit(end + 1 - start, int(lengths[ranked[end]])):
            batches.append(ranked[start:end])
            start = end
    return batches
