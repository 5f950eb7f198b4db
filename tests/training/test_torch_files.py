"""Files of torch.save: tensors come out, code stays in, and what is refused is told in one line."""

import tarfile
from pathlib import Path

import pytest
import torch
from torch import nn

from invact_vla.errors import UserError
from invact_vla.training.torch_files import read_research_pickle, read_tensors
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


def test_there_is_no_other_door() -> None:
    for package in ("invact_vla", "latent_actions", "libero_eval"):
        for path in (REPOSITORY / package).rglob("*.py"):
            if path.name != "torch_files.py":
                text = path.read_text()
                assert "torch.load(" not in text and "jit.load(" not in text, path
