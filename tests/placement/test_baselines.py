"""Every baseline behind `load_baseline` on a fake GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.retrieval.baselines import (
    BaselineConfig,
    LapaBaselineConfig,
    TrainedConfig,
    baseline,
    hub,
    load_baseline,
    name_of,
    ours,
    weights_of,
)
from tests.fake_cuda import CUDA, build, fake_cuda
from tests.latent_actions.retrieval import test_baselines_hub as from_hub
from tests.latent_actions.retrieval import test_baselines_published as published
from tests.latent_actions.retrieval.test_baselines import NAMES, config_of
from tests.placement.test_latents import TINY

SHAPE = EncoderConfig(frames=4, size=16, width=16, depth=3, heads=2, embedding=8)


def embedded(config: BaselineConfig, clips: np.ndarray) -> np.ndarray:
    """Vectors of the fake GPU; weights files give only their shapes, since there is nowhere to read
    their values to."""
    files = [path for place in weights_of(config).values() for path in _files(place)]
    shapes = {
        path: {n: (t.shape, t.dtype) for n, t in baseline.read_state(path).items()}
        for path in files
    }

    def empty(path: Path) -> dict[str, Tensor]:
        return {n: torch.empty(shape, dtype=dtype) for n, (shape, dtype) in shapes[path].items()}

    with pytest.MonkeyPatch.context() as patch, fake_cuda():
        for module in {type(config).__module__, baseline.__name__}:
            patch.setattr(f"{module}.read_state", empty, raising=False)
        return load_baseline(config, CUDA)(clips)


def _files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.safetensors")) if place.is_dir() else [place]


@pytest.mark.parametrize("name", sorted({*NAMES} - {*from_hub.FOLDERS, "lapa", "trained"}))
def test_networks_of_our_own(name: str, tmp_path: Path) -> None:
    assert len(embedded(config_of(name, tmp_path), published.clips())) == 3


@pytest.mark.parametrize("name", from_hub.FOLDERS)
def test_networks_of_transformers(name: str, tmp_path: Path) -> None:
    config = from_hub.config_of(name, tmp_path)

    def random_weights(kind, weights: str, device: torch.device):
        return build(lambda: kind(kind.config_class.from_pretrained(weights)), device)

    with pytest.MonkeyPatch.context() as patch, fake_cuda():
        patch.setattr(hub, "published_model", random_weights)
        assert len(load_baseline(config, CUDA)(from_hub.clips())) == 2


@pytest.mark.parametrize(
    "config", [LapaBaselineConfig(), TrainedConfig(encoder=Path("x"))], ids=name_of
)
def test_networks_of_this_project(config: BaselineConfig) -> None:
    def laq(folder: Path, device: torch.device) -> LatentActionQuantizer:
        return build(lambda: LatentActionQuantizer(TINY), device)

    def encoder(folder: Path, device: torch.device) -> InvActEncoder:
        return build(lambda: InvActEncoder(SHAPE), device)

    with pytest.MonkeyPatch.context() as patch, fake_cuda():
        patch.setattr(ours, "laq_path", lambda folder: folder)
        patch.setattr(ours, "subfolder_or_self", lambda folder, part: folder)
        patch.setattr(ours, "from_pretrained", laq)
        patch.setattr(InvActEncoder, "from_pretrained", encoder)
        assert len(load_baseline(config, CUDA)(np.zeros((2, 5, 20, 20, 3), np.uint8))) == 2
