"""Work spread over spawned processes that end with their parent."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

IDLE_S = 10.0
Job = TypeVar("Job")
Result = TypeVar("Result")


def run_parallel(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Results of function(job), in the order of completion; in this process if one worker is enough.

    The function must be importable and the jobs picklable by multiprocessing. An exception in a
    worker is raised here and the jobs not yet begun are dropped. The processes stay for IDLE_S, for
    the next call: starting one takes longer than decoding a shard."""
    if workers <= 1 or len(jobs) <= 1:
        yield from map(function, jobs)
        return
    pool = _shared.take(workers)
    futures = [pool.submit(function, job) for job in jobs]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        _shared.drop(pool)
        raise
    finally:
        wait([future for future in futures if not future.cancel()])
        _shared.give_back()


class _SharedPool:
    """The processes of all calls; they end once nobody has had work for IDLE_S."""

    def __init__(self) -> None:
        self._lock, self._users, self._workers = threading.Lock(), 0, 0
        self._pool: ProcessPoolExecutor | None = None
        self._timer: threading.Timer | None = None

    def take(self, workers: int) -> ProcessPoolExecutor:
        """A pool of so many processes, for one call."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._pool is None or self._workers != workers:
                self._end()
                self._workers = workers
                self._pool = ProcessPoolExecutor(
                    workers, get_context("spawn"), initializer=_end_with, initargs=(os.getpid(),)
                )
            self._users += 1
            return self._pool

    def give_back(self) -> None:
        """A call has ended."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._timer = threading.Timer(IDLE_S, self._end_if_idle)
                self._timer.daemon = True
                self._timer.start()

    def drop(self, pool: ProcessPoolExecutor) -> None:
        """A pool that is broken is not used again."""
        with self._lock:
            if self._pool is pool:
                self._pool = None

    def _end_if_idle(self) -> None:
        with self._lock:
            if self._users == 0:
                self._end()

    def _end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None


_shared = _SharedPool()


def _end_with(parent: int) -> None:
    """Leave when the parent is gone: after a SIGKILL a pool's worker would otherwise wait for ever.
    Torch gets one thread: there is a worker for each core."""
    os.environ["OMP_NUM_THREADS"] = "1"
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
