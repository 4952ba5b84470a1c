"""The candidate selector of lexically constrained beam search."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from fairbeam.generation.constraints import Progress, Required, Steps, build_automaton, take_turns
from fairbeam.generation.features import MASKS, RANKING, Capabilities, Feature
from fairbeam.generation.logits_processors import FORBIDDEN
from fairbeam.generation.model import StepScores
from fairbeam.generation.options import Constraints
from fairbeam.generation.search.beam_ops import top_of_sums
from fairbeam.generation.search.beams import Beams, Candidates
from fairbeam.generation.strategies.selectors import NewBatch, TopCandidates


class Constrained:
    """Beam search whose hypotheses end only when they hold the phrases their sentence requires.

    The best continuations, the best of each beam and those that a phrase asks for share the beam by turns (Post and
    Vilar, 2018; Hu et al., 2019). Where not even one hypothesis gets there within the length limit, what there is ends.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(
        name="constrained beam search",
        provides=Feature.CONSTRAINTS,
        supports=MASKS
        | RANKING
        | Feature.PATIENCE
        | Feature.PREFIX_BIAS
        | Feature.ENSEMBLE
        | Feature.SHALLOW_FUSION
        | Feature.MINIMUM_BAYES_RISK
        | Feature.RERANKING
        | Feature.SHORTLIST,
    )

    @classmethod
    def for_batch(cls, batch: NewBatch) -> "Constrained | TopCandidates":
        """Make the selector of a batch; that of beam search where no sentence requires anything."""
        options = batch.options
        if batch.required is None:
            return TopCandidates()
        assert options.constraints is not None
        return cls(batch.required, options.constraints, options.beam, batch.special.eos)

    def __init__(self, required: Sequence[Required], order: Constraints, beam: int, eos: int) -> None:
        """``required``: for each sentence of the batch, possibly nothing."""
        self.eos = eos
        self._automata = [build_automaton(groups, order) for groups in required]
        self._steps = [Steps(automaton) for automaton in self._automata]
        self._states = [[automaton.start] * beam for automaton in self._automata]
        self._proposed: list[list[Progress]] = []
        """The states of the latest candidates."""
        self._served = [False] * len(self._automata)
        """Whether a hypothesis with all phrases has ended."""

    def __call__(self, scores: StepScores, beams: Beams) -> Candidates:
        beam = scores.log_probs.size(1)
        self._forbid_early_ends(scores.log_probs, beams)
        asked = self._asked_for(1 if beams.step == 0 else beam)
        found = [
            TopCandidates()(scores, beams),
            _best_of_each(scores, beams),
            _looked_up(asked, scores, beams),
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
        steps, states = self._steps[sentence], self._states[sentence]
        of_beams: list[dict[int, float]] = [{} for _ in states]
        for total, parent, token in zip(*candidates, strict=True):
            of_beams[parent][token] = total
        places = [(parent, token) for parent, tokens in enumerate(of_beams) for token in tokens]
        scores = [total for tokens in of_beams for total in tokens.values()]
        reached = [step for state, tokens in zip(states, of_beams, strict=True) for step in steps.behind(state, tokens)]
        turns = take_turns([bank for _, bank in reached], scores)
        row = [(scores[i], *places[i], reached[i][0]) for i in turns[:width]]
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
        self._steps = [self._steps[sentence] for sentence in kept]
        self._states = [self._states[sentence] for sentence in kept]
        self._served = [self._served[sentence] for sentence in kept]

    def join(self, other: "Constrained") -> None:
        """Append those sentences' states."""
        self._automata += other._automata
        self._steps += other._steps
        self._states += other._states
        self._served += other._served


def _best_of_each(scores: StepScores, beams: Beams) -> Candidates:
    """Return the best continuation of every beam, (batch, K)."""
    rows = scores.log_probs.flatten(0, 1).unsqueeze(1)
    log_probs, tokens = (part.view_as(beams.totals) for part in top_of_sums(rows, rows.new_zeros(len(rows), 1), 1))
    parents = torch.arange(tokens.size(1), device=tokens.device).expand_as(tokens)
    if beams.step == 0:  # all beams are the first
        log_probs, tokens, parents = log_probs[:, :1], tokens[:, :1], parents[:, :1]
    delta = scores.exact_delta(parents, tokens)
    totals = log_probs + beams.totals[:, : log_probs.size(1)]
    return Candidates(totals if delta is None else totals + delta, parents, tokens)


def _looked_up(wanted: list[list[tuple[int, int]]], scores: StepScores, beams: Beams) -> Candidates:
    """Return (beam, token) pairs of each sentence as candidates; shorter rows are padded with beam 0 and token 0."""
    width = max(map(len, wanted))
    filled = [pairs + [(0, 0)] * (width - len(pairs)) for pairs in wanted]
    pairs = torch.tensor(filled, dtype=torch.long, device=beams.totals.device).view(len(wanted), width, 2)
    parents, tokens = pairs.unbind(2)
    sentences = torch.arange(len(wanted), device=parents.device).unsqueeze(1)
    totals = scores.log_probs[sentences, parents, tokens] + beams.totals.gather(1, parents)
    delta = scores.exact_delta(parents, tokens)
    return Candidates(totals if delta is None else totals + delta, parents, tokens)
