"""One random view and one color change for a whole clip, and a camera that moves if wanted.

Never a flip: left and right are actions.

B clips, T frames, H W pixels of the stored frames, S pixels of the model's input.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from latent_actions.encoder.inputs.camera_motion import view_grid


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Strength of the augmentation; every draw but the camera's motion holds for the whole clip."""

    # side of the crop as a share of the frame, drawn between the two; above 1 the frame's border is
    # repeated around it
    crop_scale: tuple[float, float] = (0.6, 1.1)
    rotation: float = 15.0  # degrees, drawn in [-this, this]
    aspect_jitter: float = 0.15  # width over height drawn in [1 - this, 1 + this]
    # motion of the camera on top of the clip's own: pan, zoom, roll, shake; the largest pan over a clip,
    # as a share of the frame, is drawn in [0, this]
    camera_motion: float = 0.0
    min_temporal_crop: float = 0.8  # part of the clip's time that is kept, drawn in [this, 1]
    brightness: float = 0.2  # added to all pixels, drawn in [-this, this]
    contrast: float = 0.3  # factor drawn in [1 - this, 1 + this]
    color: float = 0.3  # factor of each channel, drawn in [1 - this, 1 + this]
    shuffle_channels: float = 0.3  # probability of the color channels in another order
    # largest weight of a still frame of another clip of the group, added to all frames of this one:
    # the place changes, the motion stays (Wang et al. 2021, arxiv.org/abs/2009.05769)
    static_frame_mixup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.crop_scale[0] <= self.crop_scale[1]:
            raise ValueError(
                f"expected crop_scale [low, high], 0 < low <= high, got {self.crop_scale}"
            )
        if not 0 < self.min_temporal_crop <= 1 or not 0 <= self.shuffle_channels <= 1:
            raise ValueError("min_temporal_crop must be in (0, 1] and shuffle_channels in [0, 1]")
        shares = (self.contrast, self.color, self.aspect_jitter, self.static_frame_mixup)
        if self.brightness < 0 or not all(0 <= x < 1 for x in (*shares, self.camera_motion)):
            raise ValueError(
                "brightness must be >= 0; contrast, color, aspect_jitter, static_frame_mixup and "
                "camera_motion in [0, 1)"
            )


def augment(
    frames: np.ndarray, size: int, config: AugmentConfig, rng: np.random.Generator
) -> Tensor:
    """uint8 (B, T, H, W, 3) -> float32 (B, T, S, S, 3) in [0, 1], bilinear."""
    count, times = frames.shape[:2]
    planes = torch.from_numpy(frames).movedim(-1, 2).contiguous().float()
    _shuffle_channels(planes, config.shuffle_channels, rng)
    theta = _view(count, config, rng)
    if config.static_frame_mixup:
        planes = _on_a_still_frame(planes, config.static_frame_mixup, rng)
    if config.camera_motion:  # a view a frame
        views = torch.from_numpy(_moved(theta, times, config.camera_motion, rng))
        grid, planes = view_grid(views.flatten(0, 1), size, size), planes.flatten(0, 1)
    else:
        views, planes = torch.from_numpy(theta), planes.flatten(1, 2)
        grid = F.affine_grid(views, [count, 1, size, size], align_corners=False)
    pixels = F.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    pixels = rearrange(pixels.reshape(count, times, 3, size, size), "b t c h w -> b t h w c")
    return _recolor(pixels, config, rng)


def _view(count: int, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Affine maps from the input's to the frame's coordinates in [-1, 1]: float32 (B, 2, 3)."""
    side = rng.uniform(*config.crop_scale, count)
    aspect_jitter = np.sqrt(rng.uniform(1 - config.aspect_jitter, 1 + config.aspect_jitter, count))
    angle = np.deg2rad(rng.uniform(-config.rotation, config.rotation, count))
    cos, sin = np.cos(angle), np.sin(angle)
    theta = np.empty((count, 2, 3), np.float32)
    theta[:, 0, 0], theta[:, 0, 1] = side * aspect_jitter * cos, -side / aspect_jitter * sin
    theta[:, 1, 0], theta[:, 1, 1] = side * aspect_jitter * sin, side / aspect_jitter * cos
    theta[:, :, 2] = rng.uniform(-1, 1, (count, 2)) * np.abs(1 - side)[:, None]
    return theta


def _moved(theta: np.ndarray, times: int, largest: float, rng: np.random.Generator) -> np.ndarray:
    """The views of T frames under a camera that drifts, sways and shakes: (B, 2, 3) -> float32 (B, T, 2,
    3). Pan (x, y), zoom and roll are each a line, two slow sines and a little noise."""
    count = len(theta)
    time = np.linspace(-0.5, 0.5, times)[None, :, None]  # (1, T, 1), of (B, T, 4)
    draw = lambda low, high, *shape: rng.uniform(low, high, (count, *shape, 4))
    path = draw(-1, 1, 1) * time + draw(-0.1, 0.1, times)
    for _ in range(2):
        path = path + draw(-0.4, 0.4, 1) * np.sin(
            2 * np.pi * (draw(0.5, 2.5, 1) * time + draw(0, 1, 1))
        )
    # pan in coordinates of [-1, 1]; roll in rad and log zoom are smaller than a pan
    path = path * draw(0, largest, 1) * (2.0, 2.0, 0.6, 0.6)
    zoom, roll = np.exp(path[..., 2]), path[..., 3]
    own = np.empty((count, times, 2, 3))
    own[..., 0, 0], own[..., 0, 1] = zoom * np.cos(roll), -zoom * np.sin(roll)
    own[..., 1, 0], own[..., 1, 1] = zoom * np.sin(roll), zoom * np.cos(roll)
    own[..., 2] = path[..., :2]
    moved = theta[:, None, :, :2] @ own
    moved[..., 2] += theta[:, None, :, 2]
    return moved.astype(np.float32)


def _shuffle_channels(planes: Tensor, probability: float, rng: np.random.Generator) -> None:
    """Of the chosen clips of (B, T, 3, H, W), in place."""
    for index in np.flatnonzero(rng.random(len(planes)) < probability):
        planes[index] = planes[index][:, rng.permutation(3)]


def _on_a_still_frame(planes: Tensor, largest: float, rng: np.random.Generator) -> Tensor:
    """Each clip of (B, T, 3, H, W) mixed with one frame of another, by weights drawn in [0, largest]: a
    place that moves with the camera, as the clip's own does."""
    count, times = planes.shape[:2]
    other = (np.arange(count) + rng.integers(1, max(2, count), count)) % count
    still = planes[torch.from_numpy(other), torch.from_numpy(rng.integers(times, size=count))]
    return torch.lerp(planes, still[:, None], _per_clip(rng.uniform(0, largest, (count, 1))))


def _recolor(pixels: Tensor, config: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """pixels: 0 to 255 -> [0, 1]."""
    count = len(pixels)
    contrast = rng.uniform(1 - config.contrast, 1 + config.contrast, (count, 1))
    channel = rng.uniform(1 - config.color, 1 + config.color, (count, 3))
    shift = rng.uniform(-config.brightness, config.brightness, (count, 1))
    gain = _per_clip(contrast * channel / 255)
    return torch.addcmul(_per_clip(0.5 - 0.5 * contrast + shift), pixels, gain).clamp_(0, 1)


def _per_clip(values: np.ndarray) -> Tensor:
    """(B, C) -> float32 (B, 1, 1, 1, C)."""
    return torch.from_numpy(values.astype(np.float32))[:, None, None, None]
