"""Batches of sentence pairs of similar source and target lengths.

Sorting by source length alone leaves much padding in the target. Here the pairs are split in two by source or target
length, where the two parts have the least padding, and each part again until it fits a batch: a k-d tree over the two
lengths whose splits avoid half-empty batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairbeam.errors import ConfigError, InputError

Indices = NDArray[np.int64]

_FILL = 1.03
"""Assumed ratio of padded positions to tokens in a batch; it only guides where to split."""
_EMPTINESS = 2.0
"""Cost of an unused position in a batch that is not full, relative to a padded position."""


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """Limits of a batch's size; at least one is required."""

    max_tokens: int | None = None
    """Most positions, padding included: sentences times the longest source or target (fairseq's ``--max-tokens``)."""
    max_sentences: int | None = None
    """Most sentences (fairseq's ``--batch-size``)."""

    def __post_init__(self) -> None:
        if self.max_tokens is None and self.max_sentences is None:
            raise ConfigError("a batch needs a limit: give --max-tokens, --batch-size or both")
        for name, value in (("--max-tokens", self.max_tokens), ("--batch-size", self.max_sentences)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} {value}: must be at least 1")

    def fit(self, rows: int, width: int) -> bool:
        """Return whether ``rows`` sequences of at most ``width`` tokens fit a batch."""
        return (self.max_tokens is None or rows * width <= self.max_tokens) and (
            self.max_sentences is None or rows <= self.max_sentences
        )

    def share(self, widths: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the fraction of a batch that each sequence of these lengths takes."""
        by_tokens = widths / self.max_tokens if self.max_tokens else np.zeros(len(widths))
        return np.maximum(by_tokens, 1 / self.max_sentences if self.max_sentences else 0.0)


def make_batches(
    order: Indices, source: NDArray[np.int64], target: NDArray[np.int64] | None, limits: BatchLimits
) -> list[Indices]:
    """Split sentence pairs into batches; each index of ``order`` is in exactly one.

    Args:
        order: indices into the lengths; shuffling them regroups pairs of equal lengths.
        source: number of tokens of each source.
        target: number of tokens of each target; None if there are no targets.
        limits: of a batch.

    Raises:
        InputError: a single sequence exceeds ``max_tokens``; names it (counting from 1) and its length.
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
    pending = [np.asarray(order, dtype=np.int64)] if len(order) else []
    while pending:
        part = pending.pop()
        if limits.fit(len(part), int(widths[part].max())):
            batches.append(part)
        else:
            pending += _split(part, sides, limits.share(widths[part]), _capacity(limits, widths[part]))
    return batches


def _capacity(limits: BatchLimits, widths: NDArray[np.int64]) -> float:
    """Return the number of positions in a full batch."""
    return float(limits.max_tokens or limits.max_sentences * widths.mean())


def _split(
    part: Indices, sides: Sequence[NDArray[np.int64]], shares: NDArray[np.float64], capacity: float
) -> tuple[Indices, Indices]:
    """Split ``part`` by source or target length, where it wastes the fewest positions."""
    best: tuple[float, Indices, int] | None = None
    for axis in range(len(sides)):
        keys = [sides[axis][part]] if len(sides) == 1 else [sides[1 - axis][part], sides[axis][part]]
        ranked = np.lexsort(keys)
        costs = _split_costs([side[part[ranked]] for side in sides], shares[ranked], capacity)
        index = int(costs.argmin())
        if best is None or costs[index] < best[0]:
            best = (float(costs[index]), part[ranked], index + 1)
    assert best is not None
    _, ranked_part, size = best
    return ranked_part[:size], ranked_part[size:]


def _split_costs(
    sides: Sequence[NDArray[np.int64]], shares: NDArray[np.float64], capacity: float
) -> NDArray[np.float64]:
    """Return the cost of splitting after each row but the last: all positions plus weighted unused positions."""
    rows = len(shares)
    before = np.arange(1, rows)
    widest_before = sum(np.maximum.accumulate(side)[:-1] for side in sides)
    widest_after = sum(np.maximum.accumulate(side[::-1])[::-1][1:] for side in sides)
    area = before * widest_before + (rows - before) * widest_after
    full = np.cumsum(shares)[:-1] * _FILL
    rest = shares.sum() * _FILL - full
    empty = (np.ceil(full) - full) + (np.ceil(rest) - rest)
    return area + _EMPTINESS * capacity * empty


def padding_fraction(batches: Sequence[Indices], *sides: NDArray[np.int64]) -> float:
    """Return the fraction of all positions, of source and target together, that is padding."""
    positions = sum(len(batch) * int(side[batch].max()) for batch in batches for side in sides)
    tokens = sum(int(side[batch].sum()) for batch in batches for side in sides)
    return 1 - tokens / positions if positions else 0.0


def sorted_batches(order: Indices, lengths: NDArray[np.int64], limits: BatchLimits) -> list[Indices]:
    """Sort by source length and cut into full batches, shortest first; for decoding, where targets are unknown.

    A sequence longer than ``max_tokens`` becomes a batch of its own.
    """
    ranked = np.asarray(order, dtype=np.int64)[np.argsort(lengths[order], kind="stable")]
    batches: list[Indices] = []
    start = 0
    for end in range(1, len(ranked) + 1):
        if end == len(ranked) or not limits.fit(end + 1 - start, int(lengths[ranked[end]])):
            batches.append(ranked[start:end])
            start = end
    return batches
