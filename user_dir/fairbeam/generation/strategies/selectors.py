"""Candidate selectors propose continuations of a sentence's hypotheses, given scores that logits processors changed.

Each is made for one batch and may keep a state for each of its sentences. Semantics and option names are fairseq's.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.generation.constraints import Required
from fairbeam.generation.features import MASKS, RANKING, Capabilities, Feature
from fairbeam.generation.logits_processors import FORBIDDEN, SpecialTokenIds
from fairbeam.generation.model import StepScores
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.search.beams import Beams, Candidates, best_continuations

_SEARCH = (
    MASKS
    | RANKING
    | Feature.PREFIX_BIAS
    | Feature.ENSEMBLE
    | Feature.SHALLOW_FUSION
    | Feature.MINIMUM_BAYES_RISK
    | Feature.RERANKING
    | Feature.SHORTLIST
)
"""Features that every selector supports whose scores are log probabilities of the model."""
_LEVELS = 8
"""Uniform numbers for a draw: a vocabulary has fewer than ``8 ** _LEVELS`` symbols."""


class NewBatch(NamedTuple):
    """A batch before its first step."""

    options: GenerationOptions
    source: Tensor
    """(batch, length) ids, padded."""
    special: SpecialTokenIds
    required: Sequence[Required] | None
    """For each sentence the phrases its outputs must contain; None where no sentence has any."""


class CandidateSelector(Protocol):
    """Selects candidates at every step of the search loop."""

    capabilities: ClassVar[Capabilities]

    @classmethod
    def for_batch(cls, batch: NewBatch) -> "CandidateSelector":
        """Make the selector of a batch before its first step."""

    def __call__(self, scores: StepScores, beams: Beams) -> Candidates:
        """Return candidates of ``K`` beams; fewer than ``2 K`` a sentence where none are to spare."""

    def reorder(self, chosen: Tensor) -> None:
        """Beam ``b`` of sentence ``s`` is now the candidate ``chosen[s, b]``; (batch, K) long."""

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences, (kept,) long."""

    def join(self, other: Any) -> None:
        """Append the sentences of another of the same kind, which has chosen once."""


class Stateless:
    """A selector, or a part of one, that remembers nothing."""

    def reorder(self, chosen: Tensor) -> None:
        """There is nothing to reorder."""

    def select(self, sentences: Tensor) -> None:
        """There is nothing to keep."""

    def join(self, other: Any) -> None:
        """There is nothing to append."""


class TopCandidates(Stateless):
    """Beam search: the ``2 K`` best of all continuations (Sutskever et al., 2014)."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="beam search",
        supports=_SEARCH | Feature.SOURCE_LENGTH | Feature.PATIENCE | Feature.ALTERNATIVES,
    )

    @classmethod
    def for_batch(cls, batch: NewBatch) -> Self:
        """Make the selector of a batch."""
        return cls()

    def __call__(self, scores: StepScores, beams: Beams) -> Candidates:
        count = 2 * scores.log_probs.size(1)
        if beams.step:
            return best_continuations(scores, beams.totals, count)
        # At the first step all beams are equal, and only one of them counts.
        return best_continuations(scores.of_beams(slice(0, 1)), beams.totals[:, :1], count)


class DiverseGroups(Stateless):
    """Diverse beam search (Vijayakumar et al., 2018), with fairseq's cumulative diversity.

    Beams ``g``, ``g + groups``, … are group ``g``. A token that an earlier group has chosen at this step costs
    ``strength``, and as much again for every earlier step at which the two groups agreed.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="diverse beam search",
        provides=Feature.DIVERSE_GROUPS,
        supports=_SEARCH | Feature.PATIENCE | Feature.ALTERNATIVES,
    )

    @classmethod
    def for_batch(cls, batch: NewBatch) -> Self:
        """Make the selector of a batch, in which groups have nothing in common yet."""
        return cls(batch.options.diverse_beam_groups, batch.options.diverse_beam_strength)

    def __init__(self, groups: int, strength: float) -> None:
        self.groups, self.strength = groups, strength
        self._overlap: Tensor | None = None
        """(batch, groups, groups): tokens that two groups have chosen alike so far."""

    def __call__(self, scores: StepScores, beams: Beams) -> Candidates:
        batch, beam, vocabulary = scores.log_probs.shape
        count = beam // self.groups
        if self._overlap is None:
            self._overlap = scores.log_probs.new_zeros(batch, self.groups, self.groups)
        chosen: list[Candidates] = []
        for group in range(self.groups):
            members = slice(group, group + 1 if beams.step == 0 else None, self.groups)
            log_probs = scores.log_probs[:, members]
            if group:
                tokens = torch.stack([candidates.tokens for candidates in chosen], dim=2)  # (batch, count, group)
                penalty = (1 + self._overlap[:, group, None, :group]).expand_as(tokens) * self.strength
                taken = log_probs.new_zeros(batch, vocabulary).scatter_add_(1, tokens.flatten(1), penalty.flatten(1))
                log_probs = log_probs - taken.unsqueeze(1)
            mine = scores.of_beams(members, log_probs)
            candidates = best_continuations(mine, beams.totals[:, members], count)
            chosen.append(replace(candidates, parents=candidates.parents * self.groups + group))
        tokens = torch.stack([candidates.tokens for candidates in chosen], dim=2)
        self._overlap = self._overlap + tokens.unsqueeze(2).eq(tokens.unsqueeze(3)).sum(1)
        return Candidates(
            *(
                torch.stack([getattr(candidates, part) for candidates in chosen], dim=2).flatten(1)
                for part in ("totals", "parents", "tokens")
            )
        )

    def select(self, sentences: Tensor) -> None:
        """Keep what these sentences' groups have in common."""
        if self._overlap is not None:
            self._overlap = self._overlap[sentences]

    def join(self, other: "DiverseGroups") -> None:
        """Append what those sentences' groups have in common."""
        assert self._overlap is not None
        assert other._overlap is not None
        self._overlap = torch.cat([self._overlap, other._overlap])


