"""Several searches at once: one worker a core with one thread each.

Matrix products at a decoding step are too small to share between cores, so two workers that decode half a batch each
beat one worker with two threads. Workers are processes: threads of one process take turns at Python's lock several
hundred times a step. They are forked, so that they share the weights and start in milliseconds.
"""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from itertools import chain, islice
from multiprocessing.connection import wait
from typing import Any, Generic, TypeVar

import torch

Job = TypeVar("Job")
Result = TypeVar("Result")

_TURN_SHIFT = 32

_function: Callable[[Any], Any] | None = None
"""What a worker process does with a job; set where it begins."""


def default_workers(device: torch.device) -> int:
    """One worker for each thread torch would use; one in all on an accelerator."""
    return torch.get_num_threads() if device.type == "cpu" and _can_fork() else 1


class Tickets:
    """Numbers from 0 that processes forked from this one draw, each number once in a turn."""

    def __init__(self) -> None:
        method = "fork" if _can_fork() else None
        self._drawn = multiprocessing.get_context(method).Value("q", 0)

    def open_turn(self) -> int:
        """Begin again at 0; the number of the turn. Whoever still draws in the one before gets no more numbers."""
        with self._drawn.get_lock():
            turn = (self._drawn.value >> _TURN_SHIFT) + 1
            self._drawn.value = turn << _TURN_SHIFT
        return turn

    def draw(self, turn: int, count: int) -> int:
        """The first of ``count`` numbers; a number beyond all where the turn is over."""
        with self._drawn.get_lock():
            if self._drawn.value >> _TURN_SHIFT != turn:
                return 1 << _TURN_SHIFT
            self._drawn.value += count
            return int(self._drawn.value & ((1 << _TURN_SHIFT) - 1)) - count


class Workers(Generic[Job, Result]):
    """Does the same with many jobs, in processes that are copies of this one."""

    def __init__(self, function: Callable[[Job], Result], count: int) -> None:
        """Nothing is started yet.

        Args:
            function: what is done with a job. Whatever it refers to must not change after the first ``map``.
            count: processes; one means this process, with all of torch's threads.
        """
        self.count = count if _can_fork() else 1
        self._function = function
        self._pool: ProcessPoolExecutor | None = None

    def map(self, jobs: Iterable[Job]) -> Iterator[Result]:
        """Results in the order of the jobs; only a few jobs are read ahead of the results.

        Both travel between processes, arrays by value; a tensor would take a file descriptor.

        Raises:
            BrokenProcessPool: a worker was killed, most likely for want of memory.
        """
        waiting = iter(jobs)
        if self.count == 1:
            yield from map(self._function, waiting)
            return
        first = list(islice(waiting, 2))
        if len(first) < 2:  # not worth the way there and back
            yield from [_alone(self._function, job) for job in first]
            return
        waiting = chain(first, waiting)
        pending = self._submit(waiting, 2 * self.count)
        try:
            while pending:
                yield pending.pop(0).result()
                pending += self._submit(waiting, 1)
        finally:
            for future in pending:
                future.cancel()

    def begin(self, job: Job) -> Callable[[], Result]:
        """Begin with a job; what is returned waits for its result. One worker alone does it when it is asked."""
        if self.count == 1:
            return lambda: self._function(job)
        return self._submit(iter([job]), 1)[0].result

    def _submit(self, jobs: Iterator[Job], most: int) -> list[Future[Result]]:
        if self._pool is None:
            context = multiprocessing.get_context("fork")
            self._pool = ProcessPoolExecutor(self.count, context, _begin, (self._function,))
        with warnings.catch_warnings():
            # Python 3.12 warns of forks beside threads; the children use nothing that another thread may hold.
            warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
            return [self._pool.submit(_work, job) for job in islice(jobs, most)]


def _can_fork() -> bool:
    return sys.platform == "linux"  # where it is there elsewhere, system libraries do not survive it


def _begin(function: Callable[[Any], Any]) -> None:
    """Make a worker of a new process."""
    global _function  # noqa: PLW0603 - a process begins once
    _function = function
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    """A parent that is killed cannot end its workers, and they would wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _work(job: Any) -> Any:
    assert _function is not None
    return _function(job)


def _alone(function: Callable[[Job], Result], job: Job) -> Result:
    """Do a job in this process with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return function(job)
    finally:
        torch.set_num_threads(before)
