"""Choosers propose how the hypotheses of a sentence go on, given the scores that the filters have left.

Each is made for one batch and may keep a state for each of its sentences. Semantics and option names are fairseq's.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fairbeam.generation.beam import Beams, Candidates, Correction, best_continuations, topk_of_long_rows
from fairbeam.generation.constraints import Progress, Required, build_automaton, take_turns
from fairbeam.generation.filters import FORBIDDEN, Special
from fairbeam.generation.options import Constraints, GenerationOptions


class Chooser(Protocol):
    """What the decode loop asks at every step."""

    def __call__(self, log_probabilities: Tensor, beams: Beams, correction: Correction) -> Candidates:
        """Candidates from (batch, K, vocabulary); fewer than ``2 K`` a sentence where none are to spare."""

    def reorder(self, chosen: Tensor) -> None:
        """Beam ``b`` of sentence ``s`` is now the candidate ``chosen[s, b]``; (batch, K) long."""

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences, (kept,) long."""


class Stateless:
    """A chooser, or a part of one, that remembers nothing."""

    def reorder(self, chosen: Tensor) -> None:
        """There is nothing to reorder."""

    def select(self, sentences: Tensor) -> None:
        """There is nothing to keep."""


class BestFirst(Stateless):
    """Beam search: the ``2 K`` best of all continuations (Sutskever et al., 2014)."""

    def __call__(self, log_probabilities: Tensor, beams: Beams, correction: Correction) -> Candidates:
        count, first = 2 * log_probabilities.size(1), slice(0, 1 if beams.step == 0 else None)
        # At the first step all beams are equal, and only one of them counts.
        return best_continuations(log_probabilities[:, first], beams.totals[:, first], count, correction)


class DiverseGroups(Stateless):
    """Diverse beam search (Vijayakumar et al., 2018), with fairseq's cumulative diversity.

    Beams ``g``, ``g + groups``, … are group ``g``. A token that an earlier group has chosen at this step costs
    ``strength``, and as much again for every earlier step at which the two groups agreed.
    """

    def __init__(self, groups: int, strength: float) -> None:
        self.groups, self.strength = groups, strength
        self._overlap: Tensor | None = None
        """(batch, groups, groups): tokens that two groups have chosen alike so far."""

    def __call__(self, log_probabilities: Tensor, beams: Beams, correction: Correction) -> Candidates:
        batch, beam, vocabulary = log_probabilities.shape
        count = beam // self.groups
        if self._overlap is None:
            self._overlap = log_probabilities.new_zeros(batch, self.groups, self.groups)
        chosen: list[Candidates] = []
        for group in range(self.groups):
            members = slice(group, group + 1 if beams.step == 0 else None, self.groups)
            scores = log_probabilities[:, members]
            if group:
                tokens = torch.stack([candidates.tokens for candidates in chosen], dim=2)  # (batch, count, group)
                penalty = (1 + self._overlap[:, group, None, :group]).expand_as(tokens) * self.strength
                taken = scores.new_zeros(batch, vocabulary).scatter_add_(1, tokens.flatten(1), penalty.flatten(1))
                scores = scores - taken.unsqueeze(1)
            corrected = _of_members(correction, group, self.groups)
            candidates = best_continuations(scores, beams.totals[:, members], count, corrected)
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


