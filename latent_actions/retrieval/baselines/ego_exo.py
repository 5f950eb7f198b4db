"""AE2 and BYOV: frame embeddings learned from ego and exo video, averaged over a clip.

AE2, ego-exo alignment in time (arxiv.org/abs/2306.05526): a ResNet-50, written after
zihuixue/AlignEgoExo. Two models share the trunk: `plain` embeds the pooled frame pair, and the published
`object` one joins it with hand and object regions in a transformer. No detector runs here, so that one
gets its token of the whole frame alone.

BYOV, bootstrap your own views (arxiv.org/abs/2503.19706): CLIP patches that change, over time. Written
after park-jungin/byov, which publishes no weights: a file made by its training loads by its key layout.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latent_actions.retrieval.baselines.baseline import (
    CLIP_COLORS,
    SIGNED,
    BaselineConfig,
    KeyLayout,
    PublishedConfig,
    per_frame,
)

CONTEXT = 2  # frames that one embedding sees: an earlier one and itself
_HIDDEN, _REGIONS = 256, 4  # width of the pooled pair; two hands, two objects
KEPT_FRACTION = 0.3  # of the patches


def _trunk() -> nn.Sequential:
    """ResNet-50 up to its third stage: (B, 3, S, S) -> (B, 1024, S/16, S/16)."""
    from torchvision.models import resnet50

    network, trunk = resnet50(weights=None), nn.Sequential()
    for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
        trunk.add_module(name, getattr(network, name))
    return trunk


class PlainEmbedder(nn.Module):
    """A frame and the one before it to a feature of width 256, and that to an embedding."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        self.base_model = _trunk()
        self.conv_layers = nn.Sequential(
            nn.Conv3d(1024, _HIDDEN, 3, padding=1), nn.BatchNorm3d(_HIDDEN), nn.ReLU(),
            nn.Conv3d(_HIDDEN, _HIDDEN, 3, padding=1), nn.BatchNorm3d(_HIDDEN), nn.ReLU(),
        )  # fmt: skip
        self.add_head(embedding)

    def add_head(self, embedding: int) -> None:
        """The modules over the pooled feature."""
        dropout, linear = nn.Dropout(0.1), nn.Linear
        self.fc_layers = nn.Sequential(
            dropout, linear(_HIDDEN, _HIDDEN), nn.ReLU(),
            dropout, linear(_HIDDEN, _HIDDEN), nn.ReLU(),
        )  # fmt: skip
        self.embedding_layer = nn.Linear(_HIDDEN, embedding)

    def head(self, pooled: Tensor) -> Tensor:
        """(M, 256) -> (M, D)."""
        return self.embedding_layer(self.fc_layers(pooled))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, 3, S, S) -> mean embedding of the frames, (B, D)."""
        before = torch.cat([clips[:, :1], clips[:, :-1]], dim=1)
        maps = self.base_model(rearrange([before, clips], "x b t c h w -> (b t x) c h w"))
        # the published code reads the (time, channel) buffer as (channel, time): kept, its weights
        # were trained so
        maps = maps.reshape(clips.shape[0] * clips.shape[1], -1, CONTEXT, *maps.shape[-2:])
        pooled = self.conv_layers(maps).amax(dim=(2, 3, 4))
        return self.head(pooled).unflatten(0, clips.shape[:2]).mean(dim=1)


class ObjectEmbedder(PlainEmbedder):
    """The published model, on its token of the whole frame."""

    def add_head(self, embedding: int) -> None:
        width, layers = 128, 3
        self.proj_global = nn.Linear(_HIDDEN, width)
        self.token_embed = nn.Parameter(torch.zeros(1, _REGIONS + 1, width))
        self.transformer_encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 4, batch_first=True), layers,
            enable_nested_tensor=False,
        )  # fmt: skip
        self.ln = nn.LayerNorm(width)
        self.embedding_layer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, embedding))

    def head(self, pooled: Tensor) -> Tensor:
        token = self.ln(self.proj_global(pooled) + self.token_embed[0, -1])
        return self.embedding_layer(self.transformer_encoder(token[:, None])[:, 0])


@BaselineConfig.register_subclass("ae2")
@dataclass(frozen=True, kw_only=True)
class Ae2Config(PublishedConfig):
    """AE2's frame encoder."""

    weights: Path  # Lightning checkpoint of zihuixue/AlignEgoExo (four actions; MIT)
    model: Literal["plain", "object"] = "object"  # plain | object (the published checkpoints)
    embedding: int = 128  # width of a frame's vector
    frames: int = 32  # frames per clip; the context of each is the one before it

    layout: ClassVar[KeyLayout] = KeyLayout(
        rename=(("model.", ""),),
        unused=(r"model\.proj_local\.", r"model\.pos_embed$"),
    )
    preprocess: ClassVar[dict[str, Any]] = {"stretch": True, "colors": SIGNED, "mode": "bilinear"}

    def network(self) -> nn.Module:
        return (PlainEmbedder if self.model == "plain" else ObjectEmbedder)(self.embedding)

    def state(self) -> dict[str, Tensor]:
        state = super().state()
        if self.model == "plain":
            return state
        # the published files keep the plain model's layers, which this one has no use for
        return {name: value for name, value in state.items() if ".fc_layers." not in name}


def most_changing(tokens: Tensor, fraction: float) -> Tensor:
    """Mean of the patches that change most towards the next frame: (B, T, N, d) -> (B, T, d).

    fraction: part of the patches that is kept; the last frame is compared with the one before."""
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
