"""SUM-L (semantic alignment of unpaired ego and exo video): a SlowFast ResNet-101.

Written after wqtwjt1996/SUM-L and SlowFast (arxiv.org/abs/1812.03982). The file holds an ego trunk,
its exo twin (`s1_t`, ...) and heads; inference uses the ego trunk. Clip vector: pooled slow and fast
features, 2048 + 256.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invact_vla.training.device import CPU
from latent_actions.retrieval.baselines.baseline import (
    KINETICS,
    BaselineConfig,
    Forward,
    KeyLayout,
    Preprocess,
    PublishedConfig,
)

ALPHA = 4  # frames of the fast pathway for each of the slow one
BETA = 8  # channels of the slow pathway for each of the fast one
_FUSED = 2  # channels that a fusion adds, over those of the fast pathway
_STAGES = (2, 3, 4, 5)


def _conv(inside: int, out: int, kernel: tuple[int, int, int], stride: int = 1) -> nn.Conv3d:
    """A convolution that keeps the number of frames."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(inside, out, kernel, (1, stride, stride), padding, bias=False)


class Stem(nn.Module):
    """First convolution and pooling of one pathway."""

    def __init__(self, out: int, taps: int) -> None:
        super().__init__()
        self.conv, self.bn = _conv(3, out, (taps, 7, 7), 2), nn.BatchNorm3d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(self.bn(self.conv(x)).relu(), (1, 3, 3), (1, 2, 2), (0, 1, 1))


class ResBlock(nn.Module):
    """A bottleneck (Tx1x1, 1x3x3, 1x1x1) with a skip, projected where sizes change."""

    def __init__(self, inside: int, out: int, taps: int, stride: int) -> None:
        super().__init__()
        if inside != out or stride != 1:
            self.branch1 = _conv(inside, out, (1, 1, 1), stride)
            self.branch1_bn = nn.BatchNorm3d(out)
        middle = out // 4
        self.branch2 = nn.ModuleDict(
            {
                "a": _conv(inside, middle, (taps, 1, 1)), "a_bn": nn.BatchNorm3d(middle),
                "b": _conv(middle, middle, (1, 3, 3), stride), "b_bn": nn.BatchNorm3d(middle),
                "c": _conv(middle, out, (1, 1, 1)), "c_bn": nn.BatchNorm3d(out),
            }
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        m = self.branch2
        mixed = m["b_bn"](m["b"](m["a_bn"](m["a"](x)).relu())).relu()
        skip = self.branch1_bn(self.branch1(x)) if hasattr(self, "branch1") else x
        return (skip + m["c_bn"](m["c"](mixed))).relu()


class Fuse(nn.Module):
    """Strided convolution from the fast to the slow pathway."""

    def __init__(self, fast: int, taps: int) -> None:
        super().__init__()
        out, sizes = fast * _FUSED, ((taps, 1, 1), (ALPHA, 1, 1), (taps // 2, 0, 0))
        self.conv_f2s = nn.Conv3d(fast, out, *sizes, bias=False)
        self.bn = nn.BatchNorm3d(out)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        return torch.cat([slow, self.bn(self.conv_f2s(fast)).relu()], dim=1)


class SlowFast(nn.Module):
    """SlowFast without its head.

    width: channels of the slow stem. blocks: of the four stages. temporal: blocks of each stage
    whose first kernel spans time. fusion: frames that a fusion kernel sees."""

    def __init__(
        self, width: int, blocks: tuple[int, ...], temporal: tuple[int, ...], fusion: int
    ) -> None:
        super().__init__()
        self.blocks = blocks
        stems = {"pathway0_stem": Stem(width, 1), "pathway1_stem": Stem(width // BETA, 5)}
        self.s1, self.s1_fuse = nn.ModuleDict(stems), Fuse(width // BETA, fusion)
        channels = width
        for stage, count, spanning in zip(_STAGES, blocks, temporal, strict=True):
            inside = [channels + channels * _FUSED // BETA, channels // BETA]
            channels = width * 2**stage
            out, taps = [channels, channels // BETA], (1 if stage < 4 else 3, 3)
            modules = nn.ModuleDict()
            for path in range(2):
                for i in range(count):
                    first = i == 0
                    modules[f"pathway{path}_res{i}"] = ResBlock(
                        inside[path] if first else out[path], out[path],
                        taps[path] if i < spanning else 1, 2 if first and stage > 2 else 1,
                    )  # fmt: skip
            self.add_module(f"s{stage}", modules)
            if stage != _STAGES[-1]:
                self.add_module(f"s{stage}_fuse", Fuse(channels // BETA, fusion))

    def forward(self, clips: Tensor) -> Tensor:
        """(B, T, 3, S, S), T a multiple of 4 -> (B, 32 width + 4 width)."""
        fast = clips.transpose(1, 2)
        # on the CPU in any case: which frames these are must not depend on a device's rounding
        frames = torch.linspace(0, fast.shape[2] - 1, fast.shape[2] // ALPHA, device="cpu").long()
        slow = self.s1["pathway0_stem"](fast[:, :, frames.to(fast.device)])
        fast = self.s1["pathway1_stem"](fast)
        slow = self.s1_fuse(slow, fast)
        for stage, count in zip(_STAGES, self.blocks, strict=True):
            for i in range(count):
                slow = self.get_submodule(f"s{stage}.pathway0_res{i}")(slow)
                fast = self.get_submodule(f"s{stage}.pathway1_res{i}")(fast)
            if stage != _STAGES[-1]:
                slow = self.get_submodule(f"s{stage}_fuse")(slow, fast)
        return torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4))], dim=-1)


@BaselineConfig.register_subclass("sum_l")
@dataclass(frozen=True, kw_only=True)
class SumlConfig(PublishedConfig):
    """SUM-L's ego trunk."""

    weights: Path  # .pyth of wqtwjt1996/SUM-L (no license file)
    width: int = 64  # channels of the slow stem
    blocks: tuple[int, ...] = (3, 4, 23, 3)  # blocks of each stage: ResNet-101
    temporal: tuple[int, ...] = (3, 4, 23, 3)  # those that span time (SUM-L: all)
    fusion: int = 5  # frames that a fusion kernel sees
    frames: int = 32  # frames per clip, a multiple of 4
    size: int = 256  # frame size (px)
    batch_size: int = 4  # clips per forward pass

    layout: ClassVar[KeyLayout] = KeyLayout(
        rename=(
            ("s1.s0_stem.", "s1.pathway0_stem."), ("s1.s1_stem.", "s1.pathway1_stem."), ("s", "s")
        ),
        unused=(r"s\d(_fuse)?_t\.", r"head", r"global_con_head\.", r"cls_loss"),
    )  # fmt: skip
    preprocess: ClassVar[dict[str, Any]] = {"colors": KINETICS, "mode": "bilinear"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames % ALPHA or self.width % BETA:
            raise ValueError(f"frames must be a multiple of {ALPHA}, width of {BETA}")

    def network(self) -> nn.Module:
        return SlowFast(self.width, self.blocks, self.temporal, self.fusion)

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        prepare, model = super().load(device)
        return prepare, lambda clips: model(clips.flip(2))  # its loader, OpenCV, has blue first
