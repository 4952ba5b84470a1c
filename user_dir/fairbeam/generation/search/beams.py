"""The blocks of a beam step: small functions on batched tensors, with fairseq's semantics.

Sutskever et al. (2014) keep the best ``K`` prefixes; fairseq looks at the ``2 K`` best continuations, ends
hypotheses whose ``</s>`` is among the first ``K``, and continues the best ``K`` of the rest.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.network.inference import native, ops
from fairbeam.network.inference.fused_stack import Hypotheses

_BLOCK = 64
_BATCH_BITS = 3
"""Finished sentences leave the batch when its size can fall to a number of this many leading bits. Leaving copies the
cache, and every size of a batch costs compiled kernels."""


@dataclass
class Beams:
    """The unfinished hypotheses of a batch. ``K`` is the beam size, ``step`` the number of tokens chosen."""

    _PARTS: ClassVar = (
        "tokens", "totals", "history", "ignored", "limits", "prefix", "favoured", "least", "source", "numbers",
        "starts",
    )  # fmt: skip
    """What has a row for each sentence."""

    tokens: Tensor
    """(batch, K, capacity) long; column 0 is the start symbol."""
    totals: Tensor
    """(batch, K) float32: log probability of each hypothesis."""
    history: Tensor
    """(batch, K, capacity) float32: column t is the total after t + 1 tokens."""
    ignored: Tensor
    """(batch, K) bool: places left empty because fewer than K hypotheses could go on."""
    limits: Tensor
    """(batch,) long: tokens before ``</s>`` at most, for each sentence."""
    prefix: Tensor | None
    """(batch, prefix) long: tokens the output begins with, padded on the right."""
    favoured: Tensor | None = None
    """(batch, prefix) long: tokens that are made more probable at the output's beginning, padded on the right."""
    least: Tensor | None = None
    """(batch,) long: tokens before ``</s>`` at least, for each sentence; None where it is the same for all."""
    source: Tensor | None = None
    """(batch, source) ids, padded; only where an option looks at them."""
    numbers: Tensor | None = None
    """(batch,) long: what the caller calls the sentences; only where an option asks."""
    starts: Tensor | None = None
    """(batch,) long: the column of each start symbol; None where it is 0 for all."""
    step: int = 0
    shortest_limit: int = 0

    @classmethod
    def begin(cls, limits: Tensor, beam: int, start: int, prefix: Tensor | None) -> "Beams":
        """Hypotheses that hold nothing but the start symbol."""
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
        """Sentences that began together: their rows, and their beams with columns from their own start symbols."""
        yield slice(None), self

    @property
    def in_prefix(self) -> bool:
        """Whether the token chosen at this step may be forced by a prefix."""
        return self.prefix is not None and self.step < self.prefix.size(1)

    def extend(self, parents: Tensor, tokens: Tensor, totals: Tensor) -> None:
        """Replace every hypothesis by ``parents`` continued with ``tokens``; all (batch, K)."""
        filled = self.step + 1
        if native.reads(self.tokens, self.history, parents, tokens, totals):
            ops.extend_(self.tokens, self.history, parents, tokens, totals, filled)
            self.totals, self.step = totals, filled
            return
        index = parents.unsqueeze(2).expand(-1, -1, filled)
        self.tokens[:, :, :filled] = self.tokens[:, :, :filled].gather(1, index)
        self.tokens[:, :, filled] = tokens
        self.history[:, :, : self.step] = self.history[:, :, : self.step].gather(1, index[:, :, : self.step])
        self.history[:, :, self.step] = totals
        self.totals = totals
        self.step = filled

    def hypotheses(self) -> Hypotheses:
        """What a search in one call reads and changes, for as many steps as ``went_ahead`` is told of."""
        assert self.tokens.size(2) == self.history.size(2) + 1
        self.totals, self.ignored = self.totals.contiguous(), self.ignored.contiguous()
        return Hypotheses(self.tokens, self.totals, self.history, self.ignored, self.step + 1)

    def went_ahead(self, steps: int) -> None:
        """Hypotheses were extended so many times."""
        self.step += steps

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences."""
        for name in self._PARTS:
            value = getattr(self, name)
            if value is not None:
                setattr(self, name, value[sentences])
        self.shortest_limit = int(self.limits.min())


@dataclass(frozen=True)
class Candidates:
    """Continuations of each sentence, the preferred first; each (batch, width), the width a chooser's own."""

    totals: Tensor
    parents: Tensor
    """Which beam is continued."""
    tokens: Tensor
    ranks: Tensor | None = None
    """What they are ranked by, where that is not ``totals``."""


Correction = Callable[[Tensor, Tensor], Tensor | None]
"""Given beams and tokens, both (batch, count), what to add to the log probabilities of those tokens after those beams,
(batch, count), or None for nothing."""


