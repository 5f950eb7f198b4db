"""Networks of this project as baselines: encoders trained with another loss, and LAPA's latent actions.

configs/encoder/baseline_train_*.yaml: `vi_encoder` is the ego-exo InfoNCE on synchronized pairs of
the Ego-Exo4D paper (arxiv.org/abs/2311.18259), `ego_exo_language` our stand-in for Rosetta, `supcon`
plain supervised contrast.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from invact_vla.training.device import CPU
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.labelers.labeler import subfolder_or_self
from latent_actions.labelers.lapa import laq_path
from latent_actions.labelers.laq.checkpoint import from_pretrained
from latent_actions.retrieval.baselines.baseline import (
    UNSCALED,
    BaselineConfig,
    Forward,
    Pool,
    Preprocess,
    pool_frames,
)


def _whole(frames: int, size: int) -> Preprocess:
    """Frames stretched to the network's size, pixels in [0, 1]."""
    return Preprocess(frames=frames, size=size, stretch=True, colors=UNSCALED, mode="bilinear")


@BaselineConfig.register_subclass("trained")
@dataclass(frozen=True, kw_only=True)
class TrainedConfig(BaselineConfig):
    """An encoder folder of this package. `frames` is ignored: the folder says how many it reads."""

    encoder: Path  # run of `invact encoder train`, or an encoder folder
    batch_size: int = 64  # clips per forward pass

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        folder = subfolder_or_self(self.encoder, "encoder")
        model = InvActEncoder.from_pretrained(folder, device=device)
        prepare = _whole(model.config.frames, model.config.size)
        return prepare, lambda clips: model(clips.movedim(2, -1)).embedding


@BaselineConfig.register_subclass("lapa")
@dataclass(frozen=True, kw_only=True)
class LapaBaselineConfig(BaselineConfig):
    """LAPA's LAQ (arxiv.org/abs/2410.11758) on consecutive frames of a clip: the continuous code
    differences, before look-up."""

    laq: Path = Path("runs/laq")  # run of `invact latent train`, or a folder of published weights
    frames: int = 5  # frames per clip: one more than pairs
    pool: Pool = "mean"  # over pairs: mean | concat

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 2:
            raise ValueError(f"a pair needs two frames, got frames {self.frames}")

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        model = from_pretrained(laq_path(self.laq), device=device)

        def forward(clips: Tensor) -> Tensor:
            pairs = torch.stack([clips[:, :-1], clips[:, 1:]], dim=3)
            delta = model(rearrange(pairs, "b n c t h w -> (b n) c t h w")).quantized.delta
            return pool_frames(rearrange(delta, "(b n) k q -> b n (k q)", b=len(clips)), self.pool)

        return _whole(self.frames, model.config.image_size), forward
