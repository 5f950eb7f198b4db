"""AE2, ego-exo alignment in time (arxiv.org/abs/2306.05526): frame embeddings of a ResNet-50.

Written after zihuixue/AlignEgoExo. Two models share the trunk: `plain` embeds the pooled frame
pair, and the published `object` one joins it with hand and object regions in a transformer. No
detector runs here, so that one gets its token of the whole frame alone. Clip vector: mean of the
frame embeddings, 128.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from invact_vla.training.device import CPU
from latent_actions.retrieval.baselines.baseline import SIGNED, BaselineConfig, Forward, Preprocess
from latent_actions.retrieval.baselines.weights import KeyLayout, fit_weights, read_state

CONTEXT = 2  # frames that one embedding sees: an earlier one and itself
_HIDDEN = 256
_REGIONS = 4  # two hands, two objects
LAYOUTS = {
    "plain": KeyLayout(rename=(("model.", ""),)),
    "object": KeyLayout(
        rename=(("model.", ""),),
        unused=(r"model\.fc_layers\.", r"model\.proj_local\.", r"model\.pos_embed$"),
    ),
}


def _trunk() -> nn.Module:
    """ResNet-50 up to its third stage: (B, 3, S, S) -> (B, 1024, S/16, S/16)."""
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    trunk = nn.Sequential()
    for name in names:
        trunk.add_module(name, getattr(network, name))
    return trunk


class PairEmbedder(nn.Module):
    """A frame and its context frame to one feature of width 256."""

    def __init__(self) -> None:
        super().__init__()
        self.base_model = _trunk()
        self.conv_layers = nn.Sequential(
            nn.Conv3d(1024, _HIDDEN, 3, padding=1), nn.BatchNorm3d(_HIDDEN), nn.ReLU(),
            nn.Conv3d(_HIDDEN, _HIDDEN, 3, padding=1), nn.BatchNorm3d(_HIDDEN), nn.ReLU(),
        )  # fmt: skip

    def pooled(self, pairs: Tensor) -> Tensor:
        """(M, 2, 3, S, S) -> (M, 256)."""
        maps = self.base_model(rearrange(pairs, "m t c h w -> (m t) c h w"))
        # the published code reads the (time, channel) buffer as (channel, time): kept, its weights
        # were trained so
        maps = maps.reshape(len(pairs), -1, CONTEXT, *maps.shape[-2:])
        return self.conv_layers(maps).amax(dim=(2, 3, 4))


class PlainEmbedder(PairEmbedder):
    """The model without regions."""

    def __init__(self, embedding: int) -> None:
        super().__init__()
        dropout, linear = nn.Dropout(0.1), nn.Linear
        self.fc_layers = nn.Sequential(
            dropout, linear(_HIDDEN, _HIDDEN), nn.ReLU(),
            dropout, linear(_HIDDEN, _HIDDEN), nn.ReLU(),
        )  # fmt: skip
        self.embedding_layer = nn.Linear(_HIDDEN, embedding)

    def forward(self, pairs: Tensor) -> Tensor:
        """(M, 2, 3, S, S) -> (M, D)."""
        return self.embedding_layer(self.fc_layers(self.pooled(pairs)))


class ObjectEmbedder(PairEmbedder):
    """The published model, on its token of the whole frame."""

    def __init__(self, embedding: int, width: int = 128, layers: int = 3) -> None:
        super().__init__()
        self.proj_global = nn.Linear(_HIDDEN, width)
        self.token_embed = nn.Parameter(torch.zeros(1, _REGIONS + 1, width))
        self.transformer_encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(width, 4, batch_first=True),
            layers,
            enable_nested_tensor=False,
        )
        self.ln = nn.LayerNorm(width)
        self.embedding_layer = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, embedding))

    def forward(self, pairs: Tensor) -> Tensor:
        """(M, 2, 3, S, S) -> (M, D)."""
        token = self.proj_global(self.pooled(pairs)) + self.token_embed[0, -1]
        return self.embedding_layer(self.transformer_encoder(self.ln(token)[:, None])[:, 0])


@BaselineConfig.register_subclass("ae2")
@dataclass(frozen=True, kw_only=True)
class Ae2Config(BaselineConfig):
    """AE2's frame encoder."""

    weights: Path  # Lightning checkpoint of zihuixue/AlignEgoExo (four actions; MIT)
    model: Literal["plain", "object"] = "object"  # plain | object (the published checkpoints)
    embedding: int = 128  # width of a frame's vector
    size: int = 224  # side of the frames, pixels
    frames: int = 32  # frames read of a clip; the context of each is the one before it

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        kinds = {"plain": PlainEmbedder, "object": ObjectEmbedder}
        model = kinds[self.model](self.embedding)
        fit_weights(model, read_state(self.weights), LAYOUTS[self.model], self.weights, device)

        def forward(clips: Tensor) -> Tensor:
            before = torch.cat([clips[:, :1], clips[:, :-1]], dim=1)
            pairs = rearrange([before, clips], "x b t c h w -> (b t) x c h w")
            return model(pairs).unflatten(0, clips.shape[:2]).mean(dim=1)

        prepare = Preprocess(
            frames=self.frames, size=self.size, stretch=True, colors=SIGNED, mode="bilinear"
        )
        return prepare, forward
