"""Beam search over a batch: fairseq's semantics, one token of every hypothesis at a step."""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.generation.alignment import with_attention
from fairbeam.generation.build import build_selector
from fairbeam.generation.constraints import Required
from fairbeam.generation.ensemble import as_model, with_language_model
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.logits_processors import SpecialTokenIds, build_logits_processors, common_static_mask
from fairbeam.generation.model import SingleModel, State, Verifier
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.ranking import best_first, with_coverage
from fairbeam.generation.search.beam_ops import ended, survivors
from fairbeam.generation.search.beams import Beams, Candidates, rounded_up, with_company
from fairbeam.generation.search.contrastive import contrastive_search
from fairbeam.generation.search.finished import Finished
from fairbeam.generation.search.native_steps import NativeSteps
from fairbeam.generation.search.speculative import Speculation
from fairbeam.generation.search.streaming import Watcher
from fairbeam.generation.strategies.selectors import CandidateSelector, TopCandidates
from fairbeam.network import DecoderOnly, Generator


class BeamSearch:
    """Finds the best target sequences of networks under ``GenerationOptions``.

    The result for a sentence depends on the sentence alone, never on what else is in the batch.
    """

    def __init__(
        self,
        networks: Sequence[Generator],
        options: GenerationOptions,
        special: SpecialTokenIds | None = None,
        language_model: DecoderOnly | None = None,
        draft: Generator | None = None,
        *,
        model: Verifier | None = None,
    ) -> None:
        """Prepare a search.

        Args:
            networks: one, or several that are an ensemble; all share one target vocabulary.
            options: what to search for.
            special: ids of special tokens.
            language_model: model of ``options.lm_weight``, over the same vocabulary.
            draft: network that drafts tokens where the options ask for it, over the same vocabularies.
            model: the networks as one model, if it is not ``as_model``'s.
        """
        single = as_model(networks, options.ensemble_weights) if model is None else model
        self.model = with_language_model(single, language_model, options.lm_weight)
        self.options = options
        self.special = special or SpecialTokenIds()
        self.filters = build_logits_processors(options, self.special)
        self.native_steps = NativeSteps.build(self.model, options.temperature, options.beam, self.special.eos)
        """Steps in one native call, where the most probable tokens are all that is asked for."""
        # Samples without replacement are all of them the best of what is left; their chooser knows when none is.
        self._wanted = sys.maxsize if options.stochastic_beam else options.finished_wanted
        if options.penalty_alpha and not isinstance(self.model, SingleModel):
            raise ConfigError(f"--penalty-alpha {options.penalty_alpha}: needs the features of one model")
        self._speculation = Speculation(single, networks, options, self.special, draft) if options.speculates else None
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
        watch: Watcher | None = None,
    ) -> list[list[Hypothesis]]:
        """Decode one batch.

        Args:
            source: (batch, length) ids padded on either side, each ended by ``</s>``; or, where there is no encoder,
                prompts, which the outputs continue.
            prefix: (batch, prefix) ids the outputs must begin with, padded on the right; those that are favoured with
                ``options.prefix_bias_beta``.
            start: the symbol decoding begins with; the network's own if not given, which mostly is ``</s>``.
            required: for each sentence the phrases its outputs must hold, in the order ``options.constraints`` says.
            numbers: what ``options.prefix_allowed_tokens_fn`` is told of which sentence it is asked; from 0 if None.
            watch: is shown the beams of every step.

        Returns:
            For each sentence its finished hypotheses, best first, at most ``options.finished_wanted``.
        """
        return self.ranked(self._search(source, prefix, start, required, numbers, watch), source, start)

    def begin(
        self,
        source: Tensor,
        *,
        prefix: Tensor | None = None,
        start: int | None = None,
        required: Sequence[Required] | None = None,
        numbers: Sequence[int] | None = None,
        joins: bool = False,
    ) -> "RunningBatch":
        """A batch before its first step; arguments as for a call, but that ``required`` is None where no sentence
        requires anything. ``joins``: others will join it, or it joins others."""
        beams = self.begin_beams(source, prefix, start, numbers)
        state = (self.model.prefill_to_join if joins else self.model.prefill)(source, self.options.beam)
        choose = build_selector(self.options, source, self.special, required)
        return RunningBatch(
            self, beams, state, choose, Finished(len(source), self.options, wanted=self._wanted), joins=joins
        )

    def ranked(
        self, found: Sequence[Sequence[Hypothesis]], source: Tensor, start: int | None = None
    ) -> list[list[Hypothesis]]:
        """Hypotheses of sentences, finished as the options ask for, best first."""
        if self._attends:
            found = with_attention(self.model, source, found, self.default_start() if start is None else start)
        if strength := self.options.coverage_penalty:
            real = source.ne(self.special.padding_of_sources)
            found = [[with_coverage(h, row, strength) for h in mine] for mine, row in zip(found, real, strict=True)]
        return [best_first(list(hypotheses))[: self.options.finished_wanted] for hypotheses in found]

    def _search(
        self,
        source: Tensor,
        prefix: Tensor | None,
        start: int | None,
        required: Sequence[Required] | None,
        numbers: Sequence[int] | None,
        watch: Watcher | None,
    ) -> list[list[Hypothesis]]:
        if self.options.penalty_alpha:
            assert isinstance(self.model, SingleModel)
            beams = self.begin_beams(source, prefix, start, numbers)
            return contrastive_search(self.model, source, beams, self.filters, self.options, self.special)
        if self._speculation is not None and self._speculation.pays:
            beams = self.begin_beams(source, prefix, start, numbers)
            return self._speculation(source, beams, self.default_start() if start is None else start)
        required = required if required is not None and any(required) else None
        running = self.begin(source, prefix=prefix, start=start, required=required, numbers=numbers)
        running.watch = watch
        while len(going := running.step()):
            running.leave(going)
        return running.finished.hypotheses

    def default_start(self) -> int:
        """The symbol that decoding begins with where none is given."""
        return self.special.eos if self.model.decoder_start is None else self.model.decoder_start

    def begin_beams(
        self,
        source: Tensor,
        prefix: Tensor | None,
        start: int | None,
        numbers: Sequence[int] | None,
        *,
        beam: int | None = None,
    ) -> Beams:
        """Hypotheses of nothing, as many as the options or ``beam`` say; other arguments are those of a call."""
        start = self.default_start() if start is None else start
        options = self.options
        lengths = source.ne(self.special.padding_of_sources).sum(1).tolist()
        contrastive = options.penalty_alpha > 0  # which runs the model on ``</s>``, too
        longest = [self.model.longest_target(length) - contrastive for length in lengths]
        limits = [options.length_limit(*sizes) for sizes in zip(lengths, longest, strict=True)]
        beam = 1 if contrastive else beam or options.beam
        forced, favoured = (None, prefix) if options.prefix_bias_beta else (prefix, None)
        beams = Beams.begin(torch.tensor(limits, device=source.device), beam, start, forced)
        beams.favoured = favoured
        if options.min_len_a or options.match_source_len:
            least = [min(options.least_length(length), limit) for length, limit in zip(lengths, limits, strict=True)]
            beams.least = torch.tensor(least, device=source.device)
        if options.encoder_repetition_penalty != 1.0 or options.encoder_no_repeat_ngram_size:
            beams.source = source
        if options.prefix_allowed_tokens_fn is not None:
            beams.numbers = torch.tensor(numbers or range(len(source)), device=source.device)
        return beams


