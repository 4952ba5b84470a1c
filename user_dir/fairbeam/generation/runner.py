"""Batches in, hypotheses out, on all cores."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fairbeam.errors import ConfigError
from fairbeam.generation.build import CONTINUOUS_BATCHES, Door, ModelSet, build_search, check_search
from fairbeam.generation.constraints import Required
from fairbeam.generation.continuous_batching import RequestWindow, decode_window
from fairbeam.generation.hypothesis import Hypothesis
from fairbeam.generation.options import GenerationOptions
from fairbeam.generation.scheduler import Scheduler
from fairbeam.generation.search.beam_search import BeamSearch
from fairbeam.generation.search.streaming import Watcher
from fairbeam.generation.workers import Tickets, Workers, default_workers


@dataclass(frozen=True)
class Batch:
    """Sentences decoded together."""

    source: np.ndarray
    """(batch, length) ids, each ended by ``</s>``, padded on either side."""
    options: GenerationOptions
    prefix: np.ndarray | None = None
    """(batch, prefix) ids the outputs must begin with, padded on the right."""
    start: int | None = None
    """The symbol decoding begins with; the network's own if not given."""
    required: Sequence[Required] | None = None
    """For each sentence the phrases its outputs must hold; needs ``options.constraints``."""
    numbers: Sequence[int] | None = None
    """What ``options.prefix_allowed_tokens_fn`` is told of which sentence it is asked."""
    best: int | None = None
    """How many hypotheses of each sentence are wanted; all that finished if None."""


class Packed(NamedTuple):
    """Hypotheses of several sentences as they travel between processes, one behind the other: few and large arrays."""

    counts: list[int]
    """Of each sentence."""
    lengths: list[int]
    tokens: np.ndarray
    scores: list[float]
    positional_scores: np.ndarray
    attention: list[np.ndarray | None] | None


