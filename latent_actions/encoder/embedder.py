"""Frames to tubelet tokens, plus space and time positions.

B clips, T frames, H W pixels, N = (T/t) (H/p) (W/p) tokens ordered time, row, column, d width.
Two stems: `linear`, one map of cut tubelets (a 3-D convolution with stride = kernel, and the faster
of the two on a CPU), and `conv`, a few strided convolutions over the frames of a tubelet, which
learns much faster from few clips (early convolutions: Xiao et al. 2021, arxiv.org/abs/2106.14881).
Several streams meet as channels of one stem, or, with a stem each, in the sum of their tokens.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latent_actions.encoder.attention import TanhGELU
from latent_actions.encoder.inputs.features import FrozenFeatures
from latent_actions.encoder.inputs.streams import Streams

Stream = Literal["rgb", "diff", "steady", "flow", "features"]
Stem = Literal["linear", "conv"]
Fusion = Literal["channels", "sum", "gated"]
_GROUPS = 8  # of the normalizations between convolutions
_CHANNELS = "b (t a) h w c -> (b t) (a c) h w"  # a tubelet's frames and colors as channels


class TubeletEmbedder(nn.Module):
    """Tokens of all streams: those of the frames (streams.py) and frozen `features`.

    fusion: `channels` of one stem; or a stem per stream, whose tokens are summed (`sum`), or summed
    by weights that each token chooses (`gated`).
    """

    def __init__(
        self, *, width: int, frames: int, size: int, tubelet: int, patch: int,
        streams: tuple[Stream, ...], stem: Stem, fusion: Fusion = "channels", features: str = "",
    ) -> None:  # fmt: skip
        super().__init__()
        self.tubelet, self.patch, self.streams, self.fusion = tubelet, patch, streams, fusion
        self.grid = (frames // tubelet, size // patch, size // patch)
        self.features = FrozenFeatures(features) if "features" in streams else None
        if fusion == "channels":
            self.stem = _stem(stem, 3 * tubelet * len(streams), width, patch)
        else:
            kinds = {n: _stem(stem, 3 * tubelet, width, patch) for n in streams if n != "features"}
            if self.features is not None:
                kinds["features"] = nn.Linear(self.features.width, width)
            self.stems = nn.ModuleDict({name: kinds[name] for name in streams})
        if fusion == "gated":
            self.gate = nn.Linear(width, 1)
        self.space_embed = nn.Parameter(torch.empty(1, self.grid[1] * self.grid[2], width))
        self.time_embed = nn.Parameter(torch.empty(self.grid[0], 1, width))
        nn.init.trunc_normal_(self.space_embed, std=0.02)
        nn.init.trunc_normal_(self.time_embed, std=0.02)

    def forward(self, shown: Streams, streams: Sequence[str] = ()) -> Tensor:
        """Streams of B clips -> tokens (B, N, d). streams: in the place of its own, of as many channels,
        for fusion `channels`."""
        places = rearrange(self.time_embed + self.space_embed, "t s d -> (t s) d")
        if self.fusion == "channels":
            return self._cut(self.stem, [shown[name] for name in streams or self.streams]) + places
        tokens = torch.stack([self._stream_tokens(name, shown) for name in self.streams])
        if self.fusion == "gated":
            tokens = tokens * self.gate(tokens).softmax(dim=0)
        return tokens.sum(dim=0) + places

    def motion(self, shown: Streams, streams: Sequence[str] = ()) -> Tensor:
        """Mean |difference| of tubelets, standardized in the clip: (B, N)."""
        change = shown["steady" if "steady" in (streams or self.streams) else "diff"].detach()
        change = rearrange(change, _CHANNELS, a=self.tubelet).abs().mean(dim=1)
        energy = F.avg_pool2d(change.float(), self.patch).view(len(shown.pixels), -1)
        spread = energy.std(dim=1, keepdim=True) + 1e-6
        return (energy - energy.mean(dim=1, keepdim=True)) / spread

    def _stream_tokens(self, name: Stream, shown: Streams) -> Tensor:
        if name == "features" and self.features is not None:
            return self.stems[name](self.features(shown.pixels, self.grid))
        return self._cut(self.stems[name], [shown[name]])

    def _cut(self, stem: nn.Module, streams: list[Tensor]) -> Tensor:
        """Tokens of one stem over the channels of some streams: (B, N, d)."""
        streams = [_as_computed(s) for s in streams]
        if isinstance(stem, nn.Linear):
            pattern = "b (t a) (h p) (w q) c -> b (t h w) (a p q c)"
            sizes = {"a": self.tubelet, "p": self.patch, "q": self.patch}
            patches = [rearrange(s.contiguous(), pattern, **sizes) for s in streams]
            return stem(torch.cat(patches, dim=-1))
        channels = [rearrange(s, _CHANNELS, a=self.tubelet) for s in streams]
        maps = stem(torch.cat(channels, dim=1) if len(channels) > 1 else channels[0])
        return rearrange(maps, "(b t) d h w -> b (t h w) d", b=len(streams[0]))


def _as_computed(values: Tensor) -> Tensor:
    """In the number format of autocast where it is on: cheaper to move than fp32."""
    device = values.device.type
    enabled = torch.is_autocast_enabled(device)
    return values.to(torch.get_autocast_dtype(device)) if enabled else values


def _stem(kind: Stem, channels: int, width: int, patch: int) -> nn.Module:
    if kind == "conv":
        return _conv_stem(channels, width, patch)
    return nn.Linear(channels * patch * patch, width)


def _conv_stem(channels: int, width: int, patch: int) -> nn.Sequential:
    """3x3 convolutions of stride 2 down to the patch grid, widths doubling up to `width`."""
    halvings = int(math.log2(patch))
    layers: list[nn.Module] = []
    for left in range(halvings - 1, -1, -1):
        out = max(_GROUPS, width // 2**left // _GROUPS * _GROUPS) if left else width
        layers.append(nn.Conv2d(channels, out, 3, stride=2, padding=1))
        if left:
            layers += [nn.GroupNorm(_GROUPS, out), TanhGELU()]
        channels = out
    return nn.Sequential(*layers)