class RunningBatch:
    """A batch while it is decoded: hypotheses, what the model and the chooser remember, and what has ended."""

    def __init__(
        self,
        search: BeamSearch,
        beams: Beams,
        state: State,
        choose: CandidateSelector,
        finished: Finished,
        *,
        joins: bool = False,
    ) -> None:
        self.search, self.beams, self.state, self.choose, self.finished = search, beams, state, choose, finished
        self.alive = torch.arange(len(beams.limits), device=beams.limits.device)
        """(batch,) long: what ``finished`` calls the sentences."""
        self.watch: Watcher | None = None
        """Is shown the beams of every step."""
        self.joins = joins
        """Whether sentences join, so that steps are made one by one."""
        self._everyone: Tensor | None = None
        """All rows, where all went on at the last step."""

    def step(self) -> Tensor:
        """Choose one more token of every hypothesis; the rows of sentences that go on, (going,) long."""
        options, eos = self.search.options, self.search.special.eos
        beams, state = self.beams, self.state
        candidates = self._candidates()
        ends = ended(candidates.totals, candidates.tokens, beams.ignored, eos)
        some_ended = self.finished.collect(self.alive, beams, candidates, ends[:, : options.beam], eos)
        if some_ended or beams.step >= beams.shortest_limit or self._everyone is None:
            going = self.finished.unfinished(self.alive, beams.limits > beams.step)
            self._everyone = going if len(going) == len(self.alive) else None
        else:
            going = self._everyone
        if len(going):
            chosen, beams.ignored = survivors(ends, beams.ignored)
            self.choose.reorder(chosen)
            parents = candidates.parents.gather(1, chosen)
            beams.extend(parents, candidates.tokens.gather(1, chosen), candidates.totals.gather(1, chosen))
            state.reorder(parents)
            if self.watch is not None:
                self.watch(self.alive, beams, self.finished)
        return going

    def _candidates(self) -> Candidates:
        """Return the candidates of this step, or of a later one if native steps went ahead until a hypothesis ends."""
        search, beams = self.search, self.beams
        if search.native_steps is not None and isinstance(self.choose, TopCandidates):
            mask = common_static_mask(search.filters, beams)
            if mask is not None:
                most = None if self.joins else sys.maxsize if self.watch is None else 1
                return search.native_steps(self.state, beams, mask, max_steps=most)
        scores = search.model.score(self.state, beams.tokens[:, :, beams.step], search.options.temperature)
        for rows, cohort in beams.cohorts():
            for apply in search.filters:
                apply(scores.log_probs[rows], cohort)
        return self.choose(scores, beams)

    def leave(self, going: Tensor) -> list[int]:
        """Let sentences that are done leave, as many as it pays to; what ``finished`` calls them."""
        size = rounded_up(len(going))
        return self.select(with_company(going, len(self.alive), size)) if size < len(self.alive) else []

    def select(self, kept: Tensor) -> list[int]:
        """Keep only these rows; what ``finished`` calls the others."""
        gone = torch.ones_like(self.alive, dtype=torch.bool).index_fill_(0, kept, False)
        left: list[int] = self.alive[gone].tolist()
        self.alive, self._everyone = self.alive[kept], None
        for part in (self.beams, self.state, self.choose):
            part.select(kept)
        return left
