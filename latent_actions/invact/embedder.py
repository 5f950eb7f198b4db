"""Frames to tubelet tokens, plus space and time positions.

B clips, T frames, H W pixels, N = (T/t) (H/p) (W/p) tokens ordered time, row, column, d width.
Two stems: `linear`, one map of cut tubelets (a 3-D convolution with stride = kernel, and the faster
of the two on a CPU), and `conv`, a few strided convolutions over the frames of a tubelet, which
learns much faster from few clips (early convolutions: Xiao et al. 2021, arxiv.org/abs/2106.14881).
"""

import math
from typing import Literal

import torch
from einops import rearrange, reduce
from torch import Tensor, nn

Stream = Literal["rgb", "diff"]
Stem = Literal["linear", "conv"]
STREAMS: tuple[Stream, ...] = ("rgb", "diff")
_SMALLEST_SPREAD = 0.01  # of full scale: what is stiller than this is not amplified to 1
_GROUPS = 8  # of the normalisations between convolutions


class TubeletEmbedder(nn.Module):
    """Tokens of all streams. Streams: `rgb` pixels and `diff`, the change to the next frame (the
    last pair repeated, so that both have T frames): the cheap stand-in for flow.
    """

    def __init__(
        self,
        *,
        width: int,
        frames: int,
        size: int,
        tubelet: int,
        patch: int,
        streams: tuple[Stream, ...],
        stem: Stem,
    ) -> None:
        super().__init__()
        self.tubelet, self.patch, self.streams = tubelet, patch, streams
        self.grid = (frames // tubelet, size // patch, size // patch)
        channels = 3 * tubelet * len(streams)
        if stem == "conv":
            self.stem = _conv_stem(channels, width, patch)
        else:
            self.stem = nn.Linear(channels * patch * patch, width)
        self.space_embed = nn.Parameter(torch.empty(1, self.grid[1] * self.grid[2], width))
        self.time_embed = nn.Parameter(torch.empty(self.grid[0], 1, width))
        nn.init.trunc_normal_(self.space_embed, std=0.02)
        nn.init.trunc_normal_(self.time_embed, std=0.02)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (B, T, H, W, 3) float in [0, 1] -> tokens (B, N, d)."""
        streams = [stream(pixels, name) for name in self.streams]
        if isinstance(self.stem, nn.Linear):
            tokens = self.stem(torch.cat([self._cut(values) for values in streams], dim=-1))
        else:
            pattern = "b (t a) h w c -> (b t) (a c) h w"
            pictures = [rearrange(values, pattern, a=self.tubelet) for values in streams]
            maps = self.stem(torch.cat(pictures, dim=1))
            tokens = rearrange(maps, "(b t) d h w -> b (t h w) d", b=len(pixels))
        places = rearrange(self.time_embed + self.space_embed, "t s d -> (t s) d")
        return tokens + places

    def motion(self, pixels: Tensor) -> Tensor:
        """Mean |difference| of tubelets, standardised in the clip: (B, T, H, W, 3) -> (B, N)."""
        pattern, sizes = "b (t a) (h p) (w q) c -> b (t h w)", {"a": self.tubelet, "p": self.patch}
        change = stream(pixels, "diff").abs()
        energy = reduce(change, pattern, "mean", q=self.patch, **sizes).float()
        spread = energy.std(dim=1, keepdim=True) + 1e-6
        return (energy - energy.mean(dim=1, keepdim=True)) / spread

    def _cut(self, pixels: Tensor) -> Tensor:
        pattern = "b (t a) (h p) (w q) c -> b (t h w) (a p q c)"
        return rearrange(pixels, pattern, a=self.tubelet, p=self.patch, q=self.patch)


def stream(pixels: Tensor, name: Stream) -> Tensor:
    """One input stream of a clip, (B, T, H, W, 3) in [0, 1] -> same shape, scaled by the clip itself.

    rgb: mean 0 and deviation 1 a clip and channel, so that light and tint drop out. diff: root mean
    square 1 a clip; a raw difference is a few percent of full scale and would be drowned by rgb.
    """
    if name == "rgb":
        mean = pixels.mean(dim=(1, 2, 3), keepdim=True)
        spread = pixels.std(dim=(1, 2, 3), keepdim=True)
        return (pixels - mean) / (spread + _SMALLEST_SPREAD)
    change = pixels[:, 1:] - pixels[:, :-1]
    size = change.square().mean(dim=(1, 2, 3, 4), keepdim=True).sqrt()
    return torch.cat([change, change[:, -1:]], dim=1) / (size + _SMALLEST_SPREAD)


def _conv_stem(channels: int, width: int, patch: int) -> nn.Sequential:
    """3x3 convolutions of stride 2 down to the patch grid, widths doubling up to `width`."""
    halvings = int(math.log2(patch))
    layers: list[nn.Module] = []
    for left in range(halvings - 1, -1, -1):
        out = max(_GROUPS, width // 2**left // _GROUPS * _GROUPS) if left else width
        layers.append(nn.Conv2d(channels, out, 3, stride=2, padding=1))
        if left:
            layers += [nn.GroupNorm(_GROUPS, out), nn.GELU(approximate="tanh")]
        channels = out
    return nn.Sequential(*layers)
