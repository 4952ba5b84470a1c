"""Speculative decoding (Leviathan et al., 2023; Chen et al., 2023) of the most probable token at every step.

A drafter guesses how hypotheses go on. The network reads all drafted tokens of a batch at once, which costs little
more than to read one; what it would have said itself is kept, up to its first word of its own. The text is that of
``beam=1``, whatever the drafter says.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fairbeam.errors import ConfigError, OptionName
from fairbeam.generation.constraints import Required
from fairbeam.generation.features import MASKS, RANKING, Capabilities, Feature
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.logits_processors import SpecialTokenIds, build_logits_processors
from fairbeam.generation.model import StepScores, Verifier
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.ranking import length_penalty
from fairbeam.generation.search.beam_search import BeamSearch
from fairbeam.generation.search.beams import Beams, best_continuations, padded_rows, rounded_up
from fairbeam.generation.search.drafters import Drafter, DrafterMaker, DraftModel, Drafts, PromptLookup
from fairbeam.generation.search.streaming import Watcher
from fairbeam.network import DecoderOnly, EncoderDecoder, Generator

DRAFT_TOKENS = 4
"""Tokens that a draft model writes ahead where nobody says how many."""
DRAFT_MODEL_OPTION = OptionName("draft_model", python="draft")
_STEADY = -1
_STEP_COST, _STEP_COST_OF_ACCELERATORS = 16, 256
"""What a step takes, however few its tokens, in tokens: docs/performance.md."""
_WORTH_DRAFTING = 16 << 20
"""Weights of a step from which on drafts pay beside steps that are made many in a call: docs/performance.md."""
_PRIOR, _PRIOR_RIGHT, _KEPT = 1.0, 0.7, 0.98
"""Drafted tokens taken for seen, the share of them that is right, and how much a step leaves of what was seen."""


def drafter_maker(
    networks: Sequence[Generator], options: GenerationOptions, special: SpecialTokenIds, draft: Generator | None
) -> DrafterMaker:
    """What makes the drafter that ``options`` ask for, or one clear error.

    Raises:
        ConfigError: a network cannot go back, sources and targets have different vocabularies, or there is no draft
            model or it is of another shape.
    """
    option = _drafting_option(options)
    for network in (*networks, *([draft] if draft is not None and options.draft_tokens else [])):
        if not network.rewinds:
            raise ConfigError(
                "{}: needs networks that go back behind tokens they have read, and {}'s state cannot; expected a "
                "Transformer without a memory of segments", option, type(network).__name__,
            )  # fmt: skip
    first = networks[0]
    if options.draft_tokens:
        return _model_maker(first, options.draft_tokens, draft)
    sizes = first.config.source_vocabulary, first.config.target_vocabulary
    if sizes[0] != sizes[1]:
        raise ConfigError("{}: needs one vocabulary for both sides; the model's have {} and {}", option, *sizes)
    count, longest = options.prompt_lookup_num_tokens, options.prompt_lookup_max_ngram

    def lookup(source: Tensor, start: int) -> Drafter:
        rows = [[token for token in row if token != special.padding_of_sources] for row in source.tolist()]
        if not isinstance(first, DecoderOnly):
            return PromptLookup([[start, *row] for row in rows], count, longest, joined=False)
        ending = [] if first.first_token is None else [first.first_token]
        return PromptLookup([[*row, *ending] for row in rows], count, longest, joined=True)

    return lookup


def check_drafting(
    networks: Sequence[Generator],
    options: GenerationOptions,
    special: SpecialTokenIds,
    draft: Generator | None,
    *,
    shares_vocabulary: Callable[[], bool],
) -> None:
    """Check that models can do the speculative decoding that options ask for.

    Args:
        shares_vocabulary: returns whether ids of sources mean what ids of targets do.

    Raises:
        ConfigError: as of ``drafter_maker``.
    """
    drafter_maker(networks, options, special, draft)
    if options.prompt_lookup_num_tokens and not shares_vocabulary():
        raise ConfigError(
            "{}: needs one vocabulary for both sides; the model's have other symbols on each", _drafting_option(options)
        )


def _drafting_option(options: GenerationOptions) -> OptionName:
    return OptionName("draft_tokens" if options.draft_tokens else "prompt_lookup_num_tokens")


def _model_maker(network: Generator, count: int, draft: Generator | None) -> DrafterMaker:
    if draft is None:
        tokens = OptionName("draft_tokens")
        raise ConfigError("{} {}: there is no model to draft; {} names it", tokens, count, DRAFT_MODEL_OPTION)
    if type(draft) is not type(network):
        kinds = type(draft).__name__, type(network).__name__
        raise ConfigError("{}: is a {}; expected a {}, as the model", DRAFT_MODEL_OPTION, *kinds)
    for side in ("source", "target"):
        theirs, ours = (getattr(one.config, f"{side}_vocabulary") for one in (draft, network))
        if theirs != ours:
            sizes = theirs, side, ours
            raise ConfigError("{}: has {} {} symbols; expected the model's {}", DRAFT_MODEL_OPTION, *sizes)
    return lambda source, start: DraftModel(draft, source, count)


class FiltersAt:
    """The filters, applied to hypotheses of several lengths at a time."""

    def __init__(self, options: GenerationOptions, special: SpecialTokenIds) -> None:
        self._filters = build_logits_processors(options, special)
        bare = dataclasses.replace(options, unkpen=0.0, min_len=0)
        looking = len(build_logits_processors(bare, special)) > len(
            build_logits_processors(GenerationOptions(min_len=0), special)
        )
        self._steady_from = None if looking else options.min_len
        """From this step to the limit no filter asks for more than the scores; None where one does."""

    def __call__(self, scores: Tensor, beams: Beams, rows: Sequence[int], steps: Sequence[int]) -> None:
        """Change log probabilities, (rows, 1, vocabulary), of some rows of the batch that stand at these steps."""
        groups: dict[int, list[int]] = {}
        for place, step in enumerate(steps):
            groups.setdefault(_STEADY if self._is_steady(step, beams) else step, []).append(place)
        for places in groups.values():
            there = dataclasses.replace(beams, step=steps[places[0]])
            if len(places) < len(beams.limits) and not self._is_steady(there.step, beams):
                there.select(torch.tensor([rows[place] for place in places], device=scores.device))
            whole = len(places) == len(rows)
            part = scores if whole else scores[places]
            for apply in self._filters:
                apply(part, there)
            if not whole:
                scores[places] = part

    def _is_steady(self, step: int, beams: Beams) -> bool:
        prefix = 0 if beams.prefix is None else beams.prefix.size(1)
        return self._steady_from is not None and max(self._steady_from, prefix) <= step < beams.shortest_limit


class DraftWidth:
    """How many drafted tokens are worth reading, by what became of those before, in this batch and in earlier ones.

    Each drafted token is right with one probability, which is that of the latest steps.
    """

    def __init__(self) -> None:
        self._right, self._judged = 0.0, 0.0

    def choose(self, counts: Sequence[int], batch: int, step_cost: float) -> int:
        """The width that gives most tokens in a time.

        Args:
            counts: tokens drafted for each row that goes on.
            batch: rows that are read.
            step_cost: what a step takes beside the tokens it reads, in tokens.
        """
        right = (self._right + _PRIOR * _PRIOR_RIGHT) / (self._judged + _PRIOR)
        self._right, self._judged = _KEPT * self._right, _KEPT * self._judged
        gained, best = float(len(counts)), (0.0, 0)
        for width in range(max(counts) + 1):
            if width:
                gained += right**width * sum(count >= width for count in counts)
            best = max(best, (gained / (step_cost + batch * (width + 1)), width))
        return best[1]

    def learn(self, right: int, judged: int) -> None:
        """How many of some drafted tokens were what the model says, each behind others that were."""
        self._right, self._judged = self._right + right, self._judged + judged


class Speculation:
    """Speculative decoding of a model's batches."""

    def __init__(
        self,
        model: Verifier,
        networks: Sequence[Generator],
        options: GenerationOptions,
        special: SpecialTokenIds,
        draft: Generator | None,
    ) -> None:
        """
        Raises:
            ConfigError: as of ``drafter_maker``.
        """
        self.drafter = drafter_maker(networks, options, special, draft)
        self.model, self.filters, self.eos = model, FiltersAt(options, special), special.eos
        self.temperature, self.penalty = options.temperature, length_penalty(options)
        self.width = DraftWidth()
        alone = networks[0] if len(networks) == 1 else None
        self.pays = not (
            isinstance(alone, EncoderDecoder) and alone.fused_decoder and alone.weights_of_step < _WORTH_DRAFTING
        )
        """Whether this is sooner done than the same without drafts."""

    @torch.no_grad()
    def __call__(self, source: Tensor, beams: Beams, start: int) -> list[list[Hypothesis]]:
        """One hypothesis for each sentence; none where the scores are not finite or every token is forbidden.

        Args:
            source: (batch, source) ids, or prompts.
            beams: one for each sentence, with the symbol ``start``.
        """
        drafter, batch = self.drafter(source, start), _Batch(self, source, beams)
        while True:
            batch.verify(drafter(batch.outputs))
            if not batch.going:
                return batch.hypotheses
            if (kept := batch.leave()) is not None:
                drafter.select(kept)


