"""BYOV, bootstrap your own views (arxiv.org/abs/2503.19706): CLIP patches that change, over time.

Written after park-jungin/byov, which publishes no weights: a file made by its training loads by its
key layout. Clip vector: mean of the frame embeddings, 256.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latent_actions.retrieval.baselines.baseline import (
    CLIP_COLORS,
    BaselineConfig,
    KeyLayout,
    PublishedConfig,
    per_frame,
)

KEPT_FRACTION = 0.3  # of the patches


def most_changing(tokens: Tensor, fraction: float) -> Tensor:
    """Mean of the patches that change most towards the next frame: (B, T, N, d) -> (B, T, d).

    fraction: part of the patches that is kept; the last frame is compared with the one before.
    """
    change = (tokens[:, :-1] - tokens[:, 1:]).abs().mean(dim=-1)
    change = torch.cat([change, change[:, -1:]], dim=1)
    chosen = change.topk(round(tokens.shape[2] * fraction), dim=-1).indices
    return tokens.gather(2, chosen[..., None].expand(-1, -1, -1, tokens.shape[-1])).mean(dim=2)


class FrameEncoder(nn.Module):
    """The trained part and the CLIP tower under it."""

    def __init__(self, clip: nn.Module, config: "ByovConfig") -> None:
        super().__init__()
        from timm.models.vision_transformer import Block

        self.clip = clip
        self.embedding_layer = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, config.embedding)
        )
        self.pos_embed = nn.Parameter(torch.zeros(1, config.positions, config.width))
        self.encoder = nn.Sequential(
            *(
                Block(config.embedding, config.heads, qkv_bias=True, norm_layer=nn.LayerNorm)
                for _ in range(config.layers)
            )
        )
        self.norm = nn.LayerNorm(config.embedding)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, 3, S, S) -> (B, D)."""
        tokens = per_frame(lambda images: self.clip(pixel_values=images).last_hidden_state, clips)
        x = most_changing(tokens[:, :, 1:], KEPT_FRACTION)
        positions = self.pos_embed
        if x.shape[1] != positions.shape[1]:
            lines = F.interpolate(positions.transpose(1, 2), x.shape[1], mode="linear")
            positions = lines.transpose(1, 2)
        return self.encoder(self.norm(self.embedding_layer(x + positions))).mean(dim=1)


@BaselineConfig.register_subclass("byov")
@dataclass(frozen=True, kw_only=True)
class ByovConfig(PublishedConfig):
    """BYOV with CLIP ViT-B/16."""

    weights: Path  # checkpoint of park-jungin/byov's training (none is published)
    width: int = 768  # of the CLIP tower
    clip_layers: int = 12  # blocks of the CLIP tower
    clip_heads: int = 12  # heads of the CLIP tower
    patch: int = 16  # patch size (px)
    positions: int = 32  # rows of the file's table of positions
    layers: int = 3  # blocks over time
    heads: int = 16  # their heads
    embedding: int = 256  # their width
    frames: int = 32  # frames per clip

    layout: ClassVar[KeyLayout] = KeyLayout(
        rename=(
            ("model.base_model.vision_model.", "clip."), ("model.base_model.", "clip."),
            ("encoder.", ""),
        ),
        unused=(r"decoder\.", r".*position_ids$"),
    )  # fmt: skip
    preprocess: ClassVar[dict[str, Any]] = {"stretch": True, "colors": CLIP_COLORS}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 2:
            raise ValueError(f"a change needs two frames, got frames {self.frames}")

    def network(self) -> nn.Module:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        tower = CLIPVisionConfig(
            hidden_size=self.width, intermediate_size=4 * self.width,
            num_hidden_layers=self.clip_layers, num_attention_heads=self.clip_heads,
            image_size=self.size, patch_size=self.patch,
        )  # fmt: skip
        return FrameEncoder(CLIPVisionModel(tower), self)
