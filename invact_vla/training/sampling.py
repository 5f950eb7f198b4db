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

from functools import lru_cache

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
