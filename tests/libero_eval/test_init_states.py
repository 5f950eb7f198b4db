"""Init states: the wheel's files are read, anything else in them is refused."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from libero_eval.env.init_states import init_states, read_init_states
from libero_eval.env.libero_home import benchmark_root
from libero_eval.env.tasks import SUITES, instruction, task_name, task_names

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


def _state(shape: object, dtype: bytes, data: bytes) -> bytes:
    """A pickle of an array with any shape, type state and bytes; dtype: opcodes of a finished type."""
    head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    body = pickle.dumps(shape, 2)[2:-1]
    content = b"B" + len(data).to_bytes(4, "little") + data
    return head + b"(K\x01" + body + dtype + b"\x89" + content + b"tb."


F8 = b"cnumpy\ndtype\nU\x02f8\x89\x88\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


def test_a_forged_pickle_of_right_sizes_is_read(tmp_path: Path) -> None:
    path = _archive(tmp_path / "x", _state((2, 3), F8, np.arange(6.0).tobytes()))
    np.testing.assert_array_equal(read_init_states(path), np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize(
    "payload",
    [
        _state((1 << 14, 1 << 14), F8, bytes(48)),  # 2 GB of 48 bytes
        _state((2, 4), F8, bytes(48)),
        _state((-2, -3), F8, bytes(48)),
        _state((2, 3.0), F8, bytes(48)),
        _state((True, 6), F8, bytes(48)),
        _state((6,), F8, bytes(48)),
        _state(None, F8, bytes(48)),
        _state((2, 3), F8.replace(b"f8", b"O8"), bytes(48)),  # pointers out of the file
        _state((2, 3), F8.replace(b"U\x01<", b"U\x01|"), bytes(48)),
        _state((2, 3), F8.replace(b"U\x01<NNN", b"U\x01<(U\x01at}U\x01aI7\ns"), bytes(48)),
        _state((2, 3), F8[: F8.index(b"(")], bytes(48)),  # a type without its state
        _state((2, 3), b"cnumpy\nndarray\nK\x02\x85R", bytes(48)),
        # numpy.ndarray called with a buffer, an offset and strides of its own
        b"\x80\x02cnumpy\nndarray\n(K\x02K\x03\x86cnumpy\ndtype\nU\x02f8\x85RNK\x00K\x00K\x00\x86tR.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.",
        b"r\xff\xff\xff\x7f.",
        b"]" + b"\x85" * 50_000 + b".",
        b"c" + b"x" * 1_000_000 + b"\ny\n.",
    ],
    ids=range(17),
)
def test_forged_arrays(tmp_path: Path, payload: bytes) -> None:
    path = _archive(tmp_path / "x.pruned_init", payload)
    with pytest.raises(UserError, match=r"x\.pruned_init") as said:
        read_init_states(path)
    assert "\n" not in str(said.value) and len(str(said.value)) < 600


def test_archives_that_grow(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = tmp_path / f"{method}.pruned_init"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("archive/data.pkl", bytes(17 << 20))
        with pytest.raises(UserError, match="refused"):
            read_init_states(path)
    (tmp_path / "pointer").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git-lfs"):
        read_init_states(tmp_path / "pointer")


def test_arrays_of_own_tasks(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(read_init_states(path), np.arange(6.0).reshape(2, 3))
    whole = path.read_bytes()
    for old, new in (
        (b"(2, 3)", b"(2, 9**9)"),
        (b"(2, 3), ", b"(99999999999, 3), "),
        (b"<f8", b"|O8"),
    ):
        changed = whole.replace(old, new)
        path.write_bytes(changed.replace(b" " * (len(changed) - len(whole)) + b"\n", b"\n"))
        with pytest.raises(UserError, match=r"x\.npy"):
            read_init_states(path)
    for damaged in (b"", whole[:40], whole[:-1], b"PK\x03\x04"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"x\.npy"):
            read_init_states(path)
