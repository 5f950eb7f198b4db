"""A tiny OpenVLA folder and inputs for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from invact_vla.data.action_stats import ActionStats
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint, fresh, save_pretrained
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.tokenizer import prompt_of
from tests.paths import REPOSITORY

INSTRUCTIONS = ("put both moka pots on the stove", "pick up the book", "close the drawer now")


def debug_config(**invact: object) -> OpenVLAConfig:
    """configs/vla/model_debug.yaml with changes of the `invact` part."""
    config = load_model_config(REPOSITORY / "configs/vla/model_debug.yaml")
    return replace(config, invact=replace(config.invact, **invact))


def with_statistics(config: OpenVLAConfig) -> OpenVLAConfig:
    """The config with made-up statistics; dimension 3 is constant."""
    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 7))
    actions[:, 3] = 0.125
    actions[:, 6] = actions[:, 6] > 0
    stats = ActionStats.of(actions, [True] * 6 + [False]).to_json()
    states = np.random.default_rng(1).normal(size=(100, 8))
    proprio = ActionStats.of(states, [True] * 8).to_json()
    return replace(config, norm_stats={"libero_10": {"action": stats, "proprio": proprio}})


def tiny(config: OpenVLAConfig | None = None, seed: int = 0) -> VLACheckpoint:
    """Random weights and a tokenizer trained on the instructions."""
    texts = [prompt_of(i) for i in INSTRUCTIONS]
    pretrained = fresh(debug_config() if config is None else config, texts, seed)
    with torch.no_grad():  # larger than at initialization, so that outputs differ visibly
        for parameter in pretrained.model.projector.parameters():
            parameter.mul_(4)
    pretrained.model.eval()
    return pretrained


def tiny_folder(folder: Path, config: OpenVLAConfig | None = None) -> Path:
    """A saved tiny checkpoint with statistics."""
    save_pretrained(tiny(with_statistics(debug_config() if config is None else config)), folder)
    return folder


def pixels(count: int, config: OpenVLAConfig, seed: int = 0) -> torch.Tensor:
    """Random normalized images."""
    generator = torch.Generator().manual_seed(seed)
    channels = 3 * config.n_towers * len(config.invact.cameras)
    size = config.image_size
    return torch.randn(count, channels, size, size, generator=generator)
