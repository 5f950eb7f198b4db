"""Work spread over spawned processes that end with their parent."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from multiprocessing import get_context
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def run_parallel(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Results of function(job), in the order of completion; in this process if one worker is
    enough.

    The function must be importable and the jobs picklable by multiprocessing. An exception in a
    worker is raised here and the jobs not yet begun are dropped. The processes stay for the next call:
    starting one takes longer than decoding a shard.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from map(function, jobs)
        return
    futures = [_pool(workers).submit(function, job) for job in jobs]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BrokenProcessPool:
        _pool.cache_clear()
        raise
    finally:
        wait([future for future in futures if not future.cancel()])


@lru_cache(maxsize=1)
def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_end_with, initargs=(os.getpid(),)
    )


def _end_with(parent: int) -> None:
    """Leave when the parent is gone: a pool's worker would otherwise wait for ever after a
    SIGKILL.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