class SearchRunner:
    """Decodes what workers are given, in the process it is called in; few searches are made anew."""

    def __init__(self, models: ModelSet, device: torch.device, tickets: Tickets) -> None:
        """``models`` are on ``device``. ``tickets`` say whose turn the sentences of windows are."""
        self.find = lru_cache(maxsize=8)(partial(build_search, models))
        self._device, self._tickets = device, tickets

    def __call__(self, job: Batch | tuple[RequestWindow, int]) -> Packed | tuple[list[int], Packed]:
        """Decode a batch, or, beside other workers, as many of a window's sentences as come."""
        return self._batch(job) if isinstance(job, Batch) else self._window(*job)

    def watched(self, batch: Batch, watch: Watcher) -> list[list[Hypothesis]]:
        """Decode a batch while ``watch`` is shown the beams of every step."""
        source, prefix = self._ids(batch)
        return self.find(batch.options)(source, prefix=prefix, start=batch.start, watch=watch)

    def _batch(self, batch: Batch) -> Packed:
        source, prefix = self._ids(batch)
        found = self.find(batch.options)(
            source, prefix=prefix, start=batch.start, required=batch.required, numbers=batch.numbers
        )
        return _packed([hypotheses[: batch.best] for hypotheses in found])

    def _window(self, window: RequestWindow, workers: int) -> tuple[list[int], Packed]:
        searching = self.find(window.options)
        assert isinstance(searching, BeamSearch)
        lengths = [len(source) for source in window.sources]
        scheduler = Scheduler(lengths, window.limits, lambda n: self._tickets.draw(window.turn, n), workers)
        found = list(decode_window(searching, window, scheduler, self._device))
        return [place for place, _ in found], _packed([hypotheses for _, hypotheses in found])

    def _ids(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The sources and the prefixes, on the device."""
        prefix = None if batch.prefix is None else torch.from_numpy(batch.prefix).to(self._device)
        return torch.from_numpy(batch.source).to(self._device), prefix


class DecoderPool:
    """Beam search with networks that are done changing."""

    def __init__(self, models: ModelSet, device: torch.device, workers: int | None = None) -> None:
        """``workers`` are decoding processes; by default one for each core, and one in all on an accelerator."""
        self._tickets, self._models = Tickets(), models
        self._searches = SearchRunner(models, device, self._tickets)
        self.watched = self._searches.watched
        """Decode a batch in this process while ``watch`` is shown the beams of every step."""
        self._workers: Workers[Any, Any] = Workers(self._searches, workers or default_workers(device))
        self._here: Workers[Any, Any] = Workers(self._searches, 1)

    @property
    def workers(self) -> int:
        """Batches that are decoded at a time."""
        return self._workers.count

    def decode(self, batches: Iterable[Batch], *, here: bool = False) -> Iterator[list[list[Hypothesis]]]:
        """For each batch, in order, the finished hypotheses of each sentence, best first; tensors are on the CPU.

        ``here`` decodes in this process, as functions among the options need, which do not travel.
        """
        for found in (self._here if here else self._workers).map(batches):
            yield _unpacked(found)

    def begin(self, batch: Batch) -> Callable[[], list[list[Hypothesis]]]:
        """Begin with a batch; what is returned waits for what ``decode`` would give."""
        wait = self._workers.begin(batch)
        return lambda: _unpacked(wait())

    def check(self, options: GenerationOptions, door: Door | None = None) -> None:
        """Check that the models can do what options ask for, through a door.

        Raises:
            ConfigError: they can't.
        """
        check_search(self._models, options, door)

    def supports_joining(self, options: GenerationOptions) -> bool:
        """Return whether the model lets sentences join a batch whose decoding has begun.

        Raises:
            ConfigError: the options do not.
        """
        self.check(options, CONTINUOUS_BATCHES)
        searching = self._searches.find(options)
        return isinstance(searching, BeamSearch) and searching.model.supports_joining

    def decode_window(self, window: RequestWindow, *, here: bool = False) -> list[list[Hypothesis]]:
        """For each sentence of a window, in order, its finished hypotheses, best first; tensors are on the CPU.

        Every worker decodes one batch, which it keeps full: as sentences are done, it takes others. ``here`` as of
        ``decode``.

        Raises:
            ConfigError: the model or the options allow batches alone.
        """
        if not self.supports_joining(window.options):
            raise ConfigError("{}: sentences cannot join a batch of this model's", CONTINUOUS_BATCHES.label)
        workers = self._here if here else self._workers
        window = replace(window, turn=self._tickets.open_turn())
        found: list[list[Hypothesis]] = [[] for _ in window.sources]
        for places, packed in workers.map([(window, workers.count)] * workers.count):
            for place, hypotheses in zip(places, _unpacked(packed), strict=True):
                found[place] = hypotheses
        return found


def _packed(found: Sequence[Sequence[Hypothesis]]) -> Packed:
    every = [hypothesis for hypotheses in found for hypothesis in hypotheses]
    attention = [None if one.attention is None else one.attention.numpy(force=True) for one in every]
    return Packed(
        [len(hypotheses) for hypotheses in found],
        [len(one.tokens) for one in every],
        _together([one.tokens for one in every]),
        [one.score for one in every],
        _together([one.positional_scores for one in every]),
        attention if any(one is not None for one in attention) else None,
    )


def _together(parts: Sequence[Tensor]) -> np.ndarray:
    return torch.cat(list(parts)).numpy(force=True) if parts else np.empty(0)


def _unpacked(packed: Packed) -> list[list[Hypothesis]]:
    tokens, scores = (
        torch.from_numpy(part).split(packed.lengths) for part in (packed.tokens, packed.positional_scores)
    )
    attention = packed.attention or [None] * len(packed.lengths)
    weights = [None if one is None else torch.from_numpy(one) for one in attention]
    every = iter(map(Hypothesis, tokens, packed.scores, scores, weights))
    return [list(islice(every, count)) for count in packed.counts]
