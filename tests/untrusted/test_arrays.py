"""NumPy archives: the right array, or one line."""

import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.untrusted.arrays import read_npz


def refusal(path: Path, name: str = "a", limit: int = 1 << 20) -> str:
    with pytest.raises(UserError) as found:
        read_npz(path, name, limit)
    assert "\n" not in str(found.value) and len(str(found.value)) < 500
    return str(found.value)


def test_an_array_comes_out_as_it_was_saved(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(3, 4)
    np.savez_compressed(tmp_path / "x.npz", a=values, b=values)
    assert np.array_equal(read_npz(tmp_path / "x.npz", "a"), values)


def test_what_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    assert "no file" in refusal(path)
    path.write_bytes(b"PK\x03\x04 and no more")
    assert "no .npz file" in refusal(path)
    np.savez_compressed(path, a=np.zeros(1 << 20))  # 8 MiB of nothing in 8 kB
    assert "8388736 bytes, at most 1048576" in refusal(path)
    assert "has no array b: it has a" in refusal(path, "b")
    np.savez(path, a=np.array([{}], dtype=object))
    assert "no .npz file of numbers" in refusal(path)
    np.savez(path, a=np.array(["text"]))
    assert "no array of numbers" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", b"not an array")
    assert "no .npz file of numbers" in refusal(path)


def test_every_cut_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, a=np.arange(40.0))
    whole = path.read_bytes()
    for end in range(0, len(whole), 7):
        path.write_bytes(whole[:end])
        refusal(path)
    for place in range(30, len(whole), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        with suppress(UserError):
            read_npz(path, "a", 1 << 20)
