"""BYOV, bootstrap your own views (arxiv.org/abs/2503.19706): CLIP patches that change, over time.

Written after park-jungin/byov, which publishes no weights: a file made by its training loads by its
key layout. Clip vector: mean of the frame embeddings, 256.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invact_vla.training.device import CPU
from latent_actions.retrieval.baselines.baseline import (
    CLIP_COLOURS,
    BaselineConfig,
    Forward,
    Preprocess,
    per_frame,
)
from latent_actions.retrieval.baselines.vit import Block
from latent_actions.retrieval.baselines.weights import KeyLayout, fit_weights, read_state

LAYOUT = KeyLayout(
    rename=(
        ("model.base_model.vision_model.", "clip."),
        ("model.base_model.", "clip."),
        ("encoder.", ""),
    ),
    unused=(r"decoder\.", r".*position_ids$"),
)


def most_changing(tokens: Tensor, share: float) -> Tensor:
    """Mean of the patches that change most towards the next frame: (B, T, N, d) -> (B, T, d).

    share: part of the patches that is kept; the last frame is compared with the one before.
    """
    change = (tokens[:, :-1] - tokens[:, 1:]).abs().mean(dim=-1)
    change = torch.cat([change, change[:, -1:]], dim=1)
    chosen = change.topk(round(tokens.shape[2] * share), dim=-1).indices
    return tokens.gather(2, chosen[..., None].expand(-1, -1, -1, tokens.shape[-1])).mean(dim=2)


class FrameEncoder(nn.Module):
    """The trained part and the CLIP tower under it."""

    def __init__(self, clip: nn.Module, config: "ByovConfig") -> None:
        super().__init__()
        self.clip, self.share = clip, config.share
        self.embedding_layer = nn.Sequential(
            nn.LayerNorm(config.width), nn.Linear(config.width, config.embedding)
        )
        self.pos_embed = nn.Parameter(torch.zeros(1, config.positions, config.width))
        self.encoder = nn.ModuleList(
            Block(config.embedding, config.heads, 1e-5) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(config.embedding)

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, 3, S, S) -> (B, D)."""
        tokens = per_frame(lambda images: self.clip(pixel_values=images).last_hidden_state, clips)
        x = most_changing(tokens[:, :, 1:], self.share)
        positions = self.pos_embed
        if x.shape[1] != positions.shape[1]:
            lines = F.interpolate(positions.transpose(1, 2), x.shape[1], mode="linear")
            positions = lines.transpose(1, 2)
        x = self.norm(self.embedding_layer(x + positions))
        for block in self.encoder:
            x = block(x)
        return x.mean(dim=1)


@BaselineConfig.register_subclass("byov")
@dataclass(frozen=True, kw_only=True)
class ByovConfig(BaselineConfig):
    """BYOV with CLIP ViT-B/16."""

    weights: Path  # checkpoint of park-jungin/byov's training (none is published)
    width: int = 768  # of the CLIP tower
    clip_layers: int = 12  # blocks of the CLIP tower
    clip_heads: int = 12  # heads of the CLIP tower
    patch: int = 16  # pixels of a token's side
    size: int = 224  # side of the frames, pixels
    positions: int = 32  # rows of the file's table of positions
    layers: int = 3  # blocks over time
    heads: int = 16  # their heads
    embedding: int = 256  # their width
    share: float = 0.3  # part of the patches that is kept
    frames: int = 32  # frames read of a clip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames < 2 or not 0 < self.share <= 1:
            raise ValueError(f"frames >= 2 and share in (0, 1], got {self.frames}, {self.share}")

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        tower = CLIPVisionConfig(
            hidden_size=self.width,
            intermediate_size=4 * self.width,
            num_hidden_layers=self.clip_layers,
            num_attention_heads=self.clip_heads,
            image_size=self.size,
            patch_size=self.patch,
        )
        model = FrameEncoder(CLIPVisionModel(tower), self)
        fit_weights(model, read_state(self.weights), LAYOUT, self.weights, device)
        prepare = Preprocess(frames=self.frames, size=self.size, stretch=True, colors=CLIP_COLOURS)
        return prepare, model
