"""Baselines trained by `invact encoder train`: the same network with another loss.

configs/encoder/baseline_train_*.yaml: `vi_encoder` is the ego-exo InfoNCE on synchronized pairs of
the Ego-Exo4D paper (arxiv.org/abs/2311.18259), `ego_exo_language` our stand-in for Rosetta, `supcon`
plain supervised contrast.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from invact_vla.training.device import CPU
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.labelers.labeler import subfolder_or_self
from latent_actions.retrieval.baselines.baseline import (
    UNSCALED,
    BaselineConfig,
    Forward,
    Preprocess,
)


@BaselineConfig.register_subclass("trained")
@dataclass(frozen=True, kw_only=True)
class TrainedConfig(BaselineConfig):
    """An encoder folder of this package. `frames` is ignored: the folder says how many it reads."""

    encoder: Path  # run of `invact encoder train`, or an encoder folder
    batch_size: int = 64  # clips per forward pass

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        model = InvActEncoder.from_pretrained(
            subfolder_or_self(self.encoder, "encoder"), device=device
        )
        prepare = Preprocess(
            frames=model.config.frames, size=model.config.input_size, stretch=True, colors=UNSCALED,
            mode="bilinear",
        )  # fmt: skip
        return prepare, lambda clips: model(clips.movedim(2, -1)).embedding
