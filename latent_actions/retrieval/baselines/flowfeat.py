"""FlowFeat (Araslanov et al.): a DPT decoder on DINO or DINOv2, per-pixel motion-profile features.

Written after tum-vision/flowfeat, whose files hold `encoder.*` (the ViT's own names) and
`decoder.*`. Clip vector: the decoder's features averaged over a frame's pixels, then pooled over
frames; how the InvAct page pooled them is not known.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from invact_vla.training.device import CPU
from latent_actions.retrieval.baselines.baseline import (
    IMAGENET,
    BaselineConfig,
    Forward,
    Pool,
    Preprocess,
    per_frame,
    pool_frames,
)
from latent_actions.retrieval.baselines.vit import VisionTransformer, VitShape
from latent_actions.retrieval.baselines.weights import KeyLayout, fit_weights, read_state

FEATURES = 128  # channels of the decoder and of its output
LAYOUT = KeyLayout(
    rename=(("encoder.", "encoder."), ("decoder.", "decoder.")), unused=(r"encoder\.mask_token$",)
)


def _conv(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1)


class Residual(nn.Module):
    """Two convolutions; the first ReLU works in place, so the skip is rectified too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(FEATURES), _conv(FEATURES)

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
        x = level if coarse is None else coarse + self.resConfUnit1(level)
        return F.interpolate(
            self.resConfUnit2(x), scale_factor=2, mode="bilinear", align_corners=True
        )


class Level(nn.Module):
    """Tokens of one block to a map at 4x, 2x, 1x or 1/2x of the patch grid."""

    def __init__(self, width: int, resize: nn.Module | None) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(width, width, 1)]
        self.post = nn.Sequential(*layers, *([resize] if resize is not None else []))

    def forward(self, tokens: Tensor, rows: int) -> Tensor:
        return self.post(rearrange(tokens[:, 1:], "b (h w) d -> b d h w", h=rows))


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(FEATURES, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.movedim(1, -1)).movedim(-1, 1)


class Decoder(nn.Module):
    """DPT (arxiv.org/abs/2103.13413): four levels of a ViT to a map of the image's size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.act_postprocess1 = Level(width, nn.ConvTranspose2d(width, width, 4, 4))
        self.act_postprocess2 = Level(width, nn.ConvTranspose2d(width, width, 2, 2))
        self.act_postprocess3 = Level(width, None)
        self.act_postprocess4 = Level(width, nn.Conv2d(width, width, 3, 2, 1))
        self.scratch = nn.ModuleDict(
            {f"layer{i}_rn": nn.Conv2d(width, FEATURES, 3, padding=1, bias=False) for i in _LEVELS}
            | {f"refinenet{i}": Fusion() for i in _LEVELS}
            | {"output_conv0": _conv(FEATURES)}
            | {
                "output_conv1": nn.Sequential(
                    _conv(FEATURES), nn.ReLU(), nn.Conv2d(FEATURES, FEATURES, 1)
                )
            }
        )
        self.norm = ChannelNorm()

    def forward(self, levels: list[Tensor], rows: int, size: tuple[int, int]) -> Tensor:
        """Four (B, 1 + N, d), fine to coarse -> (B, 128, H, W)."""
        x = None
        for i in reversed(_LEVELS):
            level = getattr(self, f"act_postprocess{i}")(levels[i - 1], rows)
            x = self.scratch[f"refinenet{i}"](x, self.scratch[f"layer{i}_rn"](level))
        x = F.interpolate(self.scratch["output_conv0"](x), size, mode="bilinear")
        return self.norm(self.scratch["output_conv1"](x))


_LEVELS = (1, 2, 3, 4)


class FlowFeat(nn.Module):
    """Image -> per-pixel features."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.encoder = VisionTransformer(shape)
        self.decoder = Decoder(shape.width)
        self.taps = [shape.depth // 4 * i - 1 for i in _LEVELS]

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 128, H, W)."""
        size = (images.shape[-2], images.shape[-1])
        levels = self.encoder(images, self.taps)[1]
        return self.decoder(levels, size[0] // self.encoder.shape.patch, size)


def dinov2_small() -> VitShape:
    """DINOv2 ViT-S/14 as its own repository has it: positions of 518 px, a gain on each branch."""
    return VitShape(width=384, heads=6, patch=14, grid=37, layer_scale=True, antialias=False)


@BaselineConfig.register_subclass("flowfeat")
@dataclass(frozen=True, kw_only=True)
class FlowFeatConfig(BaselineConfig):
    """FlowFeat on DINOv2 ViT-S/14; other backbones by their sizes."""

    weights: Path  # dino2_s14_flowfeat_yt.pth of cvg.cit.tum.de, or its like (Apache-2.0)
    backbone: VitShape = field(default_factory=dinov2_small)  # dino_vits16: see docs/baselines.md
    size: int = 224  # side of the frames, pixels; a multiple of the patch
    pool: Pool = "mean"  # over frames: mean | concat

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % (2 * self.backbone.patch) or self.backbone.depth % 4:
            raise ValueError("size must be an even number of patches, depth a multiple of 4")

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        model = FlowFeat(self.backbone)
        fit_weights(model, read_state(self.weights), LAYOUT, self.weights, device)

        def forward(clips: Tensor) -> Tensor:
            means = per_frame(lambda images: model(images).mean(dim=(-2, -1)), clips)
            return pool_frames(means, self.pool)

        return Preprocess(frames=self.frames, size=self.size, colors=IMAGENET), forward
