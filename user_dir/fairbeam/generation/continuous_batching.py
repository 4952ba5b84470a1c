"""Continuous admission: sentences join a batch whose decoding has begun, as others leave it.

A batch that only shrinks is decoded at the pace of its longest output, the last steps for one or two sentences, which
cost nearly as much as a step for many (Orca; Yu et al., 2022). Here new sentences are encoded and run for their first
step by themselves, at which their beams are one; then they join the step that the others have reached.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from fairbeam.data.batching import BatchLimits
from fairbeam.generation.constraints import Required
from fairbeam.generation.features import DIVERSITY, MASKS, RANKING, Capabilities, Feature
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.scheduler import Scheduler
from fairbeam.generation.search.beam_search import BeamSearch, RunningBatch
from fairbeam.generation.search.beams import Beams
from fairbeam.network import pad_batch

# Other searches are of one batch from beginning to end.
CONTINUOUS = Capabilities(
    name="continuous batching",
    supports=MASKS
    | RANKING
    | DIVERSITY
    | Feature.SAMPLING
    | Feature.STOCHASTIC_BEAM
    | Feature.CONSTRAINTS
    | Feature.SOURCE_LENGTH
    | Feature.PATIENCE
    | Feature.ENSEMBLE
    | Feature.MINIMUM_BAYES_RISK
    | Feature.RERANKING,
)
_EMPTY = -1
"""What stands before the start symbol of a sentence that joined others; no token."""


@dataclass
class JoinedBeams(Beams):
    """Beams of sentences that began at different steps; ``step`` and ``limits`` count from the oldest's beginning."""

    parts: list[Beams] = field(default_factory=list)
    """The cohorts, each with rows, limits and whatever filters look at of its own."""

    @classmethod
    def of(cls, beams: Beams) -> "JoinedBeams":
        """A single cohort."""
        return cls(
            tokens=beams.tokens,
            totals=beams.totals,
            history=beams.history,
            ignored=beams.ignored,
            limits=beams.limits.clone(),
            prefix=None,
            starts=torch.zeros_like(beams.limits),
            step=beams.step,
            shortest_limit=beams.shortest_limit,
            parts=[beams],
        )

    def cohorts(self) -> Iterator[tuple[slice, Beams]]:
        assert self.starts is not None
        first = 0
        for part in self.parts:
            rows = slice(first, first + len(part.limits))
            start = int(self.starts[first])
            part.tokens, part.history = self.tokens[rows, :, start:], self.history[rows, :, start:]
            part.totals, part.ignored, part.step = self.totals[rows], self.ignored[rows], self.step - start
            first = rows.stop
            yield rows, part

    def select(self, sentences: Tensor) -> None:
        """Keep only these sentences, (kept,) long, ascending."""
        first, parts = 0, self.parts
        self.parts = []
        for part in parts:
            last = first + len(part.limits)
            kept = sentences[(sentences >= first) & (sentences < last)] - first
            if len(kept):
                part.select(kept)
                self.parts.append(part)
            first = last
        super().select(sentences)

    def join(self, other: Beams) -> None:
        """Append a cohort; columns before the start of the oldest sentence are dropped."""
        assert self.starts is not None
        oldest = int(self.starts.min())
        self.step, self.starts, self.limits = self.step - oldest, self.starts - oldest, self.limits - oldest
        start, batch = self.step - other.step, len(self.limits)
        self.limits = torch.cat([self.limits, other.limits + start])
        self.starts = torch.cat([self.starts, other.limits.new_full((len(other.limits),), start)])
        columns = int(self.limits.max()) + 2

        def joined(own: Tensor, added: Tensor, fill: int) -> Tensor:
            room = own.new_full((len(self.limits), own.size(1), columns), fill)
            room[:batch, :, : self.step + 1] = own[:, :, oldest : oldest + self.step + 1]
            room[batch:, :, start : self.step + 1] = added[:, :, : other.step + 1]
            return room

        self.tokens = joined(self.tokens, other.tokens, _EMPTY)
        self.history = joined(self.history, other.history, 0)
        self.totals = torch.cat([self.totals, other.totals])
        self.ignored = torch.cat([self.ignored, other.ignored])
        self.shortest_limit = int(self.limits.min())
        self.parts.append(other)