class DiverseSiblings(Stateless):
    """Continuations of one beam cost ``rate`` times their rank among themselves (Li et al., 2016)."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="diverse siblings",
        provides=Feature.DIVERSE_SIBLINGS,
        supports=_SEARCH | Feature.PATIENCE | Feature.ALTERNATIVES,
    )

    @classmethod
    def for_batch(cls, batch: NewBatch) -> Self:
        """Make the selector of a batch."""
        return cls(batch.options.diversity_rate)

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, scores: StepScores, beams: Beams) -> Candidates:
        if beams.step == 0:
            return TopCandidates()(scores, beams)
        beam = scores.log_probs.size(1)
        each = []
        for parent in range(beam):
            one = slice(parent, parent + 1)
            each.append(best_continuations(scores.of_beams(one), beams.totals[:, one], 2 * beam))
        rank = torch.arange(1, 2 * beam + 1, device=scores.log_probs.device)
        totals, places = torch.cat([found.totals - self.rate * rank for found in each], dim=1).topk(2 * beam, dim=1)
        tokens = torch.cat([found.tokens for found in each], dim=1).gather(1, places)
        return Candidates(totals, places.div(2 * beam, rounding_mode="floor"), tokens)


class Sampling(Stateless):
    """Each beam draws its next token; a hypothesis scores what the model, untruncated, gives it.

    Draws come from a stream for each sentence, begun from the seed and the sentence alone, so that a sample does not
    depend on what else is in the batch.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="sampling", provides=Feature.SAMPLING, supports=_SEARCH | Feature.ALTERNATIVES
    )

    @classmethod
    def for_batch(cls, batch: NewBatch) -> Self:
        """Make the selector of a batch, with a stream of random numbers for each sentence."""
        return cls(
            build_sampling_filters(batch.options), batch.options.seed, batch.source, batch.special.padding_of_sources
        )

    def __init__(self, cuts: list["SamplingFilter"], seed: int, source: Tensor, pad: int) -> None:
        """``source``: (batch, length) ids."""
        self.cuts = cuts
        self._streams = sentence_streams(seed, source, pad)

    def __call__(self, scores: StepScores, beams: Beams) -> Candidates:
        beam = scores.log_probs.size(1)
        allowed = scores.log_probs
        for cut in self.cuts:
            allowed = allowed.masked_fill(~cut(allowed), FORBIDDEN)
        uniform = np.stack([stream.random((beam, _LEVELS)) for stream in self._streams])
        tokens = drawn(allowed, torch.from_numpy(uniform).to(allowed.device))
        parents = torch.arange(beam, device=tokens.device).expand_as(tokens)
        log_probs = scores.log_probs.gather(2, tokens.unsqueeze(2)).squeeze(2)
        delta = scores.exact_delta(parents, tokens)
        return Candidates(beams.totals + (log_probs if delta is None else log_probs + delta), parents, tokens)

    def select(self, sentences: Tensor) -> None:
        """Keep these sentences' streams."""
        self._streams = [self._streams[sentence] for sentence in sentences.tolist()]

    def join(self, other: "Sampling") -> None:
        """Append those sentences' streams."""
        self._streams += other._streams


