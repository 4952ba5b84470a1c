"""Contrastive search (Su et al., 2022): probable tokens that do not say again what was said.

The ``k`` candidates of a step ride as the beams of one hypothesis: all are run, one is kept, and all go on from it.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.generation.constraints import Required
from fairbeam.generation.features import MASKS, Capabilities, Feature
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.logits_processors import LogitsProcessor, SpecialTokenIds
from fairbeam.generation.model import SingleModel
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.search.beam_search import BeamSearch
from fairbeam.generation.search.beams import Beams, Candidates
from fairbeam.generation.search.finished import Finished


class ContrastiveSearch:
    """Search for one hypothesis of each sentence with the best balance of probability and novelty."""

    # It needs the features of one model, follows one hypothesis and ends with its first </s>.
    capabilities = Capabilities(
        name="contrastive search",
        provides=Feature.CONTRASTIVE,
        supports=MASKS | Feature.LENGTH_PENALTY | Feature.COVERAGE_PENALTY | Feature.ATTENTION,
    )

    def __init__(self, search: BeamSearch) -> None:
        """``search`` begins and ranks hypotheses; its model is a single one."""
        assert isinstance(search.model, SingleModel)
        self.search, self.options, self.special, self._model = search, search.options, search.special, search.model

    def __call__(
        self,
        source: Tensor,
        *,
        prefix: Tensor | None = None,
        start: int | None = None,
        required: Sequence[Required] | None = None,
        numbers: Sequence[int] | None = None,
        watch: Any = None,
    ) -> list[list[Hypothesis]]:
        """Decode one batch; arguments as of ``BeamSearch``, but that nothing can be required or watched."""
        # The model is run on </s>, too, which takes a position.
        beams = self.search.begin_beams(source, prefix, start, numbers, beam=1, spare=1)
        found = contrastive_search(self._model, source, beams, self.search.filters, self.options, self.special)
        return self.search.ranked(found, source, start)


@torch.no_grad()
def contrastive_search(
    model: SingleModel,
    source: Tensor,
    beams: Beams,
    filters: Sequence[LogitsProcessor],
    options: GenerationOptions,
    special: SpecialTokenIds,
) -> list[list[Hypothesis]]:
    """One hypothesis for each sentence.

    Args:
        source: (batch, source) ids, or prompts.
        beams: one for each sentence, with the start symbol.
    """
    state = model.prefill(source, options.beam)
    finished = Finished(len(source), options, wanted=1)
    alive = torch.arange(len(source), device=source.device)
    latest = beams.tokens[:, :, 0].expand(-1, options.beam)
    scores = model.score(state, latest, options.temperature).log_probs[:, :1]
    context = unit(model.context(state))
    while True:
        for apply in filters:
            apply(scores, beams)
        values, tokens = scores[:, 0].topk(min(options.beam, scores.size(2)))  # (batch, k)
        following = model.score(state, tokens, options.temperature).log_probs
        features = unit(model.features(state))
        best = most_balanced(values, similarity(features, context), options.penalty_alpha).unsqueeze(1)  # (batch, 1)
        totals = beams.totals + values.gather(1, best)
        chosen = Candidates(totals, torch.zeros_like(best), tokens.gather(1, best))
        ends = chosen.tokens.eq(special.eos) & totals.isfinite()
        finished.collect(alive, beams, chosen, ends, special.eos)
        going = finished.unfinished(alive, beams.limits > beams.step)
        if not len(going):
            return finished.hypotheses
        beams.extend(chosen.parents, chosen.tokens, chosen.totals)
        state.reorder(best.expand(-1, options.beam))
        rows = torch.arange(len(alive), device=alive.device)
        scores = following[rows, best[:, 0]].unsqueeze(1)
        context = torch.cat([context, features[rows, best[:, 0]].unsqueeze(1)], dim=1)
        if len(going) < len(alive):
            alive, scores, context = alive[going], scores[going], context[going]
            beams.select(going)
            state.select(going)


def unit(vectors: Tensor) -> Tensor:
    """Vectors of length one; those of length nothing stay as they are, and are like none."""
    return F.normalize(vectors.float(), dim=-1)


def similarity(features: Tensor, context: Tensor) -> Tensor:
    """The cosine with the most similar vector of the context, (batch, k).

    Args:
        features: (batch, k, dim) of length one.
        context: (batch, length, dim) of length one, or nothing in places that are empty.
    """
    empty = context.abs().amax(2).eq(0).unsqueeze(1)
    return (features @ context.mT).masked_fill(empty, -1.0).amax(2)


def most_balanced(values: Tensor, similar: Tensor, alpha: float) -> Tensor:
    """The candidate with the best of probability and degeneration penalty, equation 5; arguments (batch, k)."""
    balance = (1 - alpha) * values.exp() - alpha * similar
    return balance.masked_fill(values.isneginf(), float("-inf")).argmax(1)
