"""Init states: the wheel's files are read, anything else in them is refused."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from invact_vla.errors import UserError
from libero_eval.init_states import init_states, read_init_states
from libero_eval.libero_home import benchmark_root
from libero_eval.tasks import SUITES, instruction, task_name, task_names

LENGTHS = [123, 123, 47, 51, 84, 45, 71, 84, 47, 47]  # of libero_10 in benchmark order


def _archive(path: Path, payload: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("archive/version", "3")
    return path


def test_libero_10() -> None:
    states = [init_states("libero_10", task) for task in range(10)]
    assert [s.shape for s in states] == [(50, d) for d in LENGTHS]
    assert all(s.dtype == np.float64 for s in states)


def test_equal_to_plain_pickle() -> None:
    path = benchmark_root() / "init_files/libero_10" / f"{task_name('libero_10', 4)}.pruned_init"
    with zipfile.ZipFile(path) as archive:
        expected = pickle.loads(archive.read("archive/data.pkl"))
    np.testing.assert_array_equal(read_init_states(path), expected)


@pytest.mark.parametrize("suite", SUITES)
def test_every_task_of_every_suite_has_a_file(suite: str) -> None:
    names = task_names(suite)
    assert len(names) == (90 if suite == "libero_90" else 10)
    for task in (0, len(names) - 1):
        assert len(init_states(suite, task)) == 50


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = _archive(tmp_path / "x.pruned_init", pickle.dumps(_Evil(marker), protocol=2))
    with pytest.raises(UserError, match="mkdir"):
        read_init_states(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1},
        np.zeros(5),
        np.zeros((2, 3), dtype=np.float32),
        np.array([[1, "a"]], dtype=object),
        np.full((2, 3), np.nan),
        np.zeros((0, 3)),
    ],
)
def test_other_values_are_refused(tmp_path: Path, value: object) -> None:
    path = _archive(tmp_path / "x.pruned_init", pickle.dumps(value, protocol=2))
    with pytest.raises(UserError, match=r"x\.pruned_init"):
        read_init_states(path)


@pytest.mark.parametrize("cut", [0, 1, 100, 5000])
def test_truncated_files_are_refused(tmp_path: Path, cut: int) -> None:
    path = benchmark_root() / "init_files/libero_10" / f"{task_name('libero_10', 5)}.pruned_init"
    (tmp_path / "x").write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError):
        read_init_states(tmp_path / "x")
    payload = pickle.dumps(np.zeros((2, 3)), protocol=2)
    with pytest.raises(UserError):
        read_init_states(_archive(tmp_path / "y", payload[: len(payload) // 2]))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no init states"):
        read_init_states(tmp_path / "absent")


def test_instructions_come_from_file_names() -> None:
    first = "put both the alphabet soup and the tomato sauce in the basket"
    assert instruction(task_name("libero_10", 0)) == first
    assert instruction("KITCHEN_SCENE10_close_the_top_drawer") == "close the top drawer"
    assert instruction("open_the_middle_drawer") == "open the middle drawer"
    with pytest.raises(UserError, match="unknown suite"):
        task_names("libero_11")
    with pytest.raises(UserError, match=r"0\.\.9"):
        task_name("libero_10", 10)
