"""The blocks of a beam step: small functions on batched tensors, with fairseq's semantics.

Sutskever et al. (2014) keep the best ``K`` prefixes; fairseq looks at the ``2 K`` best continuations, ends
hypotheses whose ``</s>`` is among the first ``K``, and continues the best ``K`` of the rest.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.generation.model import StepScores
from fairbeam.generation.search import beam_ops

_BATCH_BITS = 3
"""Finished sentences leave the batch when its size can fall to a number with this many leading bits: leaving copies the
cache, and oneDNN compiles kernels for every size."""


@dataclass
class Beams:
    """The unfinished hypotheses of a batch. ``K`` is the beam size, ``step`` the number of tokens chosen."""

    _PARTS: ClassVar = (
        "tokens", "totals", "history", "ignored", "limits", "prefix", "favoured", "least", "source", "numbers",
        "starts",
    )  # fmt: skip
    """Fields with a row for each sentence."""

    tokens: Tensor
    """(batch, K, capacity) long; column 0 is the start symbol."""
    totals: Tensor
    """(batch, K) float32: log probability of each hypothesis."""
    history: Tensor
    """(batch, K, capacity) float32: column t is the total after t + 1 tokens."""
    ignored: Tensor
    """(batch, K) bool: places left empty because fewer than K hypotheses could go on."""
    limits: Tensor
    """(batch,) long: most tokens before ``</s>``."""
    prefix: Tensor | None
    """(batch, prefix) long: tokens the output begins with, padded on the right."""
    favoured: Tensor | None = None
    """(batch, prefix) long: tokens that are made more probable at the output's beginning, padded on the right."""
    least: Tensor | None = None
    """(batch,) long: fewest tokens before ``</s>``; None if it is the same for all sentences."""
    source: Tensor | None = None
    """(batch, source) ids, padded; None if no option needs them."""
    numbers: Tensor | None = None
    """(batch,) long: the caller's index of each sentence; None if no option needs it."""
    starts: Tensor | None = None
    """(batch,) long: column of each start symbol; None if it is 0 for all sentences."""
    step: int = 0
    shortest_limit: int = 0

    @classmethod
    def begin(cls, limits: Tensor, beam: int, start: int, prefix: Tensor | None) -> "Beams":
        """Make hypotheses that contain nothing but the start symbol."""
        batch, longest = len(limits), int(limits.max())
        return cls(
            tokens=limits.new_full((batch, beam, longest + 2), start),
            totals=torch.zeros(batch, beam, device=limits.device),
            history=torch.zeros(batch, beam, longest + 1, device=limits.device),
            ignored=torch.zeros(batch, beam, dtype=torch.bool, device=limits.device),
            limits=limits,
            prefix=prefix,
            shortest_limit=int(limits.min()),
        )

    def cohorts(self) -> Iterator[tuple[slice, "Beams"]]:
        """Yield the rows of sentences that began together, and their beams with columns from their start symbols on."""
        yield slice(None), self

    @property
    def in_prefix(self) -> bool:
        """Whether the token chosen at this step may be forced by a prefix."""
        return self.prefix is not None and self.step < self.prefix.size(1)

    def extend(self, parents: Tensor, tokens: Tensor, totals: Tensor) -> None:
        """Replace every hypothesis by ``parents`` continued with ``tokens``; all (batch, K)."""
        beam_ops.extend_(self.tokens, self.history, parents, tokens, totals, self.step + 1)
        self.totals = totals
        self.step += 1

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences."""
        for name in self._PARTS:
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value[sentences])
        self.shortest_limit = int(self.limits.min())


@dataclass(frozen=True)
class Candidates:
    """Continuations of each sentence, best first; each (batch, width), whose width depends on the selector."""

    totals: Tensor
    parents: Tensor
    """Index of the beam that is continued."""
    tokens: Tensor
    ranks: Tensor | None = None
    """Scores that rank the candidates; None if these are ``totals``."""


def best_continuations(scores: StepScores, totals: Tensor, count: int) -> Candidates:
    """Return the ``count`` best of all continuations of all beams.

    Twice as many are made exact, since rounding may have changed their order.

    Args:
        scores: of the next token.
        totals: (batch, beams) of the hypotheses so far.
        count: candidates of each sentence.
    """
    vocabulary = scores.log_probs.size(2)
    wanted = min(2 * count, totals.size(1) * vocabulary)
    sums, indices = beam_ops.top_of_sums(scores.log_probs, totals, wanted)
    parents = indices.div(vocabulary, rounding_mode="floor")
    tokens = indices - parents * vocabulary
    if (delta := scores.exact_delta(parents, tokens)) is not None:
        sums, order = (sums + delta).sort(1, descending=True)
        parents, tokens = parents.gather(1, order), tokens.gather(1, order)
    if missing := max(0, count - sums.size(1)):  # more are wanted than the vocabulary has
        sums = F.pad(sums, (0, missing), value=float("-inf"))
        parents, tokens = F.pad(parents, (0, missing)), F.pad(tokens, (0, missing))
    return Candidates(sums[:, :count], parents[:, :count], tokens[:, :count])


def rounded_up(size: int) -> int:
    """Return the next number with at most ``_BATCH_BITS`` leading bits: 1 to 8, 10, 12, 14, 16, 20, …"""
    step = 1 << max(0, size.bit_length() - _BATCH_BITS)
    return -(-size // step) * step


def padded_rows(continuing: Tensor, batch: int, size: int) -> Tensor:
    """Return the rows ``continuing`` and the first of the batch's other rows, ``size`` together, in order."""
    others = (
        torch.ones(batch, dtype=torch.bool, device=continuing.device).index_fill_(0, continuing, False).nonzero()[:, 0]
    )
    return torch.cat([continuing, others[: size - len(continuing)]]).sort().values
