"""What a baseline is: a config that loads a network, and the one way from clips to vectors.

B clips, T frames, H W pixels, S size of the prepared frames, D width of a vector.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import draccus
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from invact_vla.training.device import CPU, Device, exact, resolve_device

Embed = Callable[[np.ndarray], np.ndarray]
Forward = Callable[[Tensor], Tensor]  # float (B, T, 3, S, S), normalized -> (B, D)
Pool = Literal["mean", "concat"]
Color = tuple[float, float, float]

IMAGENET: tuple[Color, Color] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
CLIP_COLORS: tuple[Color, Color] = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
KINETICS: tuple[Color, Color] = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
SIGNED: tuple[Color, Color] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # pixels in [-1, 1]
UNSCALED: tuple[Color, Color] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # pixels in [0, 1]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """From decoded clips to what a network was trained on.

    frames: T, evenly spaced, ends included; a clip with fewer has frames repeated. size: S. resize:
    short side before the center crop, 0 = `size`. stretch: both sides to `size`, no crop. colors:
    mean and standard deviation of [0, 1] pixels.
    """

    frames: int
    size: int
    colors: tuple[Color, Color]
    resize: int = 0
    stretch: bool = False
    mode: Literal["bicubic", "bilinear"] = "bicubic"

    def __call__(self, clips: np.ndarray) -> Tensor:
        """uint8 (B, T', H, W, 3) -> float (B, T, 3, S, S)."""
        picks = np.rint(np.linspace(0, clips.shape[1] - 1, self.frames)).astype(int)
        images = torch.from_numpy(np.ascontiguousarray(clips[:, picks]))
        images = self._fit(rearrange(images, "b t h w c -> (b t) c h w").float() / 255)
        mean, std = (torch.tensor(c)[:, None, None] for c in self.colors)
        return rearrange((images - mean) / std, "(b t) c h w -> b t c h w", b=len(clips))

    def _fit(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3, S, S), clipped again after bicubic overshoot."""
        height, width = images.shape[-2:]
        short = self.resize or self.size
        scale = short / min(height, width)
        wanted = (max(short, round(height * scale)), max(short, round(width * scale)))
        if self.stretch:
            wanted = (self.size, self.size)
        if wanted != (height, width):
            images = F.interpolate(images, wanted, mode=self.mode, antialias=True).clamp(0, 1)
        top, left = ((side - self.size) // 2 for side in images.shape[-2:])
        return images[:, :, top : top + self.size, left : left + self.size]


@dataclass(frozen=True, kw_only=True)
class BaselineConfig(draccus.ChoiceRegistry, abc.ABC):
    """Which published encoder, and where its weights are."""

    frames: int = 8  # frames per clip, evenly spaced; a clip with fewer repeats some
    batch_size: int = 8  # clips per forward pass

    def __post_init__(self) -> None:
        if self.frames < 1 or self.batch_size < 1:
            raise ValueError(
                f"frames and batch_size must be >= 1, got {self.frames} and {self.batch_size}"
            )

    @abc.abstractmethod
    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        """Read the weights; gives the preprocessing, which runs on the CPU, and the network in eval
        mode on `device`.

        A missing file, or one whose keys or shapes are not the published ones, is a UserError.
        """


def name_of(config: BaselineConfig) -> str:
    """The registry's name of a config: what a table calls the baseline."""
    return BaselineConfig.get_choice_name(type(config))


def weights_of(config: BaselineConfig) -> dict[str, Path]:
    """The files and folders that a baseline is read from, by field."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {name: v for name, v in values.items() if isinstance(v, Path) and v.exists()}


def load_baseline(config: BaselineConfig, device: Device = CPU) -> Embed:
    """Load a baseline: a function uint8 (N, T, H, W, 3) -> float32 (N, D) of unit length.

    The function raises ValueError for anything but a non-empty array of such clips. The batch size
    changes a vector by rounding only. device: as in training/device.py.
    """
    device = resolve_device(device)
    prepare, forward = config.load(device)

    @torch.no_grad()
    @exact()
    def embed(clips: np.ndarray) -> np.ndarray:
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[-1] != 3 or not len(clips):
            raise ValueError(
                f"expected uint8 clips (N, T, H, W, 3), N > 0, got {clips.dtype} {clips.shape}"
            )
        starts = range(0, len(clips), config.batch_size)
        batches = (prepare(clips[i : i + config.batch_size]).to(device) for i in starts)
        vectors = [forward(batch) for batch in batches]
        return F.normalize(torch.cat(vectors).float(), dim=-1).cpu().numpy()

    return embed


def pool_frames(vectors: Tensor, pool: Pool) -> Tensor:
    """One vector per clip: (B, T, D) -> (B, D) for mean, (B, T D) for concat."""
    return vectors.mean(dim=1) if pool == "mean" else vectors.flatten(1)


def per_frame(network: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    """Apply an image network to every frame: (B, T, 3, S, S) -> (B, T, ...)."""
    outputs = network(rearrange(clips, "b t c h w -> (b t) c h w"))
    return outputs.unflatten(0, (clips.shape[0], clips.shape[1]))
