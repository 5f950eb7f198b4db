"""Files of torch.save: tensors come out, code stays in, and what is refused is told in one line."""

import io
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch._utils import _rebuild_tensor_v2

from invact_vla.core.errors import UserError
from invact_vla.untrusted.torch_files import read_research_pickle, read_safetensors, read_tensors
from tests.paths import REPOSITORY


class Harm:
    """Pickled, it makes a file when an ordinary unpickler reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), path)
    return path


def test_names_lose_the_prefix_of_ddp(tmp_path: Path) -> None:
    state = {"module.fc.weight": torch.arange(3.0), "fc.bias": torch.ones(2, dtype=torch.bfloat16)}
    torch.save(state, tmp_path / "head.pt")
    found = read_tensors(tmp_path / "head.pt")
    assert list(found) == ["fc.weight", "fc.bias"] and found["fc.bias"].dtype == torch.bfloat16
    assert torch.equal(found["fc.weight"], torch.arange(3.0))


def test_names_lose_prefixes_however_often_but_never_a_weight(tmp_path: Path) -> None:
    ones, zeros = torch.ones(2), torch.zeros(2)
    torch.save({"module.module.a": ones, "module._orig_mod.b": zeros}, tmp_path / "twice.pt")
    found = read_tensors(tmp_path / "twice.pt")
    assert list(found) == ["a", "b"] and torch.equal(found["a"], ones)
    for other in ("a", "module.module.a"):
        torch.save({"module.a": ones, other: zeros}, tmp_path / "both.pt")
        with pytest.raises(UserError, match="two weights are of one name: module"):
            read_tensors(tmp_path / "both.pt")


@pytest.mark.filterwarnings("ignore:.*jit")
def test_torchscript_is_refused(script: Path) -> None:
    for read in (read_tensors, read_research_pickle):
        with pytest.raises(UserError, match="TorchScript archive, which holds code"):
            read(script)


def test_tar_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pickle").write_bytes(b"")
    with tarfile.open(tmp_path / "old.pt", "w") as archive:
        archive.add(tmp_path / "pickle", "pickle")
    for read in (read_tensors, read_research_pickle):
        with pytest.raises(UserError, match="tar file"):
            read(tmp_path / "old.pt")


def test_bare_pickles_are_for_those_who_ask(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"torch before 1\.6"):
        read_tensors(path)
    assert torch.equal(read_research_pickle(path)["a"], torch.ones(2))


def test_code_is_not_run(tmp_path: Path) -> None:
    path, mark = tmp_path / "harm.pt", tmp_path / "mark"
    torch.save({"a": torch.ones(2), "b": Harm(mark)}, path)
    with pytest.raises(UserError, match="more than tensors") as said:
        read_tensors(path)
    assert "\n" not in str(said.value)
    assert torch.equal(read_research_pickle(path)["a"], torch.ones(2))
    assert not mark.exists()


@pytest.mark.parametrize(
    "value", [{}, {"a": 3}, {1: torch.ones(1)}, torch.ones(2), [torch.ones(1)]]
)
def test_only_state_dicts(tmp_path: Path, value: object) -> None:
    torch.save(value, tmp_path / "other.pt")
    with pytest.raises(UserError, match="expected a state dict"):
        read_tensors(tmp_path / "other.pt")


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no file"):
        read_tensors(tmp_path / "none.pt")
    torch.save({"a": torch.ones(1000)}, tmp_path / "half.pt")
    whole = (tmp_path / "half.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="whole weights file"):
        read_tensors(tmp_path / "half.pt")
    (tmp_path / "half.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git-lfs"):
        read_tensors(tmp_path / "half.pt")
    for content in (b"", b"<!DOCTYPE html><html>Entry not found</html>", bytes(4096), whole[1:]):
        (tmp_path / "half.pt").write_bytes(content)
        for read in (read_tensors, read_research_pickle):
            with pytest.raises(UserError, match=r"begins with b.*: it is empty, a web page"):
                read(tmp_path / "half.pt")


def test_there_is_no_other_door() -> None:
    for package in ("invact_vla", "latent_actions", "libero_eval"):
        for path in (REPOSITORY / package).rglob("*.py"):
            if path.name != "torch_files.py":
                text = path.read_text()
                assert "torch.load(" not in text and "jit.load(" not in text, path


def _forged(path: Path, **records: bytes) -> Path:
    """An archive of torch.save with other content of some records."""
    torch.save({"a": torch.ones(4)}, path)
    with zipfile.ZipFile(path) as archive:
        found = {info.filename: archive.read(info) for info in archive.infolist()}
    top = next(iter(found)).split("/")[0]
    found |= {f"{top}/{name.replace('_pkl', '.pkl')}": value for name, value in records.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in found.items():
            archive.writestr(name, content)
    return path


def _tensor_pickle(numel: int, offset: int, size: tuple, stride: tuple) -> bytes:
    """What torch.save writes for {"a": tensor}, with any numbers."""

    class Storage:
        pass

    class Tensor:
        def __reduce__(self) -> tuple:
            return _rebuild_tensor_v2, (Storage(), offset, size, stride, False, OrderedDict())

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object) -> tuple | None:
            if isinstance(obj, Storage):
                return ("storage", torch.FloatStorage, "0", "cpu", numel)
            return None

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump({"a": Tensor()})
    return stream.getvalue()


def test_a_forged_archive_of_right_sizes_is_read(tmp_path: Path) -> None:
    path = _forged(tmp_path / "fine.pt", data_pkl=_tensor_pickle(4, 1, (3,), (1,)))
    assert torch.equal(read_tensors(path)["a"], torch.ones(3))


@pytest.mark.parametrize(
    ("numel", "offset", "size", "stride"),
    [
        (1 << 30, 0, (1 << 30,), (1,)),  # numbers behind the end of the file
        (40, 0, (40,), (1,)),  # numbers of another record
        (4, 0, (1 << 20, 1 << 20), (0, 0)),  # terabytes by a stride of 0
        (4, 3, (2,), (1,)),  # behind its storage
        (4, -1, (2,), (1,)),  # before it
        (4, 0, (2,), (-1,)),
        (4, 0, (1 << 62, 1 << 62), (1, 1)),
        (4, 0, (2,), (1, 1)),
        (4, 0, (True,), (1,)),
        (4, 0, (2.0,), (1,)),
    ],
)
def test_tensors_beyond_their_bytes(
    tmp_path: Path, numel: int, offset: int, size: tuple, stride: tuple
) -> None:
    forged = _tensor_pickle(numel, offset, size, stride)
    path = _forged(tmp_path / "forged.pt", data_pkl=forged)
    for read in (read_tensors, read_research_pickle):
        with pytest.raises(UserError, match="whole weights file") as said:
            read(path)
        assert "\n" not in str(said.value) and len(str(said.value)) < 500


@pytest.mark.parametrize(
    "pickled",
    [
        b"",
        b".",
        b"0.",
        b"(1.",
        b"t.",
        b"r\xff\xff\xff\x7f.",  # a memory of two billion places
        b"I" + b"9" * 5000 + b"\n.",
        b"\x8a\xff" + b"\xff" * 255 + b".",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x82\x01.",  # a registered extension
        b"(" * 100_000 + b".",
        b"]" + b"\x85" * 300_000 + b".",  # a tuple nested so deeply that its hash would crash
        b"}]" + b"\x85" * 300_000 + b"Ns.",
        b"csubprocess\ncall\n(U\x02lstR.",
    ],
    ids=range(14),
)
def test_pickles_that_no_tensor_has(tmp_path: Path, pickled: bytes) -> None:
    path = _forged(tmp_path / "forged.pt", data_pkl=pickled)
    with pytest.raises(UserError) as said:
        read_tensors(path)
    assert "\n" not in str(said.value) and len(str(said.value)) < 500


def test_a_key_of_shared_containers_is_not_written_out(tmp_path: Path) -> None:
    """Forty times a pair of itself: 120 bytes whose text would have 2 ** 40 letters."""
    bomb = b"U\x01x" + 40 * b"2\x86"
    storage = b"(U\x07storage" + b"ctorch\nFloatStorage\n" + bomb + b"U\x03cpuK\x01tQ."
    forged = _forged(tmp_path / "bomb.pt", **{"data.pkl": b"\x80\x02" + storage, "data/0": b"0000"})
    bare = tmp_path / "bare.pt"
    bare.write_bytes(b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {})))
    with bare.open("ab") as file:
        file.write(b"\x80\x02" + storage)
    for read, path in ((read_tensors, forged), (read_research_pickle, bare)):
        with pytest.raises(UserError, match="a storage whose key is no text"):
            read(path)


def test_compressed_and_ambiguous_archives(tmp_path: Path) -> None:
    path = _forged(tmp_path / "a.pt")
    with zipfile.ZipFile(path) as archive:
        found = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in found.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="compressed"):
        read_tensors(path)
    hidden = b"PK\x05\x06" + bytes(18)  # the end of another archive, behind the first one's
    path = _forged(tmp_path / "b.pt")
    path.write_bytes(path.read_bytes() + hidden)
    with pytest.raises(UserError, match="whole weights file"):
        read_tensors(path)
    with zipfile.ZipFile(_forged(tmp_path / "c.pt"), "a") as archive:
        archive.writestr("c/code/__torch__.py", "def forward(): pass")
    with pytest.raises(UserError, match="which holds code"):
        read_tensors(tmp_path / "c.pt")


def test_a_bare_pickle_with_a_forged_count(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"a": torch.arange(5.0)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    assert torch.equal(read_research_pickle(path)["a"], torch.arange(5.0))
    for count in (1 << 40, 4, -5):
        path.write_bytes(whole[:-28] + struct.pack("<q", count) + whole[-20:])
        with pytest.raises(UserError, match="whole weights file"):
            read_research_pickle(path)


def test_a_copy_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"a": torch.arange(4096.0)}, path)
    state = read_research_pickle(path)
    path.write_bytes(b"")
    assert torch.equal(state["a"], torch.arange(4096.0))


def test_views_and_shared_weights_stay_so(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    torch.save(
        {"a": whole, "b": whole.T, "c": whole[1:, 2], "d": nn.Parameter(whole)}, tmp_path / "a.pt"
    )
    found = read_tensors(tmp_path / "a.pt")
    assert torch.equal(found["b"], whole.T) and torch.equal(found["c"], whole[1:, 2])
    assert torch.equal(found["d"], whole) and found["a"].data_ptr() == found["b"].data_ptr()


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(2)}, path)
    assert read_safetensors(path, dtype=torch.bfloat16)["a"].dtype == torch.bfloat16
    whole = path.read_bytes()
    for damaged in (b"", whole[:20], whole[:-1], b"\xff" * 8 + whole[8:], b"\n"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="not a whole weights file"):
            read_safetensors(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git-lfs"):
        read_safetensors(path)
