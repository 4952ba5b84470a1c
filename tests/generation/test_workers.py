"""Worker processes: order, errors, and that none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest
import torch

from fairbeam.generation.workers import Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")

ORPHANS = """
import os, time
from fairbeam.generation.workers import Workers

workers = Workers(lambda job: time.sleep(job) or os.getpid(), 2)
print(*set(workers.map([0.2] * 6)), flush=True)
results = workers.map([0.0, 60.0, 60.0])
next(results)
time.sleep(60)
"""


def slow_square(job: np.ndarray) -> tuple[int, int, np.ndarray]:
    time.sleep(0.02 * (int(job[0]) % 3))  # later jobs end earlier
    return os.getpid(), torch.get_num_threads(), job**2


def test_results_come_in_the_order_of_jobs_from_processes_of_one_thread():
    jobs = [np.array([number]) for number in range(12)]
    found = list(Workers(slow_square, 2).map(iter(jobs)))
    assert [int(square[0]) for _, _, square in found] == [number**2 for number in range(12)]
    assert {threads for _, threads, _ in found} == {1}
    assert os.getpid() not in {process for process, _, _ in found}


def test_a_single_job_and_a_single_worker_stay_in_this_process():
    before = torch.get_num_threads()
    job = np.array([3])
    assert [process for process, _, _ in Workers(slow_square, 2).map([job])] == [os.getpid()]
    assert [threads for _, threads, _ in Workers(slow_square, 1).map([job, job])] == [before] * 2
    assert torch.get_num_threads() == before
    assert list(Workers(slow_square, 2).map([])) == []


def test_only_a_few_jobs_are_read_ahead():
    taken = []
    results = Workers(slow_square, 2).map(taken.append(number) or np.array([number]) for number in range(100))
    next(results)
    assert len(taken) <= 6
    results.close()


def test_an_error_in_a_worker_is_raised_here_and_the_next_jobs_are_done():
    workers = Workers(lambda job: 12 // job, 2)
    with pytest.raises(ZeroDivisionError):
        list(workers.map([1, 0, 2]))
    assert list(workers.map([1, 2, 3])) == [12, 6, 4]


def test_a_killed_worker_is_an_error_not_a_wait():
    with pytest.raises(BrokenProcessPool):
        list(Workers(lambda job: os.kill(os.getpid(), signal.SIGKILL), 2).map([1, 2, 3]))


def test_workers_die_with_a_killed_parent():
    parent = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    workers = [int(process) for process in parent.stdout.readline().split()]
    assert len(workers) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


def is_running(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
