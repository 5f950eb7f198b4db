"""LAPA's latent actions as a clip vector: the continuous code differences of a LAQ, before look-up."""

from dataclasses import dataclass
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor

from invact_vla.training.device import CPU
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


@BaselineConfig.register_subclass("lapa")
@dataclass(frozen=True, kw_only=True)
class LapaBaselineConfig(BaselineConfig):
    """LAPA's LAQ (arxiv.org/abs/2410.11758) on consecutive frames of a clip."""

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

        prepare = Preprocess(
            frames=self.frames, size=model.config.image_size, stretch=True, colors=UNSCALED,
            mode="bilinear",
        )  # fmt: skip
        return prepare, forward