class DiverseSiblings(Stateless):
    """Continuations of one beam cost ``rate`` times their rank among themselves (Li et al., 2016)."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def __call__(self, log_probabilities: Tensor, beams: Beams, correction: Correction) -> Candidates:
        if beams.step == 0:
            return BestFirst()(log_probabilities, beams, correction)
        beam = log_probabilities.size(1)
        each = []
        for parent in range(beam):
            one, corrected = slice(parent, parent + 1), _of_members(correction, parent)
            each.append(best_continuations(log_probabilities[:, one], beams.totals[:, one], 2 * beam, corrected))
        rank = torch.arange(1, 2 * beam + 1, device=log_probabilities.device)
        scores, places = torch.cat([found.totals - self.rate * rank for found in each], dim=1).topk(2 * beam, dim=1)
        tokens = torch.cat([found.tokens for found in each], dim=1).gather(1, places)
        return Candidates(scores, places.div(2 * beam, rounding_mode="floor"), tokens)


def _of_members(correction: Correction, first: int, stride: int = 1) -> Correction:
    """``correction`` for whoever sees of the beams only ``first``, ``first + stride``, …"""
    return lambda parents, tokens: correction(parents * stride + first, tokens)


class Constrained:
    """Beam search whose hypotheses end only when they hold the phrases their sentence requires.

    The best continuations, the best of each beam and those that a phrase asks for share the beam by turns (Post and
    Vilar, 2018; Hu et al., 2019). Where not even one hypothesis gets there within the length limit, what there is ends.
    """

    def __init__(self, required: Sequence[Required], order: Constraints, beam: int, eos: int) -> None:
        """``required``: for each sentence of the batch, possibly nothing."""
        self.eos = eos
        self._automata = [build_automaton(groups, order) for groups in required]
        self._states = [[automaton.start] * beam for automaton in self._automata]
        self._proposed: list[list[Progress]] = []
        """The states of the latest candidates."""
        self._served = [False] * len(self._automata)
        """Whether a hypothesis with all phrases has ended."""

    def __call__(self, log_probabilities: Tensor, beams: Beams, correction: Correction) -> Candidates:
        beam = log_probabilities.size(1)
        self._forbid_early_ends(log_probabilities, beams)
        asked = self._asked_for(1 if beams.step == 0 else beam)
        found = [
            BestFirst()(log_probabilities, beams, correction),
            _best_of_each(log_probabilities, beams, correction),
            _looked_up(asked, log_probabilities, beams, correction),
        ]
        parts = (torch.cat([getattr(one, part) for one in found], dim=1) for part in ("totals", "parents", "tokens"))
        excess = max(map(len, asked))  # which is how many each sentence was looked up
        shared = [
            self._share(sentence, [part[: len(part) - excess + len(asked[sentence])] for part in row], 2 * beam)
            for sentence, row in enumerate(zip(*(part.tolist() for part in parts), strict=True))
        ]
        self._proposed = [[state for *_, state in row] for row in shared]
        totals, parents, tokens = (
            torch.tensor([[candidate[part] for candidate in row] for row in shared], device=beams.totals.device)
            for part in range(3)
        )
        for sentence, row in enumerate(shared):
            ended = any(token == self.eos and total > FORBIDDEN for total, _, token, _ in row[:beam])
            self._served[sentence] = self._served[sentence] or ended
        return Candidates(totals, parents, tokens)

    def _share(self, sentence: int, candidates: list[list[Any]], width: int) -> list[tuple[float, int, int, Progress]]:
        """The candidates of a sentence, each once, by turns of the banks: total, parent, token and state."""
        automaton, states = self._automata[sentence], self._states[sentence]
        unique = {(parent, token): total for total, parent, token in zip(*candidates, strict=True)}
        reached = [automaton.advance(states[parent], token) for parent, token in unique]
        banks = [automaton.bank(state) for state in reached]
        scores, places = list(unique.values()), list(unique)
        row = [(scores[i], *places[i], reached[i]) for i in take_turns(banks, scores)[:width]]
        return row + [(FORBIDDEN, 0, 0, states[0])] * (width - len(row))

    def _forbid_early_ends(self, scores: Tensor, beams: Beams) -> None:
        at_limit = [False] * len(scores) if beams.step < beams.shortest_limit else (beams.limits <= beams.step).tolist()
        early = []
        for sentence, (automaton, states) in enumerate(zip(self._automata, self._states, strict=True)):
            finished = [automaton.finished(state) for state in states]
            if at_limit[sentence] and not self._served[sentence] and not any(finished):
                continue
            early += [(sentence, number) for number, done in enumerate(finished) if not done]
        if early:
            rows, places = torch.tensor(early, device=scores.device).unbind(1)
            scores[rows, places, self.eos] = FORBIDDEN

    def _asked_for(self, beam: int) -> list[list[tuple[int, int]]]:
        """For each sentence, beams and the tokens that its phrases want behind them."""
        return [
            [(number, token) for number in range(beam) for token in automaton.next_tokens(states[number])]
            for automaton, states in zip(self._automata, self._states, strict=True)
        ]

    def reorder(self, chosen: Tensor) -> None:
        """Take over the states of the candidates that go on."""
        rows = zip(self._proposed, chosen.tolist(), strict=True)
        self._states = [[proposed[place] for place in places] for proposed, places in rows]

    def select(self, sentences: Tensor) -> None:
        """Keep these sentences' states."""
        kept = sentences.tolist()
        self._automata = [self._automata[sentence] for sentence in kept]
        self._states = [self._states[sentence] for sentence in kept]
        self._served = [self._served[sentence] for sentence in kept]


def _best_of_each(log_probabilities: Tensor, beams: Beams, correction: Correction) -> Candidates:
    """The best continuation of every beam, (batch, K)."""
    scores, tokens = log_probabilities.max(2)
    parents = torch.arange(tokens.size(1), device=tokens.device).expand_as(tokens)
    if beams.step == 0:  # all beams are the first
        scores, tokens, parents = scores[:, :1], tokens[:, :1], parents[:, :1]
    added = correction(parents, tokens)
    scores = scores + beams.totals[:, : scores.size(1)]
    return Candidates(scores if added is None else scores + added, parents, tokens)


