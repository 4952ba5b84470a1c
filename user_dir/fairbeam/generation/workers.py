"""Several searches at once: one worker a core with one thread each.

Matrix products at a decoding step are too small to share between cores, so two workers that decode half a
batch each beat one worker with two threads. Workers are threads of this process: torch releases the
interpreter in its kernels, and the weights are shared.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import islice
from typing import TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")


def default_workers(device: torch.device) -> int:
    """One worker for each thread torch would use; one in all on an accelerator."""
    return torch.get_num_threads() if device.type == "cpu" else 1


@cache
def shared_workers(count: int) -> "Workers":
    """The process's own pool of ``count`` threads: a generator is built anew at every validation, threads are not."""
    return Workers(count)


class Workers:
    """A pool of decoding threads."""

    def __init__(self, count: int) -> None:
        """With one worker, work is done in the calling thread with all of torch's threads."""
        self.count = count
        self._pool: ThreadPoolExecutor | None = None
        if count > 1:
            self._pool = ThreadPoolExecutor(count, "decode")

    def map(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """Results in the order of the jobs; only a few jobs are read ahead of the results."""
        if self._pool is None:
            yield from map(function, jobs)
            return
        pool, waiting = self._pool, iter(jobs)

        def submit(most: int) -> list[Future[Result]]:
            return [pool.submit(_alone, function, job) for job in islice(waiting, most)]

        before = torch.get_num_threads()
        torch.set_num_threads(1)  # MKL's count is the process's; OpenMP's is each thread's own
        try:
            pending = submit(2 * self.count)
            while pending:
                yield pending.pop(0).result()
                pending += submit(1)
        finally:
            torch.set_num_threads(before)


def _alone(function: Callable[[Job], Result], job: Job) -> Result:
    """Do a job with one thread."""
    if torch.get_num_threads() != 1:  # a thread starts with torch's count of the moment of its first use
        torch.set_num_threads(1)
    return function(job)
