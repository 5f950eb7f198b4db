"""FlowFeat (Araslanov et al.): a DPT decoder on DINO or DINOv2, per-pixel motion-profile features.

Written after tum-vision/flowfeat, whose files hold `encoder.*` (the ViT's own names) and
`decoder.*`. Clip vector: the decoder's features averaged over a frame's pixels, then pooled over
frames; how the InvAct page pooled them is not known.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latent_actions.retrieval.baselines.baseline import (
    IMAGENET,
    BaselineConfig,
    KeyLayout,
    Pool,
    PublishedConfig,
    per_frame,
    pool_frames,
)
from latent_actions.retrieval.baselines.vit import VitShape, image_vit, resize_as_dino

FEATURES = 128  # channels of the decoder and of its output
_LEVELS = (1, 2, 3, 4)


def _conv(channels: int = FEATURES, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, FEATURES, 3, padding=1, bias=bias)


class Residual(nn.Module):
    """Two convolutions; the first ReLU works in place, so the skip is rectified too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(), _conv()

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return x + self.conv2(self.conv1(x).relu())


class Fusion(nn.Module):
    """Adds a finer level and doubles the size."""

    def __init__(self) -> None:
        super().__init__()
        self.resConfUnit1, self.resConfUnit2 = Residual(), Residual()

    def forward(self, coarse: Tensor | None, level: Tensor) -> Tensor:
        """coarse: None at the top, where the level itself is refined."""
        x = self.resConfUnit2(level if coarse is None else coarse + self.resConfUnit1(level))
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(FEATURES, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class DptDecoder(nn.Module):
    """DPT (arxiv.org/abs/2103.13413): four levels of a ViT to a map of the image's size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # to maps at 4x, 2x, 1x and 1/2x of the patch grid
        resizes: list[list[nn.Module]] = [
            [nn.ConvTranspose2d(width, width, 4, 4)], [nn.ConvTranspose2d(width, width, 2, 2)], [],
            [nn.Conv2d(width, width, 3, 2, 1)],
        ]  # fmt: skip
        for i, resize in zip(_LEVELS, resizes, strict=True):
            post = nn.Sequential(nn.Conv2d(width, width, 1), *resize)
            self.add_module(f"act_postprocess{i}", nn.ModuleDict({"post": post}))
        last = nn.Sequential(_conv(), nn.ReLU(), nn.Conv2d(FEATURES, FEATURES, 1))
        self.scratch = nn.ModuleDict(
            {f"layer{i}_rn": _conv(width, bias=False) for i in _LEVELS}
            | {f"refinenet{i}": Fusion() for i in _LEVELS}
            | {"output_conv0": _conv(), "output_conv1": last}
        )
        self.norm = ChannelNorm()

    def forward(self, levels: list[Tensor], rows: int, size: tuple[int, int]) -> Tensor:
        """Four (B, N, d), fine to coarse -> (B, 128, H, W)."""
        x = None
        for i in reversed(_LEVELS):
            tokens = rearrange(levels[i - 1], "b (h w) d -> b d h w", h=rows)
            level = self.get_submodule(f"act_postprocess{i}.post")(tokens)
            x = self.scratch[f"refinenet{i}"](x, self.scratch[f"layer{i}_rn"](level))
        x = F.interpolate(self.scratch["output_conv0"](x), size, mode="bilinear")
        return self.norm(self.scratch["output_conv1"](x))


class FlowFeat(nn.Module):
    """Clips of frames of `size` pixels -> per-pixel features, averaged."""

    def __init__(self, shape: VitShape, size: int, pool: Pool) -> None:
        super().__init__()
        self.encoder = image_vit(shape, size)
        self.decoder = DptDecoder(shape.width)
        self.taps = [shape.depth // 4 * i - 1 for i in _LEVELS]
        self.rows, self.size = size // shape.patch, (size, size)
        self.pool: Pool = pool

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, 3, S, S) -> (B, 128), or (B, 128 T) with pool concat."""
        return pool_frames(per_frame(self._means, clips), self.pool)

    def _means(self, images: Tensor) -> Tensor:
        levels = self.encoder.forward_intermediates(
            images, self.taps, output_fmt="NLC", intermediates_only=True
        )
        return self.decoder(levels, self.rows, self.size).mean(dim=(-2, -1))


def dinov2_small() -> VitShape:
    """DINOv2 ViT-S/14 as its own repository has it: positions of 518 px, a gain on each branch."""
    return VitShape(width=384, heads=6, patch=14, grid=37, layer_scale=True)


@BaselineConfig.register_subclass("flowfeat")
@dataclass(frozen=True, kw_only=True)
class FlowFeatConfig(PublishedConfig):
    """FlowFeat on DINOv2 ViT-S/14; other backbones by their sizes."""

    weights: Path  # dino2_s14_flowfeat_yt.pth of cvg.cit.tum.de, or its like (Apache-2.0)
    backbone: VitShape = field(default_factory=dinov2_small)  # dino_vits16: see docs/baselines.md
    size: int = 224  # frame size (px), a multiple of the patch
    pool: Pool = "mean"  # over frames: mean | concat

    layout: ClassVar[KeyLayout] = KeyLayout(unused=(r"encoder\.mask_token$",))
    preprocess: ClassVar[dict[str, Any]] = {"colors": IMAGENET}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % (2 * self.backbone.patch) or self.backbone.depth % 4:
            raise ValueError("size must be an even number of patches, depth a multiple of 4")

    def network(self) -> nn.Module:
        return FlowFeat(self.backbone, self.size, self.pool)

    def state(self) -> dict[str, Tensor]:
        state, name = super().state(), "encoder.pos_embed"
        if name in state:
            state[name] = resize_as_dino(state[name], self.backbone, self.size)
        return state