def _looked_up(
    wanted: list[list[tuple[int, int]]], log_probabilities: Tensor, beams: Beams, correction: Correction
) -> Candidates:
    """The (beam, token) pairs of each sentence as candidates; shorter rows are padded with beam 0 and token 0."""
    width = max(map(len, wanted))
    filled = [pairs + [(0, 0)] * (width - len(pairs)) for pairs in wanted]
    pairs = torch.tensor(filled, dtype=torch.long, device=beams.totals.device).view(len(wanted), width, 2)
    parents, tokens = pairs.unbind(2)
    sentences = torch.arange(len(wanted), device=parents.device).unsqueeze(1)
    scores = log_probabilities[sentences, parents, tokens] + beams.totals.gather(1, parents)
    added = correction(parents, tokens)
    return Candidates(scores if added is None else scores + added, parents, tokens)


class StochasticBeam:
    """Hypotheses drawn without replacement by Gumbel-top-k (Kool et al., 2019, algorithm 1).

    Every hypothesis has a perturbed log probability: that of a beam is the highest of its continuations'. The best of
    all hypotheses, whether they have ended or not, go on. Probabilities are those of the tokens that the filters allow.
    """

    def __init__(self, seed: int, source: Tensor, special: Special, beam: int) -> None:
        """``source``: (batch, length) ids; streams are as those of ``Sampling``."""
        self.eos = special.eos
        self._streams = sentence_streams(seed, source, special.pad)
        self._heights = torch.zeros(len(source), beam, device=source.device)
        """Perturbed log probabilities of the beams."""
        self._ended = torch.full((len(source), beam), FORBIDDEN, device=source.device)
        """The best perturbed log probabilities of hypotheses that have ended."""
        self._proposed = self._heights

    def __call__(self, log_probabilities: Tensor, beams: Beams, correction: Correction) -> Candidates:
        first = slice(0, 1 if beams.step == 0 else None)
        beam, vocabulary = log_probabilities.shape[1:]
        allowed = log_probabilities[:, first]
        allowed = (allowed - allowed.logsumexp(2, keepdim=True)).nan_to_num(FORBIDDEN, neginf=FORBIDDEN)
        totals = (allowed + beams.totals[:, first].unsqueeze(2)).flatten(1)
        noise = np.stack([stream.gumbel(size=totals.size(1)) for stream in self._streams])
        noisy = (totals + torch.from_numpy(noise).to(totals)).unflatten(1, (-1, vocabulary))
        heights = conditioned_on_maximum(noisy, self._heights[:, first])
        ranks, places = topk_of_long_rows(heights.flatten(1), min(2 * beam, totals.size(1)))
        parents, tokens = places.div(vocabulary, rounding_mode="floor"), places % vocabulary
        totals = totals.gather(1, places)
        added = correction(parents, tokens)
        totals = totals if added is None else totals + added
        # What is not among the best of all, ended or not, can never be again.
        least = torch.cat([ranks, self._ended], dim=1).topk(beam, dim=1).values[:, -1:]
        gone = (ranks < least) | ranks.isneginf()
        ranks, totals = ranks.masked_fill(gone, FORBIDDEN), totals.masked_fill(gone, FORBIDDEN)
        ends = tokens.eq(self.eos)
        self._ended = torch.cat([self._ended, ranks.masked_fill(~ends, FORBIDDEN)], dim=1).topk(beam, dim=1).values
        nothing_left = (gone | ends).all(1)
        beams.limits[nothing_left] = beams.limits[nothing_left].clamp(max=beams.step)
        self._proposed = ranks
        return Candidates(totals, parents, tokens, ranks)

    def reorder(self, chosen: Tensor) -> None:
        """Take over the perturbed log probabilities of the candidates that go on."""
        self._heights = self._proposed.gather(1, chosen)

    def select(self, sentences: Tensor) -> None:
        """Keep these sentences' streams and perturbed log probabilities."""
        self._streams = [self._streams[sentence] for sentence in sentences.tolist()]
        self._heights, self._ended = self._heights[sentences], self._ended[sentences]


def conditioned_on_maximum(noisy: Tensor, maximum: Tensor) -> Tensor:
    """Gumbel variables, (batch, beams, vocabulary), shifted so that the highest of each beam is ``maximum``, (batch,
    beams); in the form that loses no digits (Kool et al., 2019, appendix B.3)."""
    below = (noisy - noisy.amax(2, keepdim=True)).nan_to_num(FORBIDDEN, neginf=FORBIDDEN)
    maximum = maximum.unsqueeze(2)
    value = maximum - noisy + torch.log1p(-below.exp())
    shifted = maximum - value.clamp(min=0) - torch.log1p(torch.exp(-value.abs()))
    return shifted.nan_to_num(FORBIDDEN, neginf=FORBIDDEN)


