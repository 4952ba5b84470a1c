"""Batches whose decoding begins before they are asked for.

``fairseq-generate`` asks for a batch, prints what was found, and only then asks for the next, so that workers wait for
each other at every batch's end, and for the printing. Its timer leaves out what is decoded meanwhile, so the whole is
timed here, too.
"""

import logging
import time
from collections import deque
from itertools import islice
from typing import Any, Deque, Dict, Iterator, Optional

from fairseq.data.iterators import CountingIterator, EpochBatchIterator

from fairbeam_plugin.generator import FairbeamGenerator, GenerateRequest, PendingBatch

logger = logging.getLogger(__name__)


class ReadAhead(CountingIterator):
    """Batches in their order. Once a generator was given one of them, it is taken to be given the others, too."""

    def __init__(self, batches: CountingIterator, *, reports: bool = False) -> None:
        """``reports``: log how long all took."""
        self._reports = reports
        self._generator: Optional[FairbeamGenerator] = None
        self._request = GenerateRequest()
        self._started, self._sentences = 0.0, 0
        super().__init__(self._in_order(batches), start=batches.n, total=len(batches))

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except StopIteration:
            seconds = time.perf_counter() - self._started
            if self._reports and self._generator is not None:
                rate = f"{self._sentences / seconds:.1f} sentences/s"
                logger.info(f"{self._sentences:,} sentences read, decoded and printed in {seconds:.1f} s ({rate})")
            raise

    def follow(self, generator: FairbeamGenerator, request: GenerateRequest) -> None:
        """Begin to decode the next batches with the generator that was given one of them, with as long prefixes and
        with constraints if that had some."""
        self._generator, self._request = generator, request

    def _in_order(self, batches: CountingIterator) -> Iterator[Dict[str, Any]]:
        waiting: Deque[Dict[str, Any]] = deque()
        self._started = time.perf_counter()
        while True:
            depth = 0 if self._generator is None else self._generator.ahead
            for sample in islice(batches, max(depth - len(waiting), 0 if waiting else 1)):
                waiting.append(sample)
                self._begin(sample, len(batches) - batches.n)
            if not waiting:
                return
            sample = waiting.popleft()
            self._sentences += len(sample.get("id", ()))
            yield sample

    def _begin(self, sample: Dict[str, Any], left: int) -> None:
        """Let a sample carry its state to the generator, and begin to decode it; ``left`` batches come after it."""
        if "net_input" not in sample:  # what fairseq fills shards with
            return
        pending = PendingBatch(self.follow)
        pending.attach(sample)
        generator, (prefix, constraints, start) = self._generator, self._request
        if generator is None or not generator.ahead:
            return
        prefix = None if prefix is None else sample["target"][:, : prefix.size(1)]
        constraints = None if constraints is None else sample.get("constraints")
        request = GenerateRequest(prefix, constraints, start)
        pending.begin(sample, generator, request, shared=left < generator.workers)


class ReadAheadIterator(EpochBatchIterator):
    """fairseq's iterator, whose epochs read ahead."""

    reports: bool = False
    """Whether epochs log how long all took."""

    def next_epoch_itr(self, *args: Any, **options: Any) -> ReadAhead:
        return ReadAhead(super().next_epoch_itr(*args, **options), reports=self.reports)
