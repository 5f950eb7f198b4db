"""The next batch is made in a thread while the step runs."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Prefetched:
    """`batch_at` with the batch of the step after made ahead. `batch_at` must be a function of the step
    alone; it is called by one thread at a time."""

    def __init__(self, batch_at: Callable[[int], Any], steps: int) -> None:
        self._batch_at, self._steps = batch_at, steps
        self._pool = ThreadPoolExecutor(1, "batches")
        self._ahead: tuple[int, Future] | None = None

    def __call__(self, step: int) -> Any:
        """The batch of a step; errors of making it are raised here."""
        if self._ahead is None or self._ahead[0] != step:
            self._ahead = (step, self._pool.submit(self._batch_at, step))
        future = self._ahead[1]
        batch = future.result()
        if step + 1 < self._steps:
            self._ahead = (step + 1, self._pool.submit(self._batch_at, step + 1))
        else:
            self._pool.shutdown(wait=False)
        return batch
