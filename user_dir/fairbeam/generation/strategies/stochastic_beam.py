"""The candidate selector that samples without replacement."""

from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from fairbeam.generation.features import MASKS, Capabilities, Feature
from fairbeam.generation.logits_processors import FORBIDDEN, SpecialTokenIds
from fairbeam.generation.model import StepScores
from fairbeam.generation.search.beam_ops import top_of_sums
from fairbeam.generation.search.beams import Beams, Candidates
from fairbeam.generation.strategies.selectors import NewBatch, sentence_streams


class StochasticBeam:
    """Hypotheses drawn without replacement by Gumbel-top-k (Kool et al., 2019, algorithm 1).

    Every hypothesis has a perturbed log probability: that of a beam is the highest of its continuations'. The best of
    all hypotheses, whether they have ended or not, go on. Probabilities are those of the tokens that the filters allow.
    """

    # Hypotheses rank by perturbed log probabilities, which no length, coverage or other model changes.
    capabilities: ClassVar[Capabilities] = Capabilities(
        name="stochastic beam search",
        provides=Feature.STOCHASTIC_BEAM,
        supports=MASKS
        | Feature.SEVERAL_OUTPUTS
        | Feature.ATTENTION
        | Feature.PREFIX_BIAS
        | Feature.ENSEMBLE
        | Feature.MINIMUM_BAYES_RISK,
    )

    @classmethod
    def for_batch(cls, batch: NewBatch) -> Self:
        """Make the selector of a batch, with a stream of random numbers for each sentence."""
        return cls(batch.options.seed, batch.source, batch.special, batch.options.beam)

    def __init__(self, seed: int, source: Tensor, special: SpecialTokenIds, beam: int) -> None:
        """``source``: (batch, length) ids; streams are as those of ``Sampling``."""
        self.eos = special.eos
        self._streams = sentence_streams(seed, source, special.padding_of_sources)
        self._heights = torch.zeros(len(source), beam, device=source.device)
        """Perturbed log probabilities of the beams."""
        self._ended = torch.full((len(source), beam), FORBIDDEN, device=source.device)
        """The best perturbed log probabilities of hypotheses that have ended."""
        self._proposed = self._heights

    def __call__(self, scores: StepScores, beams: Beams) -> Candidates:
        first = slice(0, 1 if beams.step == 0 else None)
        beam, vocabulary = scores.log_probs.shape[1:]
        allowed = scores.log_probs[:, first]
        allowed = (allowed - allowed.logsumexp(2, keepdim=True)).nan_to_num(FORBIDDEN, neginf=FORBIDDEN)
        totals = (allowed + beams.totals[:, first].unsqueeze(2)).flatten(1)
        noise = np.stack([stream.gumbel(size=totals.size(1)) for stream in self._streams])
        noisy = (totals + torch.from_numpy(noise).to(totals)).unflatten(1, (-1, vocabulary))
        heights = conditioned_on_maximum(noisy, self._heights[:, first])
        ranks, places = top_of_sums(heights, heights.new_zeros(heights.shape[:2]), min(2 * beam, totals.size(1)))
        parents, tokens = places.div(vocabulary, rounding_mode="floor"), places % vocabulary
        totals = totals.gather(1, places)
        delta = scores.exact_delta(parents, tokens)
        totals = totals if delta is None else totals + delta
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

    def join(self, other: "StochasticBeam") -> None:
        """Append those sentences' streams and perturbed log probabilities."""
        self._streams += other._streams
        self._heights = torch.cat([self._heights, other._heights])
        self._ended = torch.cat([self._ended, other._ended])


def conditioned_on_maximum(noisy: Tensor, maximum: Tensor) -> Tensor:
    """Gumbel variables, (batch, beams, vocabulary), shifted so that the highest of each beam is ``maximum``, (batch,
    beams); in the form that loses no digits (Kool et al., 2019, appendix B.3)."""
    below = (noisy - noisy.amax(2, keepdim=True)).nan_to_num(FORBIDDEN, neginf=FORBIDDEN)
    maximum = maximum.unsqueeze(2)
    value = maximum - noisy + torch.log1p(-below.exp())
    shifted = maximum - value.clamp(min=0) - torch.log1p(torch.exp(-value.abs()))
    return shifted.nan_to_num(FORBIDDEN, neginf=FORBIDDEN)