class Sampling(Stateless):
    """Each beam draws its next token; a hypothesis scores what the model, untruncated, gives it.

    Draws come from a stream for each sentence, begun from the seed and the sentence alone, so that a sample does not
    depend on what else is in the batch.
    """

    def __init__(self, cuts: list["Cut"], seed: int, source: Tensor, pad: int) -> None:
        """``source``: (batch, length) ids."""
        self.cuts = cuts
        self._streams = sentence_streams(seed, source, pad)

    def __call__(self, log_probabilities: Tensor, beams: Beams, correction: Correction) -> Candidates:
        beam, vocabulary = log_probabilities.shape[1:]
        allowed = log_probabilities
        for cut in self.cuts:
            allowed = allowed.masked_fill(~cut(allowed), FORBIDDEN)
        drawn = torch.from_numpy(np.stack([stream.random(beam) for stream in self._streams]))
        heights = allowed.exp().cumsum(2, dtype=torch.double)
        wanted = drawn.to(heights.device).unsqueeze(2) * heights[..., -1:]
        tokens = torch.searchsorted(heights, wanted, right=True).squeeze(2).clamp_(max=vocabulary - 1)
        parents = torch.arange(beam, device=tokens.device).expand_as(tokens)
        scores = log_probabilities.gather(2, tokens.unsqueeze(2)).squeeze(2)
        added = correction(parents, tokens)
        return Candidates(beams.totals + (scores if added is None else scores + added), parents, tokens)

    def select(self, sentences: Tensor) -> None:
        """Keep these sentences' streams."""
        self._streams = [self._streams[sentence] for sentence in sentences.tolist()]


def sentence_streams(seed: int, source: Tensor, pad: int) -> list[np.random.Generator]:
    """A stream of random numbers for each sentence of (batch, length) ids."""
    return [np.random.default_rng([seed, *row[row.ne(pad)].tolist()]) for row in source.cpu()]


Cut = Callable[[Tensor], Tensor]
"""Takes log probabilities (..., vocabulary) and says which tokens may be drawn, bool."""


def top_k(count: int) -> Cut:
    """The ``count`` most probable tokens (Fan et al., 2018)."""

    def keep(scores: Tensor) -> Tensor:
        best = scores.topk(min(count, scores.size(-1)), dim=-1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, best, True)

    return keep


def top_p(mass: float) -> Cut:
    """The smallest set of the most probable tokens that holds ``mass`` (Holtzman et al., 2020)."""
    return lambda scores: _until(scores, scores.exp(), mass)


def typical(mass: float) -> Cut:
    """The smallest set of tokens of nearly the expected information that holds ``mass`` (Meister et al., 2023)."""

    def keep(scores: Tensor) -> Tensor:
        probabilities = scores.exp()
        entropy = -(probabilities * scores.clamp(min=torch.finfo(scores.dtype).min)).sum(-1, keepdim=True)
        return _until(-(entropy + scores).abs(), probabilities, mass)

    return keep


def min_p(share: float) -> Cut:
    """Tokens of at least ``share`` of the highest probability (Nguyen et al., 2024)."""
    return lambda scores: scores >= scores.amax(-1, keepdim=True) + float(np.log(share))


def epsilon(least: float) -> Cut:
    """Tokens of at least this probability, or the best where there is none (Hewitt et al., 2022)."""
    return lambda scores: (scores >= float(np.log(least))) | (scores == scores.amax(-1, keepdim=True))


def _until(preference: Tensor, probabilities: Tensor, mass: float) -> Tensor:
    """The most preferred tokens up to and including the one with which their probabilities reach ``mass``."""
    order = preference.argsort(dim=-1, descending=True)
    sorted_probabilities = probabilities.gather(-1, order)
    before = sorted_probabilities.cumsum(-1) - sorted_probabilities
    return torch.zeros_like(before, dtype=torch.bool).scatter_(-1, order, before < mass)


def build_chooser(
    options: GenerationOptions, source: Tensor, special: Special, required: Sequence[Required] | None = None
) -> Chooser:
    """The chooser that ``options`` ask for, for a batch of sources, (batch, length) ids, and what each requires."""
    if options.constraints is not None and required is not None and any(required):
        return Constrained(required, options.constraints, options.beam, special.eos)
    if options.sampling:
        return Sampling(build_cuts(options), options.seed, source, special.pad)
    if options.stochastic_beam:
        return StochasticBeam(options.seed, source, special, options.beam)
    if options.diverse_beam_groups > 0:
        return DiverseGroups(options.diverse_beam_groups, options.diverse_beam_strength)
    if options.diversity_rate > 0:
        return DiverseSiblings(options.diversity_rate)
    return BestFirst()


def build_cuts(options: GenerationOptions) -> list[Cut]:
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
