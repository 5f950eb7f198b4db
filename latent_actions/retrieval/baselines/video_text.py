"""EgoVLP, EgoVLPv2 and LaViLa: divided-attention video towers with published key layouts.

All three are the frozen-in-time video transformer and a projection into the space shared with text;
the text towers of the files are left out. Positions over time are resized linearly when the file
has another number of frames, as their own evaluation code does.
"""

import abc
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invact_vla.training.device import CPU
from latent_actions.retrieval.baselines.baseline import (
    IMAGENET,
    BaselineConfig,
    Color,
    Forward,
    KeyLayout,
    Preprocess,
    fit_weights,
    read_state,
)
from latent_actions.retrieval.baselines.vit import SpaceTimeTransformer, VitShape

# LaViLa's own numbers for its CLIP-started models (not CLIP's), over 255
LAVILA_COLORS: tuple[Color, Color] = (
    (108.3272985 / 255, 116.7460125 / 255, 104.09373615 / 255),
    (68.5005327 / 255, 66.6321579 / 255, 70.32316305 / 255),
)
_TEXT = (r"text_model\.", r"txt_proj\.", r"textual\.", r"text_projection", r"logit_scale$")


class VideoTower(nn.Module):
    """Trunk and projection: (B, F, 3, S, S) -> (B, D)."""

    def __init__(self, trunk: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.trunk, self.projection = trunk, projection

    def forward(self, clips: Tensor) -> Tensor:
        return self.projection(self.trunk(clips))


class Matrix(nn.Module):
    """A product with one matrix, kept as (in, out): LaViLa's and CLIP's projection."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(width, embedding))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


@dataclass(frozen=True, kw_only=True)
class VideoTextConfig(BaselineConfig):
    """What the three have in common."""

    weights: Path  # the published file
    trunk: VitShape = field(default_factory=VitShape)  # sizes of the video transformer
    embedding: int = 256  # width of the shared space
    frames: int = 4  # frames per clip

    layout: ClassVar[KeyLayout]
    colors: ClassVar[tuple[Color, Color]] = IMAGENET
    clip_start: ClassVar[bool] = False
    eps: ClassVar[float] = 1e-6  # of the layer norms

    @abc.abstractmethod
    def projection(self) -> nn.Module:
        """The map from the trunk's width to the shared space."""

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        state = read_state(self.weights)
        gated = any(name.endswith("alpha_timeattn") for name in state)
        trunk = SpaceTimeTransformer(self.trunk, self.frames, self.clip_start, gated, self.eps)
        model = VideoTower(trunk, self.projection())
        fit_weights(model, resize_time(state, self.frames), self.layout, self.weights, device)
        size = self.trunk.patch * self.trunk.grid
        prepare = Preprocess(frames=self.frames, size=size, colors=self.colors, mode="bilinear")
        return prepare, model


def resize_time(state: dict[str, Tensor], frames: int) -> dict[str, Tensor]:
    """The state with positions over time, (1, F', d), resized to (1, frames, d).

    More frames than wanted are cut off, fewer are interpolated with both ends kept, as published."""
    resized = dict(state)
    for name, table in state.items():
        if name.endswith("temporal_embed") and table.shape[1] > frames:
            resized[name] = table[:, :frames]
        elif name.endswith("temporal_embed") and table.shape[1] < frames:
            lines = table.float().transpose(1, 2)
            lines = F.interpolate(lines, frames, mode="linear", align_corners=True)
            resized[name] = lines.transpose(1, 2)
    return resized


@BaselineConfig.register_subclass("egovlp")
@dataclass(frozen=True, kw_only=True)
class EgoVlpConfig(VideoTextConfig):
    """EgoVLP (arxiv.org/abs/2206.01670): its own file, or the one converted by LaViLa."""

    layout: ClassVar[KeyLayout] = KeyLayout(
        rename=(
            ("video_model.", "trunk."), ("vid_proj.", "projection."), ("visual.", "trunk."),
            ("image_projection.", "projection."),
        ),
        unused=_TEXT,
    )  # fmt: skip

    def projection(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.trunk.width, self.embedding))


@BaselineConfig.register_subclass("egovlpv2")
@dataclass(frozen=True, kw_only=True)
class EgoVlpV2Config(VideoTextConfig):
    """EgoVLPv2 (arxiv.org/abs/2307.05463): the dual-encoder path; its fusion layers need a text."""

    embedding: int = 4096  # width of the shared space (the published default)

    eps: ClassVar[float] = 1e-5
    layout: ClassVar[KeyLayout] = KeyLayout(
        rename=(("video_model.", "trunk."), ("vid_proj.", "projection.")),
        unused=(
            *_TEXT,
            r"video_model\.blocks\.\d+\.attn\.(qkv_text_i2t|qkv_i2t|proj_i2t|alpha_i2t|norm_i2t_i)",
            r"cross_modal_", r"mlm_score\.", r"itm_score\.", r"cls_token$", r"norm\.",
        ),
    )  # fmt: skip

    def projection(self) -> nn.Module:
        d = self.embedding
        first = nn.Linear(self.trunk.width, d, bias=False)
        return nn.Sequential(first, nn.ReLU(), nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))


@BaselineConfig.register_subclass("lavila")
@dataclass(frozen=True, kw_only=True)
class LaVilaConfig(VideoTextConfig):
    """LaViLa's dual encoder (arxiv.org/abs/2212.04501), started from CLIP."""

    clip_start: ClassVar[bool] = True
    colors: ClassVar[tuple[Color, Color]] = LAVILA_COLORS
    layout: ClassVar[KeyLayout] = KeyLayout(
        rename=(("visual.", "trunk."), ("image_projection", "projection.matrix")),
        unused=(
            *_TEXT, r"transformer\.", r"token_embedding\.", r"positional_embedding$", r"ln_final\.",
        ),
    )  # fmt: skip

    def projection(self) -> nn.Module:
        return Matrix(self.trunk.width, self.embedding)
