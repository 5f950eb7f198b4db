"""AE2, ego-exo alignment in time (arxiv.org/abs/2306.05526): frame embeddings of a ResNet-50.

Written after zihuixue/AlignEgoExo. Two models share the trunk: `plain` embeds the pooled frame
pair, and the published `object` one joins it with hand and object regions in a transformer. No
detector runs here, so that one gets its token of the whole frame alone. Clip vector: mean of the
frame embeddings, 128.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from latent_actions.retrieval.baselines.baseline import (
    SIGNED,
    BaselineConfig,
    KeyLayout,
    PublishedConfig,
)

CONTEXT = 2  # frames that one embedding sees: an earlier one and itself
_HIDDEN, _REGIONS = 256, 4  # width of the pooled pair; two hands, two objects


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
