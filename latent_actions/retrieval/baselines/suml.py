"""SUM-L (semantic alignment of unpaired ego and exo video): a SlowFast ResNet-101.

Written after wqtwjt1996/SUM-L and SlowFast (arxiv.org/abs/1812.03982). The file holds an ego trunk,
its exo twin (`s1_t`, ...) and heads; inference uses the ego trunk. Clip vector: pooled slow and fast
features, 2048 + 256.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invact_vla.training.device import CPU
from latent_actions.retrieval.baselines.baseline import (
    KINETICS,
    BaselineConfig,
    Forward,
    Preprocess,
)
from latent_actions.retrieval.baselines.weights import KeyLayout, fit_weights, read_state

ALPHA = 4  # frames of the fast pathway for each of the slow one
BETA = 8  # channels of the slow pathway for each of the fast one
_FUSED = 2  # channels that a fusion adds, over those of the fast pathway
_STAGES = (2, 3, 4, 5)
LAYOUT = KeyLayout(
    rename=(("s1.s0_stem.", "s1.pathway0_stem."), ("s1.s1_stem.", "s1.pathway1_stem."), ("s", "s")),
    unused=(r"s\d(_fuse)?_t\.", r"head", r"global_con_head\.", r"cls_loss"),
)


def _conv(inside: int, out: int, kernel: tuple[int, int, int], stride: int = 1) -> nn.Conv3d:
    """A convolution that keeps the number of frames."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(inside, out, kernel, (1, stride, stride), padding, bias=False)


class Stem(nn.Module):
    """First convolution and pooling of one pathway."""

    def __init__(self, out: int, taps: int) -> None:
        super().__init__()
        self.conv = _conv(3, out, (taps, 7, 7), 2)
        self.bn = nn.BatchNorm3d(out)

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(self.bn(self.conv(x)).relu(), (1, 3, 3), (1, 2, 2), (0, 1, 1))


class Bottleneck(nn.Module):
    """Tx1x1, 1x3x3, 1x1x1."""

    def __init__(self, inside: int, out: int, taps: int, stride: int) -> None:
        super().__init__()
        middle = out // 4
        self.a, self.a_bn = _conv(inside, middle, (taps, 1, 1)), nn.BatchNorm3d(middle)
        self.b, self.b_bn = _conv(middle, middle, (1, 3, 3), stride), nn.BatchNorm3d(middle)
        self.c, self.c_bn = _conv(middle, out, (1, 1, 1)), nn.BatchNorm3d(out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b_bn(self.b(self.a_bn(self.a(x)).relu())).relu()
        return self.c_bn(self.c(x))


class ResBlock(nn.Module):
    """Bottleneck with a skip, projected where sizes change."""

    def __init__(self, inside: int, out: int, taps: int, stride: int) -> None:
        super().__init__()
        self.is_projected = inside != out or stride != 1
        if self.is_projected:
            self.branch1 = _conv(inside, out, (1, 1, 1), stride)
            self.branch1_bn = nn.BatchNorm3d(out)
        self.branch2 = Bottleneck(inside, out, taps, stride)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.branch1_bn(self.branch1(x)) if self.is_projected else x
        return (skip + self.branch2(x)).relu()


class Stage(nn.Module):
    """`blocks` residual blocks in each pathway; the first `temporal` see several frames."""

    def __init__(
        self, inside: list[int], out: list[int], taps: tuple[int, int], stride: int, blocks: int,
        temporal: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.blocks = blocks
        for path in range(2):
            for i in range(blocks):
                first = inside[path] if i == 0 else out[path]
                kernel = taps[path] if i < temporal else 1
                block = ResBlock(first, out[path], kernel, stride if i == 0 else 1)
                self.add_module(f"pathway{path}_res{i}", block)

    def forward(self, slow: Tensor, fast: Tensor) -> tuple[Tensor, Tensor]:
        for i in range(self.blocks):
            slow = self.get_submodule(f"pathway0_res{i}")(slow)
            fast = self.get_submodule(f"pathway1_res{i}")(fast)
        return slow, fast


class Fuse(nn.Module):
    """Strided convolution from the fast to the slow pathway."""

    def __init__(self, fast: int, taps: int) -> None:
        super().__init__()
        self.conv_f2s = nn.Conv3d(
            fast, fast * _FUSED, (taps, 1, 1), (ALPHA, 1, 1), (taps // 2, 0, 0), bias=False
        )
        self.bn = nn.BatchNorm3d(fast * _FUSED)

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        return torch.cat([slow, self.bn(self.conv_f2s(fast)).relu()], dim=1)


class SlowFast(nn.Module):
    """SlowFast without its head.

    width: channels of the slow stem. blocks: of the four stages. temporal: blocks of each stage
    whose first kernel spans time. fusion: frames that a fusion kernel sees.
    """

    def __init__(
        self, width: int, blocks: tuple[int, ...], temporal: tuple[int, ...], fusion: int
    ) -> None:
        super().__init__()
        self.s1 = nn.ModuleDict(
            {"pathway0_stem": Stem(width, 1), "pathway1_stem": Stem(width // BETA, 5)}
        )
        self.s1_fuse = Fuse(width // BETA, fusion)
        channels = width
        for stage, count, spanning in zip(_STAGES, blocks, temporal, strict=True):
            inside = [channels + channels * _FUSED // BETA, channels // BETA]
            channels = width * 2**stage
            taps = (1, 3) if stage < 4 else (3, 3)
            stride = 1 if stage == _STAGES[0] else 2
            out = [channels, channels // BETA]
            self.add_module(f"s{stage}", Stage(inside, out, taps, stride, count, spanning))
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
        for stage in _STAGES:
            slow, fast = self.get_submodule(f"s{stage}")(slow, fast)
            if stage != _STAGES[-1]:
                slow = self.get_submodule(f"s{stage}_fuse")(slow, fast)
        return torch.cat([slow.mean(dim=(2, 3, 4)), fast.mean(dim=(2, 3, 4))], dim=-1)


@BaselineConfig.register_subclass("sum_l")
@dataclass(frozen=True, kw_only=True)
class SumlConfig(BaselineConfig):
    """SUM-L's ego trunk."""

    weights: Path  # .pyth of wqtwjt1996/SUM-L (no license file)
    width: int = 64  # channels of the slow stem
    blocks: tuple[int, ...] = (3, 4, 23, 3)  # blocks of each stage: ResNet-101
    temporal: tuple[int, ...] = (3, 4, 23, 3)  # those that span time (SUM-L: all)
    fusion: int = 5  # frames that a fusion kernel sees
    frames: int = 32  # frames read of a clip; a multiple of 4
    size: int = 256  # side of the frames, pixels
    batch_size: int = 4  # clips per forward pass

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.frames % ALPHA or self.width % BETA:
            raise ValueError(f"frames must be a multiple of {ALPHA}, width of {BETA}")

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        model = SlowFast(self.width, self.blocks, self.temporal, self.fusion)
        fit_weights(model, read_state(self.weights), LAYOUT, self.weights, device)
        prepare = Preprocess(frames=self.frames, size=self.size, colors=KINETICS, mode="bilinear")

        def forward(clips: Tensor) -> Tensor:
            return model(clips.flip(2))  # its loader decodes with OpenCV: blue first

        return prepare, forward
