"""The one device and dtype decision, what a run notes of it, and where the loop trains."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.run_folder import open_run
from invact_vla.training import device as devices
from invact_vla.training.device import (
    describe,
    exact,
    place,
    resolve_device,
    resolve_dtype,
    stage_device,
)
from invact_vla.training.loop import LoopConfig, _accelerator, fit


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch says on a machine with two cards, the second in use."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


def test_names(two_gpus: None) -> None:
    found = {name: str(resolve_device(name)) for name in ("auto", "cuda", "cuda:0", "cpu")}
    assert found == {"auto": "cuda:1", "cuda": "cuda:1", "cuda:0": "cuda:0", "cpu": "cpu"}
    assert describe(resolve_device("cuda:0")) == "cuda:0 (Card 0)"
    with pytest.raises(UserError, match="there are 2 CUDA devices"):
        resolve_device("cuda:2")


def test_a_group_of_processes_shares_the_gpus_out_itself(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "rank_info", _TwoProcesses)
    assert str(resolve_device("cuda")) == "cuda:1"
    with pytest.raises(UserError, match="use --device cuda"):
        resolve_device("cuda:0")


class _TwoProcesses:
    count = 2


def test_without_a_gpu_auto_is_the_cpu(no_gpu: None) -> None:
    assert resolve_device() == resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "mps"):
        with pytest.raises(UserError, match="--device cpu"):
            resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "CUDA", "", "cuda:-1", "cpu:0"])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UserError, match="expected auto, cpu, cuda, cuda:N or mps"):
        resolve_device(name)


def test_a_torch_device_or_dtype_is_given_back() -> None:
    gpu = torch.device("cuda", 3)
    assert resolve_device(gpu) is gpu
    assert resolve_dtype(torch.float64, gpu) is torch.float64


def test_dtypes() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    assert (resolve_dtype("auto", cpu), resolve_dtype("auto", gpu)) == (
        torch.float32, torch.bfloat16,
    )  # fmt: skip
    assert resolve_dtype("fp16", cpu) is torch.float16
    with pytest.raises(UserError, match="fp32, bf16, fp16"):
        resolve_dtype("float32", cpu)


def test_an_emulated_dtype_is_obeyed_with_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has_products in (True, False):
        monkeypatch.setattr(devices, "multiplies_bf16", lambda kind, has=has_products: has)
        assert resolve_dtype("bf16", torch.device("cpu")) is torch.bfloat16
        assert ("dtype fp32 is the faster one" in caplog.text) != has_products


def test_exact_restores_what_it_changes() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic
    with exact():
        assert not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.deterministic
        assert torch.backends.cudnn.enabled
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before

    @exact()
    def fails() -> None:
        raise KeyError

    for _ in range(2):  # a decorator works more than once
        with pytest.raises(KeyError):
            fails()
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic) == before


def test_place_looks_into_containers() -> None:
    meta = torch.device("meta")
    batch = place({"a": torch.zeros(1), "b": (torch.zeros(2), "text"), "c": None}, meta)
    assert batch["a"].device == batch["b"][0].device == meta
    assert batch["b"][1] == "text" and batch["c"] is None


@dataclass(frozen=True, kw_only=True)
class Config:
    out: Path
    size: int = 1
    device: str = "auto"


def test_the_device_is_in_the_provenance_and_not_in_the_key(tmp_path: Path, no_gpu: None) -> None:
    one = open_run(tmp_path / "a", Config(out=tmp_path / "a"))
    assert stage_device(one, "cpu") == torch.device("cpu")
    other = open_run(tmp_path / "a", Config(out=tmp_path / "a", device="cuda"))
    assert other.key == one.key
    other.ran_on("cuda:0 (Card)")
    other.ran_on("cpu")
    assert read_json(tmp_path / "a/provenance.json")["devices"] == ["cpu", "cuda:0 (Card)"]
    other.finish({})
    assert open_run(tmp_path / "a", Config(out=tmp_path / "a", device="mps")).finished


class Recorder(torch.nn.Linear):
    """Notes where it was called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = (self.weight.device, x.device)
        return super().forward(x)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_the_loop_trains_where_it_is_told(device: str | torch.device, tmp_path: Path) -> None:
    """Also where another stage of this process trained on another device before."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import patch_environment

    AcceleratorState._reset_state(reset_partial_state=True)
    with patch_environment(ACCELERATE_TORCH_DEVICE="meta"):
        assert PartialState().device.type == "meta"
    model = Recorder(4, 1)
    config = LoopConfig(steps=2, batch_size=2, log_every=1, checkpoint_every=1)
    loss = lambda model, batch, step: (model(batch).square().mean(), {})
    fit(model, loss, lambda step: torch.ones(2, 4), config, tmp_path, device=device)
    assert model.seen == (torch.device("cpu"), torch.device("cpu"))
    assert PartialState().device == torch.device("cpu")


def test_the_engine_takes_the_model_to_the_device() -> None:
    """The meta device stands for another one."""
    meta, config = torch.device("meta"), LoopConfig(steps=1, batch_size=1)
    accelerator = _accelerator(meta, config)
    assert accelerator.device == meta
    assert accelerator.prepare(torch.nn.Linear(4, 1)).weight.device == meta
    assert _accelerator(torch.device("cpu"), config).device == torch.device("cpu")
