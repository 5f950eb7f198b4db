"""Processes that are shared by calls and end when nobody needs them."""

import math
import multiprocessing
import time

import pytest

from latent_actions.video import workers


def test_processes_stay_for_the_next_call_and_end_when_idle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "IDLE_S", 0.2)
    monkeypatch.setattr(workers, "_shared", workers._SharedPool())
    others = set(multiprocessing.active_children())

    def mine() -> set[int]:
        return {process.pid or 0 for process in set(multiprocessing.active_children()) - others}

    assert sorted(workers.run_parallel(math.sqrt, [1, 4, 9], 2)) == [1, 2, 3]
    first = mine()
    assert sorted(workers.run_parallel(math.sqrt, [16, 25], 2)) == [4, 5]
    assert first and mine() <= first
    deadline = time.monotonic() + 20
    while mine() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not mine()
    assert sorted(workers.run_parallel(math.sqrt, [1, 4], 2)) == [1, 2], "begun anew"


def test_an_error_of_a_job_is_raised_and_the_pool_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_S", 0.2)
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        list(workers.run_parallel(math.sqrt, [-1, 4], 2))
    assert sorted(workers.run_parallel(math.sqrt, [1, 4], 2)) == [1, 2]
