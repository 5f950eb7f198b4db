"""Frozen features of frames: what labelers compare that learn no pixels.

    vit      patch tokens of an image model of transformers (DINOv2, DINOv3, CLIP's tower, ViT)
    vjepa    tokens of V-JEPA 2, each frame shown as a still clip of one tubelet
    random   a fixed random network of two layers: what structure alone gives

All give the same: frames uint8 (B, T, H, W, 3) -> float (B, T, side * side, D), in row-major order.
"""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json, hash_tree
from invact_vla.training.device import CPU, exact
from latent_actions.encoder.inputs.features import FrozenFeatures
from latent_actions.published_model import published_model

BATCH = 32  # pairs per forward pass


@dataclass(frozen=True)
class Features:
    """A feature extractor. width: D; side: patches along a side; hash: names its weights."""

    width: int
    side: int
    hash: str
    forward: Callable[[Tensor], Tensor]  # (B, T, H, W, 3) in [0, 1] -> (B, T, side * side, D)
    device: torch.device = CPU

    @torch.no_grad()
    @exact()
    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """uint8 (B, T, H, W, 3) -> float32 (B, T, side * side, D)."""
        found = [np.zeros((0, frames.shape[1], self.side**2, self.width), np.float32)]
        for start in range(0, len(frames), BATCH):
            pixels = torch.from_numpy(frames[start : start + BATCH]).to(self.device) / 255.0
            found.append(self.forward(pixels).float().cpu().numpy())
        return np.concatenate(found)


@dataclass(frozen=True, kw_only=True)
class FeatureConfig(draccus.ChoiceRegistry, abc.ABC):
    """Which features, averaged onto `side` x `side` places of a frame."""

    side: int = 4  # patches along a side of the grid that features are averaged onto

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"side must be at least 1, got {self.side}")

    @classmethod
    def default_choice_name(cls) -> str:
        """The member meant when a config names none."""
        return "random"

    @abc.abstractmethod
    def build(self, device: torch.device = CPU) -> Features:
        """The extractor, on `device`."""

    def parents(self) -> dict[str, Path]:
        """Folders whose content decides the features."""
        return {}


@FeatureConfig.register_subclass("vit")
@dataclass(frozen=True, kw_only=True)
class VitFeatureConfig(FeatureConfig):
    """Patch tokens of an image model, after its last norm."""

    folder: Path = Path("models/dinov2-base")  # folder of transformers' layout with safetensors
    size: int | None = None  # side that frames are resized to, pixels; none: the model's own

    def build(self, device: torch.device = CPU) -> Features:
        frozen = FrozenFeatures(str(self.folder))
        size = self.size or frozen.size
        if size % frozen.patch:
            raise UserError(f"features.size {size} is no multiple of patches of {frozen.patch}")
        frozen.size = size

        def forward(pixels: Tensor) -> Tensor:
            tokens = frozen(pixels, (pixels.shape[1], self.side, self.side))
            return rearrange(tokens, "b (t n) d -> b t n d", t=pixels.shape[1])

        name = hash_json([hash_tree(self.folder), size, self.side])
        return Features(frozen.width, self.side, name, forward, device)

    def parents(self) -> dict[str, Path]:
        return {"features": self.folder}


@FeatureConfig.register_subclass("vjepa")
@dataclass(frozen=True, kw_only=True)
class VjepaFeatureConfig(FeatureConfig):
    """V-JEPA 2 (arxiv.org/abs/2506.09985) on still clips."""

    folder: Path = Path("models/vjepa2-vitl-fpc64-256")  # folder of transformers' layout

    def build(self, device: torch.device = CPU) -> Features:
        from transformers import VJEPA2Model

        model = published_model(VJEPA2Model, str(self.folder), device)
        size, patch = model.config.crop_size, model.config.patch_size

        def forward(pixels: Tensor) -> Tensor:
            count = pixels.shape[1]
            images = resized(rearrange(pixels, "b t h w c -> (b t) c h w"), size)
            clips = normalized(images)[:, None].expand(-1, model.config.tubelet_size, -1, -1, -1)
            tokens = model.get_vision_features(clips)
            return on_grid(tokens, size // patch, self.side, count)

        name = hash_json([hash_tree(self.folder), self.side])
        return Features(model.config.hidden_size, self.side, name, forward, device)

    def parents(self) -> dict[str, Path]:
        return {"features": self.folder}


@FeatureConfig.register_subclass("random")
@dataclass(frozen=True, kw_only=True)
class RandomFeatureConfig(FeatureConfig):
    """Two strided convolutions that were never trained."""

    width: int = 64  # of a feature
    size: int = 64  # side that frames are resized to, pixels
    seed: int = 0  # decides the weights

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1 or self.size < 16:
            raise ValueError("width must be at least 1, size at least 16 pixels")

    def build(self, device: torch.device = CPU) -> Features:
        generator = torch.Generator().manual_seed(self.seed)
        net = nn.Sequential(
            nn.Conv2d(3, self.width, 4, 4), nn.GELU(), nn.Conv2d(self.width, self.width, 2, 2)
        )
        for parameter in net.parameters():
            fan_in = max(1, parameter[0].numel()) if parameter.ndim > 1 else 1
            drawn = torch.randn(parameter.shape, generator=generator) * fan_in**-0.5
            parameter.data.copy_(drawn if parameter.ndim > 1 else 0.0 * drawn)
        net.to(device)

        def forward(pixels: Tensor) -> Tensor:
            count = pixels.shape[1]
            images = resized(rearrange(pixels, "b t h w c -> (b t) c h w"), self.size)
            maps = net(normalized(images))
            tokens = rearrange(maps, "n d h w -> n (h w) d")
            return on_grid(tokens, maps.shape[-1], self.side, count)

        name = hash_json(["random", self.seed, self.width, self.size, self.side])
        return Features(self.width, self.side, name, forward, device)


def vit_features(model: Any, size: int, side: int, name: str, device: torch.device) -> Features:
    """Patch tokens of a loaded vision transformer, scaled as ImageNet's. name: names its weights."""
    model.to(device)
    rows = size // model.config.patch_size

    def forward(pixels: Tensor) -> Tensor:
        count = pixels.shape[1]
        images = resized(rearrange(pixels, "b t h w c -> (b t) c h w"), size)
        tokens = model(normalized(images)).last_hidden_state[:, -(rows**2) :]
        return on_grid(tokens, rows, side, count)

    return Features(model.config.hidden_size, side, hash_json([name, size, side]), forward, device)


def resized(images: Tensor, size: int) -> Tensor:
    """(N, 3, H, W) -> (N, 3, size, size)."""
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


def normalized(images: Tensor) -> Tensor:
    """Images in [0, 1] by ImageNet's mean and deviation."""
    mean = images.new_tensor((0.485, 0.456, 0.406))[:, None, None]
    return (images - mean) / images.new_tensor((0.229, 0.224, 0.225))[:, None, None]


def on_grid(tokens: Tensor, rows: int, side: int, frames: int) -> Tensor:
    """Tokens of images ((B T), rows * rows, D), averaged -> (B, T, side * side, D)."""
    maps = rearrange(tokens, "n (h w) d -> n d h w", h=rows)
    maps = F.adaptive_avg_pool2d(maps.float(), side)
    return rearrange(maps, "(b t) d h w -> b t (h w) d", t=frames)
