"""Baselines with a published key layout, with random weights of the right names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from invact_vla.core.errors import UserError
from latent_actions.retrieval.baselines import (
    Ae2Config,
    BaselineConfig,
    ByovConfig,
    EgoVlpConfig,
    EgoVlpV2Config,
    FlowFeatConfig,
    LaVilaConfig,
    LiftConfig,
    SumlConfig,
    load_baseline,
)
from latent_actions.retrieval.baselines.baseline import fit_weights, read_state
from latent_actions.retrieval.baselines.suml import SlowFast
from latent_actions.retrieval.baselines.vit import VitShape
from tests.latent_actions.retrieval import published_layouts as published

TRUNK = VitShape(width=16, depth=2, heads=2, patch=4, grid=4)
SMALL = {"width": 24, "depth": 4, "heads": 2, "patch": 14, "grid": 5, "layer_scale": True}
FLOWFEAT = VitShape(**SMALL)
LIFT = VitShape(**SMALL, registers=4, class_position=False)
SLOWFAST_BLOCKS = (1, 2, 1, 1)


def egovlp(folder: Path) -> BaselineConfig:
    weights = published.write(folder / "e.pth", published.egovlp(), "state_dict")
    return EgoVlpConfig(weights=weights, trunk=TRUNK, embedding=8)


def egovlp_converted(folder: Path) -> BaselineConfig:
    weights = published.write(folder / "e.pth", published.egovlp_converted(), "state_dict")
    return EgoVlpConfig(weights=weights, trunk=TRUNK, embedding=8, frames=6)


def egovlpv2(folder: Path) -> BaselineConfig:
    weights = published.write(folder / "e2.pth", published.egovlpv2(), "state_dict")
    return EgoVlpV2Config(weights=weights, trunk=TRUNK, embedding=8)


def lavila(folder: Path, gated: bool = False) -> BaselineConfig:
    weights = published.write(folder / "l.pth", published.lavila(gated), "state_dict")
    return LaVilaConfig(weights=weights, trunk=TRUNK, embedding=8)


def lavila_gated(folder: Path) -> BaselineConfig:
    return lavila(folder, gated=True)


def flowfeat(folder: Path) -> BaselineConfig:
    weights = published.write(folder / "f.pth", published.flowfeat(), None)
    return FlowFeatConfig(weights=weights, backbone=FLOWFEAT, size=56, frames=2)


def lift(folder: Path) -> BaselineConfig:
    weights = published.write(folder / "lift.ckpt", published.lift(), "state_dict")
    backbone = folder / "vit.safetensors"
    save_file(published.drawn(published.timm_dinov2_registers()), backbone)
    return LiftConfig(weights=weights, backbone_weights=backbone, backbone=LIFT, latent=16,
                      steps=20, size=56)  # fmt: skip


def byov(folder: Path) -> BaselineConfig:
    weights = published.write(folder / "b.ckpt", published.byov(), "state_dict")
    return ByovConfig(weights=weights, width=16, clip_layers=1, clip_heads=2, patch=8, size=32,
                      positions=6, layers=1, heads=2, embedding=16, frames=8)  # fmt: skip


def sum_l(folder: Path) -> BaselineConfig:
    weights = published.write(folder / "s.pyth", published.slowfast(SLOWFAST_BLOCKS), "model_state")
    return SumlConfig(weights=weights, width=8, blocks=SLOWFAST_BLOCKS, temporal=SLOWFAST_BLOCKS,
                      size=64, frames=8)  # fmt: skip


def ae2(folder: Path) -> BaselineConfig:
    weights = published.write(folder / "a.ckpt", published.ae2(objects=False), "state_dict")
    return Ae2Config(weights=weights, model="plain", size=32, frames=3)


def ae2_object(folder: Path) -> BaselineConfig:
    weights = published.write(folder / "a.ckpt", published.ae2(objects=True), "state_dict")
    return Ae2Config(weights=weights, model="object", size=32, frames=3)


Make = Callable[[Path], BaselineConfig]
MEMBERS: dict[Make, int] = {
    egovlp: 8, egovlp_converted: 8, egovlpv2: 8, lavila: 8, lavila_gated: 8, flowfeat: 128,
    lift: 32, byov: 16, sum_l: 8 * 36, ae2: 128, ae2_object: 128,
}  # fmt: skip


def clips(count: int = 3, frames: int = 5, size: int = 40) -> np.ndarray:
    """Noise under a brightness of each clip's own."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (count, frames, size, size, 3))
    return (noise * rng.uniform(0.2, 1, (count, 1, 1, 1, 1))).astype(np.uint8)


