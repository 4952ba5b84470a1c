"""Beam search over a batch: fairseq's semantics, one token of every hypothesis at a step."""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.generation.alignment import with_attention
from fairbeam.generation.beam import Beams, ended, rounded_up, survivors, with_company
from fairbeam.generation.constraints import Required
from fairbeam.generation.contrastive import contrastive_search
from fairbeam.generation.filters import Special, build_filters
from fairbeam.generation.finished import Finished
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.protocol import SingleModel, as_model
from fairbeam.generation.ranking import best_first, with_coverage
from fairbeam.generation.speculative import Speculation
from fairbeam.generation.strategies import build_chooser
from fairbeam.network import Generator


class BeamSearch:
    """Finds the best target sequences of networks under ``GenerationOptions``.

    The result for a sentence depends on the sentence alone, never on what else is in the batch.
    """

    def __init__(
        self,
        networks: Sequence[Generator],
        options: GenerationOptions,
        special: Special | None = None,
        draft: Generator | None = None,
    ) -> None:
        """Several networks are an ensemble; all share one target vocabulary.

        ``draft`` writes ahead where the options ask for it; its vocabularies are the same.
        """
        self.model = as_model(networks, options.ensemble_weights)
        self.options = options
        self.special = special or Special()
        self.filters = build_filters(options, self.special)
        # Samples without replacement are all of them the best of what is left; their chooser knows when none is.
        self._wanted = sys.maxsize if options.stochastic_beam else options.finished_wanted
        if options.penalty_alpha and not isinstance(self.model, SingleModel):
            raise ConfigError(f"--penalty-alpha {options.penalty_alpha}: needs the features of one model")
        self._speculation = (
            Speculation(self.model, networks, options, self.special, draft) if options.speculates else None
        )
        self._attends = options.attention or options.coverage_penalty > 0
        if self._attends and not all(hasattr(network, "alignments") for network in networks):
            raise ConfigError(
                "alignments and --coverage-penalty need attention to a source, and the model has no encoder"
            )

    @torch.no_grad()
    def __call__(
        self,
        source: Tensor,
        *,
        prefix: Tensor | None = None,
        start: int | None = None,
        required: Sequence[Required] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> list[list[Hypothesis]]:
        """Decode one batch.

        Args:
            source: (batch, length) ids padded on either side, each ended by ``</s>``; or, where there is no encoder,
                prompts, which the outputs continue.
            prefix: (batch, prefix) ids the outputs must begin with, padded on the right.
            start: the symbol decoding begins with; the network's own if not given, which mostly is ``</s>``.
            required: for each sentence the phrases its outputs must hold, in the order ``options.constraints`` says.
            numbers: what ``options.prefix_allowed_tokens_fn`` is told of which sentence it is asked; from 0 if None.

        Returns:
            For each sentence its finished hypotheses, best first, at most ``options.finished_wanted``.
        """
        start = self._default_start() if start is None else start
        found = self._search(source, prefix, start, required, numbers)
        if self._attends:
            found = with_attention(self.model, source, found, start)
        if strength := self.options.coverage_penalty:
            real = source.ne(self.special.padding_of_sources)
            found = [[with_coverage(h, row, strength) for h in mine] for mine, row in zip(found, real, strict=True)]
        return [best_first(hypotheses)[: self.options.finished_wanted] for hypotheses in found]

    def _search(
        self,
        source: Tensor,
        prefix: Tensor | None,
        start: int,
        required: Sequence[Required] | None,
        numbers: Sequence[int] | None,
    ) -> list[list[Hypothesis]]:
        beams = self._begin(source, prefix, start, numbers)
        if self.options.penalty_alpha:
            assert isinstance(self.model, SingleModel)
            return contrastive_search(self.model, source, beams, self.filters, self.options, self.special)
        if self._speculation is not None:
            return self._speculation(source, beams, start)
        state = self.model.prefill(source, self.options.beam)
        choose = build_chooser(self.options, source, self.special, required)
        finished = Finished(len(source), self.options, wanted=self._wanted)
        alive = torch.arange(len(source), device=source.device)

        def correction(parents: Tensor, tokens: Tensor) -> Tensor | None:
            return self.model.correction(state, parents, tokens, self.options.temperature)

        while True:
            scores = self.model.log_probabilities(state, beams.tokens[:, :, beams.step], self.options.temperature)
            for apply in self.filters:
                apply(scores, beams)
            candidates = choose(scores, beams, correction)
            ends = ended(candidates, beams.ignored, self.special.eos)
            finished.collect(alive, beams, candidates, ends[:, : self.options.beam], self.special.eos)
            going = finished.unfinished(alive, beams.limits > beams.step)
            if not len(going):
                return finished.hypotheses
            chosen, beams.ignored = survivors(ends, beams.ignored)
            choose.reorder(chosen)
            parents = candidates.parents.gather(1, chosen)
            beams.extend(parents, candidates.tokens.gather(1, chosen), candidates.totals.gather(1, chosen))
            state.reorder(parents)
            size = rounded_up(len(going))
            if size < len(alive):
                kept = with_company(going, len(alive), size)
                alive = alive[kept]
                for part in (beams, state, choose):
                    part.select(kept)

    def _default_start(self) -> int:
        return self.special.eos if self.model.decoder_start is None else self.model.decoder_start

    def _begin(self, source: Tensor, prefix: Tensor | None, start: int, numbers: Sequence[int] | None) -> Beams:
        options = self.options
        lengths = source.ne(self.special.padding_of_sources).sum(1).tolist()
        contrastive = options.penalty_alpha > 0  # which runs the model on ``</s>``, too
        longest = [self.model.longest_target(length) - contrastive for length in lengths]
        limits = [options.length_limit(*sizes) for sizes in zip(lengths, longest, strict=True)]
        beam = 1 if contrastive else options.beam
        beams = Beams.begin(torch.tensor(limits, device=source.device), beam, start, prefix)
        if options.min_len_a or options.match_source_len:
            least = [min(options.least_length(length), limit) for length, limit in zip(lengths, limits, strict=True)]
            beams.least = torch.tensor(least, device=source.device)
        if options.encoder_repetition_penalty != 1.0 or options.encoder_no_repeat_ngram_size:
            beams.source = source
        if options.prefix_allowed_tokens_fn is not None:
            beams.numbers = torch.tensor(numbers or range(len(source)), device=source.device)
        return beams