class InflightBatch:
    """A batch that sentences join and leave."""

    def __init__(self, first: RunningBatch, sentences: list[int]) -> None:
        """``sentences``: what the caller calls the rows of the first cohort, of which a step has been run."""
        self._running = first
        self._running.beams = JoinedBeams.of(first.beams)
        self._names = dict(enumerate(sentences))

    def join(self, other: RunningBatch, sentences: list[int]) -> None:
        """Append a cohort of which a step has been run."""
        mine = self._running
        numbers = mine.finished.join(other.finished)
        self._names.update(zip(numbers, sentences, strict=True))
        mine.active, mine._all_rows = torch.cat([mine.active, other.active.new_tensor(numbers)]), None
        assert isinstance(mine.beams, JoinedBeams)
        mine.beams.join(other.beams)
        mine.state.join(other.state)
        mine.selector.join(other.selector)

    def step(self) -> Tensor:
        """As of ``RunningBatch``."""
        return self._running.step()

    def __len__(self) -> int:
        return len(self._running.active)

    def names(self, rows: Tensor) -> list[int]:
        """What the caller calls the sentences of these rows."""
        return [self._names[number] for number in self._running.active[rows].tolist()]

    def leave(self, going: Tensor, *, everyone: bool) -> list[tuple[int, list[Hypothesis]]]:
        """Let sentences that are done leave, all of them or as many as it pays to, with their hypotheses."""
        if everyone and len(going):
            left = self._running.select(going)
        elif len(going):
            left = self._running.drop_finished(going)
        else:
            left = self._running.active.tolist()
        return [(self._names.pop(number), self._running.finished.take(number)) for number in left]


@dataclass(frozen=True)
class RequestWindow:
    """Sentences that wait to be decoded, with the same options."""

    sources: Sequence[Sequence[int]]
    """Ids of each, ended by ``</s>``."""
    options: GenerationOptions
    limits: BatchLimits
    """What may be decoded at a time."""
    turn: int = 0
    """Which of all windows it is."""
    prefix: np.ndarray | None = None
    """(sentences, prefix) ids the outputs must begin with, padded on the right."""
    start: int | None = None
    """The symbol decoding begins with; the network's own if not given."""
    required: Sequence[Required] | None = None
    """For each sentence the phrases its outputs must hold; needs ``options.constraints``."""
    numbers: Sequence[int] | None = None
    """What ``options.prefix_allowed_tokens_fn`` is told of which sentence it is asked."""


@torch.no_grad()
def decode_window(
    search: BeamSearch, window: RequestWindow, scheduler: Scheduler, device: torch.device
) -> Iterator[tuple[int, list[Hypothesis]]]:
    """Sentences of a window, by their places in it, as they are done, each with its hypotheses, best first."""
    required = window.required if window.required is not None and any(window.required) else None

    def sources(sentences: Sequence[int]) -> Tensor:
        rows = [list(window.sources[sentence]) for sentence in sentences]
        return pad_batch(rows, search.special.padding_of_sources).to(device)

    def begin(sentences: Sequence[int]) -> RunningBatch:
        prefix = None if window.prefix is None else torch.from_numpy(window.prefix[list(sentences)]).to(device)
        return search.begin(
            sources(sentences),
            prefix=prefix,
            start=window.start,
            required=None if required is None else [required[sentence] for sentence in sentences],
            numbers=None if window.numbers is None else [window.numbers[sentence] for sentence in sentences],
            joins=True,
        )

    def ranked(left: list[tuple[int, list[Hypothesis]]]) -> Iterator[tuple[int, list[Hypothesis]]]:
        if left:
            names = [name for name, _ in left]
            found = search.ranked([hypotheses for _, hypotheses in left], sources(names), window.start)
            yield from zip(names, found, strict=True)

    batch: InflightBatch | None = None
    going = torch.zeros(0, dtype=torch.long, device=device)
    while True:
        joining = scheduler.admit([] if batch is None else batch.names(going))
        if batch is not None and (joining or len(going) < len(batch)):
            yield from ranked(batch.leave(going, everyone=bool(joining)))
            batch = batch if len(going) else None
        if joining:
            cohort = begin(joining)
            if not len(cohort.step()):
                yield from ranked(list(zip(joining, cohort.finished.hypotheses, strict=True)))
            elif batch is None:
                batch = InflightBatch(cohort, joining)
            else:
                batch.join(cohort, joining)
        if batch is not None:
            going = batch.step()
        elif not joining:
            return
