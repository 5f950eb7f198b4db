"""FlowFeat and LiFT: what other people put on frozen DINO and DINOv2 backbones.

FlowFeat (Araslanov et al.): a DPT decoder, per-pixel motion-profile features. Written after
tum-vision/flowfeat, whose files hold `encoder.*` (the ViT's own names) and `decoder.*`. Clip vector: the
decoder's features averaged over a frame's pixels, then pooled over frames; how the InvAct page pooled
them is not known.

LiFT, linearized feature trajectories: two latents over the DINOv2 class tokens of 16 frames. Written
after bpiyush/LiFT: its file holds the transformer (`model.encoder.*`, `model.decoder.*`); its backbone,
timm's vit_small_patch14_reg4_dinov2, comes as a file of its own. Clip vector: static and dynamic
latent side by side, 768.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from invact_vla.training.device import CPU
from latent_actions.retrieval.baselines.baseline import (
    IMAGENET,
    BaselineConfig,
    Forward,
    KeyLayout,
    Pool,
    Preprocess,
    PublishedConfig,
    fit_weights,
    per_frame,
    pool_frames,
    read_state,
)
from latent_actions.retrieval.baselines.vit import VitShape, image_vit, resize_as_dino

FEATURES = 128  # channels of the decoder and of its output
_LEVELS = (1, 2, 3, 4)
HEADS, LAYERS = 8, 4


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
        kind = nn.TransformerEncoderLayer
        layer = kind(width, HEADS, 4 * width, batch_first=True, norm_first=True)
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
    return replace(dinov2_small(), registers=4, class_position=False)


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
