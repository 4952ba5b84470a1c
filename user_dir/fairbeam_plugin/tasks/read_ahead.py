"""Batches that the search begins with before they are asked for.

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

from fairbeam_plugin.generator import FairbeamGenerator, GenerateRequest

logger = logging.getLogger(__name__)


class ReadAhead(CountingIterator):
    """Batches in their order. Once a search was given one of them, it is taken to be given the others, too."""

    def __init__(self, batches: CountingIterator, *, reports: bool = False) -> None:
        """``reports``: log how long all took."""
        self._reports = reports
        self._generator: Optional[FairbeamGenerator] = None
        self._asked = GenerateRequest()
        self._latest: Dict[str, Any] = {}
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

    def follow(self, generator: FairbeamGenerator, sample: Dict[str, Any], asked: GenerateRequest) -> None:
        """A search was given a sample; if it was the latest batch, the next ones are begun with, with as long prefixes
        and with constraints if it had some."""
        if "net_input" in self._latest and sample["net_input"]["src_tokens"] is self._latest["net_input"]["src_tokens"]:
            self._generator, self._asked = generator, asked

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
            self._latest = waiting.popleft()
            self._sentences += len(self._latest.get("id", ()))
            yield self._latest

    def _begin(self, sample: Dict[str, Any], left: int) -> None:
        """``left`` batches come after it."""
        generator, (prefix, constraints, start) = self._generator, self._asked
        if generator is None or not generator.ahead or "net_input" not in sample:
            return
        prefix = None if prefix is None else sample["target"][:, : prefix.size(1)]
        constraints = None if constraints is None else sample.get("constraints")
        generator.begin(sample, GenerateRequest(prefix, constraints, start), apart=left < generator.decoder.workers)


class ReadAheadIterator(EpochBatchIterator):
    """fairseq's iterator, whose epochs read ahead."""

    latest: Optional[ReadAhead] = None
    """The epoch that was begun last."""
    reports: bool = False
    """Whether epochs log how long all took."""

    def next_epoch_itr(self, *args: Any, **options: Any) -> ReadAhead:
        self.latest = ReadAhead(super().next_epoch_itr(*args, **options), reports=self.reports)
        return self.latest