@pytest.mark.parametrize(
    "make", [egovlp, egovlpv2, lavila, byov, sum_l], ids=lambda make: make.__name__
)
def test_a_file_of_another_layout_is_named(make: Make, tmp_path: Path) -> None:
    config = make(tmp_path)
    path = config.weights  # type: ignore[attr-defined]
    whole = read_state(path)
    some = next(name for name in whole if name.endswith("norm1.weight") or "s3.path" in name)
    for change, problem in (
        ({k: v for k, v in whole.items() if k != some}, "missing"),
        (whole | {"surprise.weight": torch.zeros(2)}, "unexpected surprise"),
        (whole | {some: torch.zeros(3, 3)}, r"is \(3, 3\), not"),
    ):
        torch.save({"state_dict": change}, path)
        with pytest.raises(UserError, match=problem):
            load_baseline(config)


def test_old_slowfast_stem_names_load(tmp_path: Path) -> None:
    config = sum_l(tmp_path)
    expected = load_baseline(config)(clips(1))
    shapes = published.slowfast(SLOWFAST_BLOCKS, stem="s")
    published.write(tmp_path / "s.pyth", shapes, "model_state")
    assert np.allclose(load_baseline(config)(clips(1)), expected, atol=1e-6)


def test_sum_l_reads_blue_first(tmp_path: Path) -> None:
    config = sum_l(tmp_path)
    assert isinstance(config, SumlConfig)
    model = SlowFast(config.width, config.blocks, config.temporal, config.fusion)
    fit_weights(model, config.state(), config.layout, config.weights)
    prepare, _ = config.load()
    with torch.no_grad():
        wanted = model(prepare(clips(1)[..., ::-1]))
    wanted = torch.nn.functional.normalize(wanted, dim=-1).numpy()
    assert np.allclose(load_baseline(config)(clips(1)), wanted, atol=1e-6)
    assert not np.allclose(load_baseline(config)(clips(1)[..., ::-1].copy()), wanted, atol=1e-3)


class Harm:
    """Pickled, it makes a file when an ordinary unpickler reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_the_reader_runs_no_code_of_the_file(tmp_path: Path) -> None:
    tensor, mark = torch.arange(6.0).reshape(2, 3), tmp_path / "mark"
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.pth"
        content = {"state_dict": {"module.a": tensor}, "args": Harm(mark), "cfg": VitShape()}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        state = read_state(path)
        assert list(state) == ["a"] and torch.equal(state["a"], tensor)
    assert not mark.exists()
    torch.load(path, weights_only=False)
    assert mark.exists()  # the file is harmful to another reader


def test_unreadable_files_say_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights file"):
        read_state(tmp_path / "none.pth")
    for name in ("half.pth", "half.safetensors"):
        (tmp_path / name).write_bytes(b"PK\x03\x04 not a whole file")
        with pytest.raises(UserError, match="whole weights file"):
            read_state(tmp_path / name)
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="holds no tensors"):
        read_state(tmp_path / "empty.pth")


def test_clips_of_another_form_are_refused(tmp_path: Path) -> None:
    embed = load_baseline(egovlp(tmp_path))
    for wrong in (clips()[:0], clips().astype(np.float32), clips()[0]):
        with pytest.raises(ValueError, match="expected uint8 clips"):
            embed(wrong)
