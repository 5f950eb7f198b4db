"""LiFT, linearized feature trajectories: two latents over the DINOv2 class tokens of 16 frames.

Written after bpiyush/LiFT: its file holds the transformer (`model.encoder.*`, `model.decoder.*`);
the backbone is timm's vit_small_patch14_reg4_dinov2 and comes as a file of its own. Clip vector:
static and dynamic latent side by side, 768.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from invact_vla.training.device import CPU
from latent_actions.retrieval.baselines.baseline import (
    IMAGENET,
    BaselineConfig,
    Forward,
    KeyLayout,
    Preprocess,
    PublishedConfig,
    fit_weights,
    per_frame,
    read_state,
)
from latent_actions.retrieval.baselines.vit import VitShape, image_vit

HEADS, LAYERS = 8, 4


class Positions(nn.Module):
    """The table of sines that the file holds: added to the first T steps."""

    pe: Tensor

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.register_buffer("pe", torch.zeros(1, steps, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pe[:, : x.shape[1]]


class DualTransformer(nn.Module):
    """Two class tokens, one for what stays and one for what changes."""

    def __init__(self, features: int, width: int, steps: int) -> None:
        super().__init__()
        self.input_proj = nn.Linear(features, width)
        self.pos_encoder = Positions(steps, width)
        self.cls_static = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_dynamic = nn.Parameter(torch.zeros(1, 1, width))
        layer = nn.TransformerEncoderLayer(
            width, HEADS, 4 * width, batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.static_proj, self.dynamic_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.static_norm, self.dynamic_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, features: Tensor) -> Tensor:
        """Frame features (B, T, features) -> static and dynamic latent, (B, 2 width)."""
        x = self.pos_encoder(self.input_proj(features))
        tokens = [token.expand(len(x), -1, -1) for token in (self.cls_static, self.cls_dynamic)]
        x = self.transformer(torch.cat([*tokens, x], dim=1))
        static = self.static_norm(self.static_proj(x[:, 0]))
        return torch.cat([static, self.dynamic_norm(self.dynamic_proj(x[:, 1]))], dim=-1)


def dinov2_small_registers() -> VitShape:
    """timm's vit_small_patch14_reg4_dinov2."""
    return VitShape(
        width=384, heads=6, patch=14, grid=37, registers=4, class_position=False, layer_scale=True
    )


@BaselineConfig.register_subclass("lift")
@dataclass(frozen=True, kw_only=True)
class LiftConfig(PublishedConfig):
    """LiFT on DINOv2 ViT-S/14 with registers."""

    weights: Path  # LiFT's Lightning checkpoint (MIT)
    backbone_weights: Path  # model.safetensors of timm/vit_small_patch14_reg4_dinov2.lvd142m
    backbone: VitShape = field(default_factory=dinov2_small_registers)  # sizes of the backbone
    latent: int = 384  # width of each of the two latents
    steps: int = 5000  # rows of the file's table of positions
    frames: int = 16  # frames per clip

    layout: ClassVar[KeyLayout] = KeyLayout((("model.encoder.", ""),), (r"model\.decoder\.",))

    def network(self) -> nn.Module:
        return DualTransformer(self.backbone.width, self.latent, self.steps)

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        path = self.backbone_weights
        vit = fit_weights(image_vit(self.backbone), read_state(path), KeyLayout(), path, device)
        model = fit_weights(self.network(), self.state(), self.layout, self.weights, device)
        resize = round(self.size * 256 / 224)
        prepare = Preprocess(frames=self.frames, size=self.size, resize=resize, colors=IMAGENET)
        return prepare, lambda clips: model(per_frame(vit, clips))
