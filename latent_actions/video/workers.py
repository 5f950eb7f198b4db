"""Work spread over spawned processes that end with their parent."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
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
    worker is raised here and the jobs not yet begun are dropped.
    """
    if workers <= 1 or len(jobs) <= 1:
        yield from map(function, jobs)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        get_context("spawn"),
        initializer=_end_with,
        initargs=(os.getpid(),),
    )
    with pool:
        try:
            for future in as_completed([pool.submit(function, job) for job in jobs]):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _end_with(parent: int) -> None:
    """Leave when the parent is gone: a pool's worker would otherwise wait for ever after a
    SIGKILL.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
