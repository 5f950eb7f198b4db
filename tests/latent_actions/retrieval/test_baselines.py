"""Every baseline of the registry, through one contract: a unit vector of each clip alone."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from latent_actions.encoder.commit import CommitConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.labelers.laq.checkpoint import save_pretrained
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.retrieval.baselines import (
    BaselineConfig,
    LapaBaselineConfig,
    TrainedConfig,
    VilaConfig,
    load_baseline,
)
from latent_actions.retrieval.baselines.vila import Vila, VilaShape
from tests.latent_actions.retrieval import test_baselines_hub as from_hub
from tests.latent_actions.retrieval import test_baselines_published as published


def lapa(folder: Path) -> BaselineConfig:
    laq = LaqConfig(dim=16, quant_dim=8, image_size=16, patch_size=2, spatial_depth=1,
                    temporal_depth=1, dim_head=8, heads=2)  # fmt: skip
    save_pretrained(LatentActionQuantizer(laq), folder / "model")
    return LapaBaselineConfig(laq=folder)


def trained(folder: Path) -> BaselineConfig:
    """A plain ViT, as the configs have it: routers that were not trained may show it no patch."""
    plain = CommitConfig(estimator="none")
    shape = EncoderConfig(frames=4, size=16, width=16, depth=3, heads=2, embedding=8, commit=plain)
    InvActEncoder(shape).save_pretrained(folder / "encoder")
    return TrainedConfig(encoder=folder)


def vila(folder: Path) -> BaselineConfig:
    Vila(VilaShape(size=16, channels=8, width=16, latent=8)).save_pretrained(folder / "vila")
    return VilaConfig(run=folder)


OF_HUB: dict[str, Callable[[Path], BaselineConfig]] = {
    name: partial(from_hub.config_of, name) for name in from_hub.FOLDERS
}
# with random weights below a folder, of members that read a file; some in several forms
PARTS = OF_HUB | {make.__name__: make for make in (*published.MEMBERS, lapa, trained, vila)}
WIDTHS = {make.__name__: width for make, width in published.MEMBERS.items()}
NAMES = sorted(
    PARTS.keys()
    | {
        n
        for n, k in BaselineConfig.get_known_choices().items()
        if k.__module__.startswith("latent")
    }
)


def config_of(name: str, folder: Path) -> BaselineConfig:
    """The config of a member; of one without a part above its default."""
    return PARTS[name](folder) if name in PARTS else BaselineConfig.get_choice_class(name)()


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    embed, clips = load_baseline(config_of(name, tmp_path)), published.clips()
    vectors = embed(clips)
    assert vectors.shape == (3, WIDTHS.get(name, vectors.shape[1])) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # different clips differ, and the same clip is the same vector in any batch
    assert np.abs(vectors[:2] - vectors[1:]).max(axis=1).min() > 1e-4
    assert np.allclose(embed(clips[1:2]), vectors[1:2], atol=1e-5)
