"""Beam search over a batch: fairseq's semantics, one token of every hypothesis at a step."""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from fairbeam.generation.alignment import with_attention
from fairbeam.generation.constraints import Required
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.logits_processors import SpecialTokenIds, build_logits_processors, common_static_mask
from fairbeam.generation.model import Model, State
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.ranking import best_first, with_coverage
from fairbeam.generation.search.beam_ops import ended, survivors
from fairbeam.generation.search.beams import Beams, Candidates, rounded_up, with_company
from fairbeam.generation.search.finished import Finished
from fairbeam.generation.search.native_steps import NativeSteps
from fairbeam.generation.search.streaming import Watcher
from fairbeam.generation.strategies.selectors import CandidateSelector, NewBatch, TopCandidates


class BeamSearch:
    """Search for the best target sequences of a model with one candidate selector.

    The result for a sentence depends on the sentence alone, never on what else is in the batch. It is made by
    ``fairbeam.generation.build.build_search``, which checks that the options fit the selector.
    """

    def __init__(
        self,
        model: Model,
        options: GenerationOptions,
        special: SpecialTokenIds,
        selector: type[CandidateSelector] = TopCandidates,
    ) -> None:
        """``selector`` is made anew for each batch."""
        self.model, self.options, self.special, self.selector = model, options, special, selector
        self.filters = build_logits_processors(options, special)
        self.native_steps = NativeSteps.build(model, options.temperature, options.beam, special.eos)
        """Steps in one native call, where the most probable tokens are all that is asked for."""
        # Samples without replacement are all of them the best of what is left; their selector knows when none is.
        self._wanted = sys.maxsize if options.stochastic_beam else options.finished_wanted
        self._attends = options.attention or options.coverage_penalty > 0

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
        choose = self.selector.for_batch(NewBatch(self.options, source, self.special, required))
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
        spare: int = 0,
    ) -> Beams:
        """Make empty hypotheses, as many as the options or ``beam`` say, with so many positions of the model to spare;
        other arguments are those of a call."""
        start = self.default_start() if start is None else start
        options = self.options
        lengths = source.ne(self.special.padding_of_sources).sum(1).tolist()
        longest = [self.model.longest_target(length) - spare for length in lengths]
        limits = [options.length_limit(*sizes) for sizes in zip(lengths, longest, strict=True)]
        beam = beam or options.beam
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
