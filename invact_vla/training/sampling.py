"""Which items a training step sees: a function of (seed, step) alone, whatever the processes.

Items are shuffled once per epoch and taken in order, so no item comes twice in an epoch. The rows of
a step are those of the global batch; each process takes its own contiguous part of them, so W
processes together see exactly what one process sees, and never an item twice.

Typical use in a recipe's `batch_at(step)`:

    positions = local_positions(batch_size)
    rows = rows_at(step, n_items, batch_size, seed)[positions]
    draws = np.random.default_rng([seed, step, 2]).random(batch_size)[positions]  # of each item

N items, B batch size over all processes.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np

from invact_vla.training.distributed import rank_info

_ROWS = 0  # keeps the stream of the rows apart from others of the same seed


def rows_at(step: int, n_items: int, batch_size: int, seed: int) -> np.ndarray:
    """int64 (B,): the items, in [0, N), of the global batch of step 0, 1, ...

    With B <= N an epoch is floor(N / B) steps of one permutation of the items; the N mod B items left
    over are others in every epoch. With B > N a batch holds each item floor(B / N) times, and B mod N
    of them once more. ValueError if an argument is out of range.
    """
    if step < 0 or n_items < 1 or batch_size < 1:
        raise ValueError(
            f"need step >= 0, n_items >= 1 and batch_size >= 1, got {step}, {n_items}, {batch_size}"
        )
    if batch_size > n_items:
        repeats, rest = divmod(batch_size, n_items)
        extra = _permutation(n_items, seed, step)[:rest]
        return np.concatenate([np.tile(np.arange(n_items), repeats), extra])
    epoch, index = divmod(step, n_items // batch_size)
    start = index * batch_size
    return _permutation(n_items, seed, epoch)[start : start + batch_size].copy()


def local_positions(batch_size: int) -> np.ndarray:
    """int64 (B / W,): the places of this process's items in the global batch.

    UserError if B is not a multiple of the number of processes W.
    """
    return np.arange(batch_size)[rank_info().slice(batch_size)]


@lru_cache(maxsize=2)
def _permutation(n_items: int, seed: int, epoch: int) -> np.ndarray:
    """int64 (N,), read-only. Two are kept: the epoch that runs, and one beside it."""
    order = np.random.default_rng([seed, epoch, _ROWS]).permutation(n_items)
    order.flags.writeable = False
    return order


class Prefetched:
    """`batch_at`, the next batch made in a thread while the step runs. `batch_at` must be a function of
    the step alone; it is called by one thread at a time."""

    def __init__(self, batch_at: Callable[[int], Any], steps: int) -> None:
        self._batch_at, self._steps = batch_at, steps
        self._pool = ThreadPoolExecutor(1, "batches")
        self._ahead: tuple[int, Future] | None = None

    def __call__(self, step: int) -> Any:
        """The batch of a step; errors of making it are raised here."""
        if self._ahead is None or self._ahead[0] != step:
            self._ahead = (step, self._pool.submit(self._batch_at, step))
        batch = self._ahead[1].result()
        if step + 1 < self._steps:
            self._ahead = (step + 1, self._pool.submit(self._batch_at, step + 1))
        else:
            self._pool.shutdown(wait=False)
        return batch