def drawn(scores: Tensor, uniform: Tensor) -> Tensor:
    """A token of each row, by its probability among those that are possible.

    The possible tokens, in their order, are divided by eight until one is left. One uniform number for all of them
    would fall into another of thousands of unlikely tokens when rounding, which goes by the batch, moves the likely.

    Args:
        scores: (batch, beams, vocabulary) log probabilities, which need not sum to one.
        uniform: (batch, beams, ``_LEVELS``) double, at least 0 and below 1.
    """
    vocabulary = scores.size(2)
    below = F.pad(scores.exp().cumsum(2, dtype=torch.double), (1, 0))  # each token's probability of one before it
    numbers = scores.gt(FORBIDDEN).cumsum(2, dtype=torch.int32)  # of the possible tokens, from 1
    first = numbers.new_ones(*numbers.shape[:2], 1)
    eighths = torch.arange(9, dtype=torch.int32, device=scores.device)
    for level in reversed(range(-(-vocabulary.bit_length() // 3))):
        ends = below.gather(2, torch.searchsorted(numbers, first + (eighths << 3 * level)))
        passed = ends[:, :, 1:] - ends[:, :, :1]
        left_behind = passed <= uniform[:, :, level, None] * passed[:, :, -1:]
        first = first + (left_behind[:, :, :-1].sum(2, keepdim=True, dtype=torch.int32) << 3 * level)
    return torch.searchsorted(numbers, first).squeeze(2).clamp_(max=vocabulary - 1)


def sentence_streams(seed: int, source: Tensor, pad: int) -> list[np.random.Generator]:
    """A stream of random numbers for each sentence of (batch, length) ids."""
    return [np.random.default_rng([seed, *row[row.ne(pad)].tolist()]) for row in source.cpu()]


SamplingFilter = Callable[[Tensor], Tensor]
"""Takes log probabilities (..., vocabulary) and says which tokens may be drawn, bool."""


def top_k(count: int) -> SamplingFilter:
    """The ``count`` most probable tokens (Fan et al., 2018)."""

    def keep(scores: Tensor) -> Tensor:
        best = scores.topk(min(count, scores.size(-1)), dim=-1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)

    return keep


def top_p(mass: float) -> SamplingFilter:
    """The smallest set of the most probable tokens that holds ``mass`` (Holtzman et al., 2020)."""
    return lambda scores: _until(scores, scores.exp(), mass)


def typical(mass: float) -> SamplingFilter:
    """The smallest set of tokens of nearly the expected information that holds ``mass`` (Meister et al., 2023)."""

    def keep(scores: Tensor) -> Tensor:
        probabilities = scores.exp()
        entropy = -(probabilities * scores.clamp(min=torch.finfo(scores.dtype).min)).sum(-1, keepdim=True)
        return _until(-(entropy + scores).abs(), probabilities, mass)

    return keep


def min_p(share: float) -> SamplingFilter:
    """Tokens of at least ``share`` of the highest probability (Nguyen et al., 2024)."""
    return lambda scores: scores >= scores.amax(-1, keepdim=True) + float(np.log(share))


def epsilon(least: float) -> SamplingFilter:
    """Tokens of at least this probability, or the best where there is none (Hewitt et al., 2022)."""
    return lambda scores: (scores >= float(np.log(least))) | (scores == scores.amax(-1, keepdim=True))


def _until(preference: Tensor, probabilities: Tensor, mass: float) -> Tensor:
    """The most preferred tokens up to and including the one with which their probabilities reach ``mass``."""
    order = preference.argsort(dim=-1, descending=True)
    sorted_probabilities = probabilities.gather(-1, order)
    before = sorted_probabilities.cumsum(-1) - sorted_probabilities
    return torch.zeros_like(before, dtype=torch.bool).scatter_(-1, order, before < mass)


def build_sampling_filters(options: GenerationOptions) -> list[SamplingFilter]:
    """The cut-offs that ``options`` ask for; a token must pass them all, each sees what the ones before have left."""
    cuts = [top_k(options.sampling_topk)] if options.sampling_topk > 0 else []
    for make, value in (
        (top_p, options.sampling_topp),
        (min_p, options.min_p),
        (typical, options.typical_p),
        (epsilon, options.epsilon_cutoff),
    ):
        if value > 0:
            cuts.append(make(value))
    return cuts
