"""Alternatives at a position: the most probable tokens behind a prefix, each completed by the usual search."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fairbeam.generation.constraints import Required
from fairbeam.generation.features import DIVERSITY, MASKS, RANKING, Capabilities, Feature
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.search.beam_search import BeamSearch
from fairbeam.generation.search.beams import Beams, best_continuations


class AlternativesSearch:
    """For each sentence the ``nbest`` most probable tokens behind its prefix, most probable first, each with the best
    hypothesis that goes on from it.

    What CTranslate2 calls ``return_alternatives``. Logits processors apply: a masked token is no alternative.
    """

    capabilities = Capabilities(
        name="alternatives",
        provides=Feature.ALTERNATIVES,
        supports=(MASKS & ~Feature.FIRST_TOKEN)
        | RANKING
        | DIVERSITY
        | Feature.SAMPLING
        | Feature.SOURCE_LENGTH
        | Feature.PATIENCE
        | Feature.ENSEMBLE
        | Feature.SHALLOW_FUSION,
    )

    def __init__(self, search: BeamSearch) -> None:
        """``search`` completes the alternatives."""
        self.search, self.options, self.special = search, search.options, search.special

    @torch.no_grad()
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
        """Decode one batch; arguments as of ``BeamSearch``, but that nothing can be required or watched.

        Returns:
            For each sentence a hypothesis for each alternative; fewer than ``nbest`` where the others are less probable
            than ``min_alternative_expansion_prob``, or may not be said.
        """
        start = self.search.default_start() if start is None else start
        numbers = list(range(len(source))) if numbers is None else numbers
        beams = self.search.begin_beams(source, prefix, start, numbers, beam=1)
        given = source.new_empty(len(source), 0) if prefix is None else prefix[:, : int(beams.limits.max())]
        lengths = given.ne(self.special.pad).sum(1).minimum(beams.limits)
        values, tokens = self._most_probable(source, beams, given, lengths)
        kept = values.exp().ge(self.options.min_alternative_expansion_prob)
        kept[:, 0] = True
        kept &= values.isfinite()
        results: list[list[Hypothesis]] = [[] for _ in numbers]
        for rank in range(tokens.size(1)):  # as many rows at a time as there are sentences
            rows = kept[:, rank].nonzero()[:, 0]
            if not len(rows):
                continue
            longer = F.pad(given[rows], (0, 1), value=self.special.pad)
            longer = longer.scatter(1, lengths[rows, None], tokens[rows, rank, None])
            mine = [numbers[row] for row in rows.tolist()]
            for row, found in zip(
                rows.tolist(), self.search(source[rows], prefix=longer, start=start, numbers=mine), strict=True
            ):
                results[row] += found[:1]
        return results

    def _most_probable(self, source: Tensor, beams: Beams, given: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log probabilities and ids of the most probable tokens behind each sentence's prefix, (batch, alternatives).

        Args:
            beams: one for each sentence, without any token; the prefixes are left in it.
            given: (batch, prefix) ids, padded on the right.
            lengths: (batch,) of the prefixes.
        """
        model, temperature, longest = self.search.model, self.options.temperature, int(lengths.max())
        state, only = model.prefill(source, 1), torch.zeros_like(lengths)[:, None]
        each = []
        while True:
            scores = model.score(state, beams.tokens[:, :, beams.step], temperature)
            for apply in self.search.filters:
                apply(scores.log_probs, beams)
            found = best_continuations(scores, torch.zeros_like(beams.totals), self.options.nbest)
            each.append((found.totals, found.tokens))
            if beams.step == longest:
                break
            token = given[:, beams.step, None].where(lengths[:, None] > beams.step, self.special.eos)
            beams.extend(only, token, beams.totals + scores.log_probs[:, 0].gather(1, token))
            state.reorder(only)
        steps, rows = lengths, torch.arange(len(lengths), device=lengths.device)
        values, tokens = (torch.stack(parts)[steps, rows] for parts in zip(*each, strict=True))
        return values[:, : self.options.nbest], tokens[:, : self.options.nbest]