def best_continuations(
    log_probabilities: Tensor, totals: Tensor, count: int, correction: Correction | None = None
) -> Candidates:
    """The ``count`` best of all continuations of all beams.

    Args:
        log_probabilities: (batch, beams, vocabulary) of the next token.
        totals: (batch, beams) of the hypotheses so far.
        correction: applied to twice as many, for an order that rounding has changed.
    """
    vocabulary = log_probabilities.size(2)
    wanted = min(2 * count if correction else count, totals.size(1) * vocabulary)
    scores, places = topk_of_sums(log_probabilities, totals, wanted)
    parents = places.div(vocabulary, rounding_mode="floor")
    tokens = places - parents * vocabulary
    if correction and (added := correction(parents, tokens)) is not None:
        scores, order = (scores + added).sort(1, descending=True)
        parents, tokens = parents.gather(1, order), tokens.gather(1, order)
    if missing := max(0, count - scores.size(1)):  # more are wanted than the vocabulary has
        scores = F.pad(scores, (0, missing), value=float("-inf"))
        parents, tokens = F.pad(parents, (0, missing)), F.pad(tokens, (0, missing))
    return Candidates(scores[:, :count], parents[:, :count], tokens[:, :count])


def topk_of_sums(rows: Tensor, added: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` highest of all numbers of a batch's rows, each with its row's ``added``, highest first.

    They lie in the ``count`` blocks with the highest maxima, so that ``topk``, which is slow, sees a small share, and
    no sums but those are written.

    Args:
        rows: (batch, rows, length), of ``count`` numbers at least.
        added: (batch, rows).

    Returns:
        Sums and their places in (rows * length), each (batch, count).
    """
    if native.serves(rows, added):
        return ops.topk_of_sums(rows, added, count)
    length = rows.size(2)
    blocks = length // _BLOCK
    if rows.size(1) * blocks <= count:
        sums, places = (rows + added.unsqueeze(2)).flatten(1).topk(count, dim=1)
        return sums, places
    whole = blocks * _BLOCK
    highest = rows[:, :, :whole].unflatten(2, (blocks, _BLOCK)).amax(3) + added.unsqueeze(2)
    chosen = highest.flatten(1).topk(count, dim=1, sorted=False).indices
    starts = chosen.div(blocks, rounding_mode="floor") * (length - whole) + chosen * _BLOCK
    places = (starts.unsqueeze(2) + torch.arange(_BLOCK, device=rows.device)).flatten(1)
    if length > whole:  # what no block holds
        ends = torch.arange(rows.size(1) * length, device=rows.device).view(-1, length)[:, whole:].flatten()
        places = torch.cat([places, ends.expand(len(rows), -1)], dim=1)
    sums = rows.flatten(1).gather(1, places) + added.gather(1, places.div(length, rounding_mode="floor"))
    sums, best = sums.topk(count, dim=1)
    return sums, places.gather(1, best)


def ended(candidates: Candidates, ignored: Tensor, eos: int) -> Tensor:
    """Which candidates end their hypothesis, (batch, width) bool."""
    if native.reads(candidates.totals, candidates.tokens, ignored):
        return ops.ended(candidates.totals, candidates.tokens, ignored, eos)
    ends = candidates.tokens.eq(eos) & candidates.totals.gt(float("-inf"))
    ends[:, : ignored.size(1)] &= ~ignored
    return ends


def survivors(ends: Tensor, ignored: Tensor) -> tuple[Tensor, Tensor]:
    """The first ``K`` candidates that go on.

    Args:
        ends: (batch, width), from ``ended``.
        ignored: (batch, K), places of the last step that were empty.

    Returns:
        Indices into the candidates, (batch, K), and the places now empty because too few go on, (batch, K).
    """
    beam, width = ignored.size(1), ends.size(1)
    if width >= beam and native.reads(ends, ignored):
        return ops.survivors(ends, ignored)
    out = ends.clone()
    out[:, :beam] |= ignored
    rank = out * width + torch.arange(width, device=out.device)
    order, chosen = rank.topk(min(beam, width), dim=1, largest=False)
    return chosen, order.ge(width)


def rounded_up(size: int) -> int:
    """The next number of at most ``_BATCH_BITS`` leading bits: 1 to 8, 10, 12, 14, 16, 20, …"""
    step = 1 << max(0, size.bit_length() - _BATCH_BITS)
    return -(-size // step) * step


def with_company(going: Tensor, batch: int, size: int) -> Tensor:
    """``going`` and as many of the batch's other rows as make it ``size``, in order."""
    others = torch.ones(batch, dtype=torch.bool, device=going.device).index_fill_(0, going, False).nonzero()[:, 0]
    return torch.cat([going, others[: size - len(going)]]).sort().values