class SpeculativeSearch:
    """Greedy search with drafts where they pay, and without where they do not."""

    # Greedy search: no second beam, nothing drawn, and the model's own probabilities.
    capabilities = Capabilities(
        name="speculative decoding",
        provides=Feature.PROMPT_LOOKUP | Feature.DRAFT_MODEL,
        supports=MASKS | RANKING | Feature.SOURCE_LENGTH | Feature.ENSEMBLE,
    )

    def __init__(self, search: BeamSearch, speculation: Speculation) -> None:
        """``search`` begins and ranks hypotheses, and decodes where drafts do not pay."""
        self.search, self.options, self.special = search, search.options, search.special
        self._speculation = speculation

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
        """Decode one batch; arguments as of ``BeamSearch``, but that nothing can be required. ``watch`` is shown the
        steps where there are any without drafts."""
        if not self._speculation.pays:
            return self.search(source, prefix=prefix, start=start, numbers=numbers, watch=watch)
        beams = self.search.begin_beams(source, prefix, start, numbers)
        begun = self.search.default_start() if start is None else start
        return self.search.ranked(self._speculation(source, beams, begun), source, start)


class _Batch:
    """The hypotheses of a batch, each as long as it is."""

    def __init__(self, search: Speculation, source: Tensor, beams: Beams) -> None:
        self.search, self.model, self.beams = search, search.model, beams
        self.state = self.model.begin(source)
        self.step_cost = _STEP_COST if source.device.type == "cpu" else _STEP_COST_OF_ACCELERATORS
        self.outputs: list[list[int]] = beams.tokens[:, 0, :1].tolist()
        """Tokens of each row of the batch, start symbol included."""
        self.totals: list[list[float]] = [[0.0] for _ in self.outputs]
        """Log probability of each row up to each of its tokens."""
        self.limits: list[int] = beams.limits.tolist()
        self.sentences = list(range(len(self.outputs)))
        """Whose each row is."""
        self.going = list(self.sentences)
        """The rows that are not finished; others ride along for a while."""
        self.hypotheses: list[list[Hypothesis]] = [[] for _ in self.outputs]

    def verify(self, drafts: Drafts) -> None:
        """Read drafts; keep of each what the model says too, and then the model's own next token."""
        counts = self._room(drafts.counts.tolist())
        width = self.search.width.choose(list(counts.values()), len(self.outputs), self.step_cost)
        following, drafted = self.going, drafts.tokens.tolist()
        scored = [(row, place) for place in range(width + 1) for row in following if place <= counts[row]]
        scores = self._read(drafts.tokens[:, :width], scored)
        places = dict(zip(scored, range(len(scored)), strict=True))
        for place in range(width + 1):
            self._choose(scores, following, [places[row, place] for row in following])
            ahead = [row for row in following if place < min(width, counts[row])]
            following = [row for row in ahead if self.outputs[row][-1] == drafted[row][place]]
            self.search.width.learn(len(following), len(ahead))
            following = [row for row in following if row in self.going]
            if not following:
                return

    def leave(self) -> Tensor | None:
        """Let finished rows leave; which are kept, (kept,) long, None where all are."""
        size = rounded_up(len(self.going))
        if size == len(self.outputs):
            return None
        kept = padded_rows(torch.tensor(self.going, device=self.beams.limits.device), len(self.outputs), size)
        self.state.select(kept)
        self.beams.select(kept)
        places = kept.tolist()
        self.going = [new for new, old in enumerate(places) if old in self.going]
        self.outputs = [self.outputs[place] for place in places]
        self.totals = [self.totals[place] for place in places]
        self.limits = [self.limits[place] for place in places]
        self.sentences = [self.sentences[place] for place in places]
        return kept

    def _room(self, counts: Sequence[int]) -> dict[int, int]:
        """How many drafted tokens each row that goes on has room for."""
        return {row: min(counts[row], self.limits[row] + 1 - len(self.outputs[row])) for row in self.going}

    def _read(self, drafted: Tensor, scored: Sequence[tuple[int, int]]) -> StepScores:
        """Return the scores behind tokens of rows, (row, place): place 0 is the latest token, others are drafted."""
        device = self.beams.tokens.device
        latest = torch.tensor([output[-1:] for output in self.outputs], device=device)
        block = torch.cat([latest, drafted.to(device)], dim=1)
        starts = torch.tensor([len(output) - 1 for output in self.outputs], device=device)
        columns = starts.unsqueeze(1) + torch.arange(block.size(1), device=device)
        # No filter looks at the last column, so what stands beyond the limit may go there.
        self.beams.tokens[:, 0].scatter_(1, columns.clamp_max(self.beams.tokens.size(2) - 1), block)
        rows, places = torch.tensor(scored, device=device).unbind(1)
        return self.model.score_block(self.state, block, starts, (rows, places), self.search.temperature)

    def _choose(self, scores: StepScores, rows: list[int], places: list[int]) -> None:
        """Add to each of these rows the most probable token by the scores in these places."""
        together = places[-1] - places[0] == len(places) - 1
        index = torch.tensor(places, device=scores.log_probs.device)
        part = scores.of_rows(slice(places[0], places[-1] + 1) if together else index)
        self.search.filters(part.log_probs, self.beams, rows, [len(self.outputs[row]) - 1 for row in rows])
        totals = torch.tensor([[self.totals[row][-1]] for row in rows], device=index.device)
        best = best_continuations(part, totals, 2)
        for row, token, total in zip(rows, best.tokens[:, 0].tolist(), best.totals[:, 0].tolist(), strict=True):
            self._add(row, token, total)

    def _add(self, row: int, token: int, total: float) -> None:
        self.outputs[row].append(token)
        self.totals[row].append(total)
        if token == self.search.eos and math.isfinite(total):
            running = torch.tensor(self.totals[row])
            tokens = torch.tensor(self.outputs[row][1:])
            score = (running[-1] / self.search.penalty(len(tokens))).item()
            self.hypotheses[self.sentences[row]].append(Hypothesis(tokens, score, running.diff()))
        if token == self.search.eos or not math.isfinite(total):
            self.going = [other for other in self.going if other != row]
