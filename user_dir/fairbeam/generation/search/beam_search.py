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
from fairbeam.generation.search.beams import Beams, Candidates, padded_rows, rounded_up
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
            prefix: (batch, prefix) ids that the outputs must begin with, padded on the right; with
                ``options.prefix_bias_beta``, ids that become more probable there.
            start: id of the token that decoding begins with; the network's own, mostly ``</s>``, if None.
            required: for each sentence the phrases its outputs must contain, in the order of ``options.constraints``.
            numbers: index of each sentence for ``options.prefix_allowed_tokens_fn``; from 0 if None.
            watch: called with the beams of every step.

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
        """Prepare a batch for its first step.

        Arguments are those of a call, except that ``required`` is None if no sentence requires anything.
        ``joins``: sentences will join the batch, or it will join another.
        """
        beams = self.begin_beams(source, prefix, start, numbers)
        state = (self.model.prefill_to_join if joins else self.model.prefill)(source, self.options.beam)
        selector = self.selector.for_batch(NewBatch(self.options, source, self.special, required))
        return RunningBatch(
            self, beams, state, selector, Finished(len(source), self.options, wanted=self._wanted), joins=joins
        )

    def ranked(
        self, found: Sequence[Sequence[Hypothesis]], source: Tensor, start: int | None = None
    ) -> list[list[Hypothesis]]:
        """Return the hypotheses of sentences, best first, with attention and coverage if the options ask for them."""
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
        while len(continuing := running.step()):
            running.drop_finished(continuing)
        return running.finished.hypotheses

    def default_start(self) -> int:
        """Return the id of the token that decoding begins with if none is given."""
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
    """A batch in decoding: its hypotheses, the states of the model and of the selector, and finished hypotheses."""

    def __init__(
        self,
        search: BeamSearch,
        beams: Beams,
        state: State,
        selector: CandidateSelector,
        finished: Finished,
        *,
        joins: bool = False,
    ) -> None:
        self.search, self.beams, self.state, self.selector, self.finished = search, beams, state, selector, finished
        self.active = torch.arange(len(beams.limits), device=beams.limits.device)
        """(batch,) long: index of each row's sentence in ``finished``."""
        self.watch: Watcher | None = None
        """Called with the beams of every step."""
        self.joins = joins
        """Whether sentences join the batch, so that steps are made one by one."""
        self._all_rows: Tensor | None = None
        """All rows, if all of them continued at the last step."""

    def step(self) -> Tensor:
        """Choose one more token for every hypothesis; return the rows of unfinished sentences, (continuing,) long."""
        options, eos = self.search.options, self.search.special.eos
        beams, state = self.beams, self.state
        candidates = self._candidates()
        ends = ended(candidates.totals, candidates.tokens, beams.ignored, eos)
        some_ended = self.finished.collect(self.active, beams, candidates, ends[:, : options.beam], eos)
        if some_ended or beams.step >= beams.shortest_limit or self._all_rows is None:
            continuing = self.finished.unfinished(self.active, beams.limits > beams.step)
            self._all_rows = continuing if len(continuing) == len(self.active) else None
        else:
            continuing = self._all_rows
        if len(continuing):
            chosen, beams.ignored = survivors(ends, beams.ignored)
            self.selector.reorder(chosen)
            parents = candidates.parents.gather(1, chosen)
            beams.extend(parents, candidates.tokens.gather(1, chosen), candidates.totals.gather(1, chosen))
            state.reorder(parents)
            if self.watch is not None:
                self.watch(self.active, beams, self.finished)
        return continuing

    def _candidates(self) -> Candidates:
        """Return the candidates of this step, or of a later one if native steps went ahead until a hypothesis ends."""
        search, beams = self.search, self.beams
        if search.native_steps is not None and isinstance(self.selector, TopCandidates):
            mask = common_static_mask(search.filters, beams)
            if mask is not None:
                most = None if self.joins else sys.maxsize if self.watch is None else 1
                return search.native_steps(self.state, beams, mask, max_steps=most)
        scores = search.model.score(self.state, beams.tokens[:, :, beams.step], search.options.temperature)
        for rows, cohort in beams.cohorts():
            for apply in search.filters:
                apply(scores.log_probs[rows], cohort)
        return self.selector(scores, beams)

    def drop_finished(self, continuing: Tensor) -> list[int]:
        """Remove finished sentences, as many as it pays to, and return their indices in ``finished``.

        ``continuing``: (n,) rows of the others.
        """
        size = rounded_up(len(continuing))
        return self.select(padded_rows(continuing, len(self.active), size)) if size < len(self.active) else []

    def select(self, kept: Tensor) -> list[int]:
        """Keep only these rows, and return the indices of the others in ``finished``."""
        gone = torch.ones_like(self.active, dtype=torch.bool).index_fill_(0, kept, False)
        left: list[int] = self.active[gone].tolist()
        self.active, self._all_rows = self.active[kept], None
        for part in (self.beams, self.state, self.selector):
            part.select(kept)
        return left
