"""Rows of a step: no repetition within an epoch, the same whatever the number of processes."""

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.training import sampling
from invact_vla.training.distributed import RankInfo
from invact_vla.training.sampling import local_positions, rows_at

SIZES = [(1, 1), (7, 3), (10, 10), (32, 8), (33, 8), (100, 32), (1000, 7)]


@pytest.mark.parametrize(("n_items", "batch_size"), SIZES)
@pytest.mark.parametrize("seed", [0, 5])
def test_no_item_comes_twice_in_an_epoch(n_items: int, batch_size: int, seed: int) -> None:
    per_epoch = n_items // batch_size
    for epoch in range(3):
        steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
        seen = np.concatenate([rows_at(s, n_items, batch_size, seed) for s in steps])
        assert len(seen) == len(set(seen.tolist())) == per_epoch * batch_size
        assert seen.min() >= 0 and seen.max() < n_items


def test_every_item_is_seen_in_an_epoch_that_divides_and_sooner_or_later_in_any() -> None:
    whole = np.concatenate([rows_at(s, 32, 8, 0) for s in range(4)])
    assert sorted(whole.tolist()) == list(range(32))
    counts = np.bincount(
        np.concatenate([rows_at(s, 33, 8, 0) for s in range(4 * 200)]), minlength=33
    )
    assert counts.min() > 170 and counts.max() <= 200, "the item left over is another one each time"


@pytest.mark.parametrize(("n_items", "batch_size"), [(3, 10), (1, 4), (5, 8), (4, 8)])
def test_a_batch_larger_than_the_data_uses_all_items_evenly(n_items: int, batch_size: int) -> None:
    for step in range(5):
        counts = np.bincount(rows_at(step, n_items, batch_size, 1), minlength=n_items)
        assert counts.sum() == batch_size and counts.max() - counts.min() <= 1


def test_rows_depend_on_step_and_seed_alone_and_cannot_be_spoilt() -> None:
    first = rows_at(5, 100, 10, 3)
    kept = first.copy()
    first[:] = -1  # a caller may change what it got
    for other in range(30):  # nor does the order of calls matter
        rows_at(other, 100, 10, 3)
    assert np.array_equal(rows_at(5, 100, 10, 3), kept)
    assert not np.array_equal(rows_at(5, 100, 10, 4), kept)
    assert not np.array_equal(rows_at(15, 100, 10, 3), kept), "the next epoch has another order"
    assert not np.array_equal(np.sort(kept), kept), "shuffled"


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_processes_together_see_the_global_batch_and_no_item_twice(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = rows_at(2, 100, 16, 0)
    parts = []
    for index in range(count):
        monkeypatch.setattr(sampling, "rank_info", lambda index=index: RankInfo(index, count))
        parts.append(whole[local_positions(16)])
        assert len(parts[-1]) == 16 // count
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_batch_that_cannot_be_shared_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "rank_info", lambda: RankInfo(0, 3))
    with pytest.raises(UserError, match="16 items cannot be shared by 3 processes"):
        local_positions(16)


@pytest.mark.parametrize("bad", [(-1, 5, 5), (0, 0, 5), (0, 5, 0)])
def test_arguments_out_of_range_are_refused(bad: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="n_items >= 1"):
        rows_at(*bad, seed=0)
