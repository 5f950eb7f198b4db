"""OpenVLA's image arithmetic without TensorFlow, agreeing with it to the last digit but a few.

JPEG: TensorFlow decodes with libjpeg's fast integer transform, and Pillow does not; simplejpeg can.
Lanczos3 and the bilinear crop are those of tf.image (half-pixel centers, antialiasing, renormalized
weights; crop_and_resize coordinates). Axis letters: B images, H W pixels, S side of the result.
"""

import io
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

CROP_AREA = 0.9  # of the image, in training (random place) and evaluation (center)


def jpeg_round_trip(image: np.ndarray, quality: int = 95) -> np.ndarray:
    """uint8 (H, W, 3) -> the same after JPEG, as TensorFlow encodes and decodes it (4:2:0)."""
    import simplejpeg

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return simplejpeg.decode_jpeg(buffer.getvalue(), fastdct=True, fastupsample=False)


@lru_cache(maxsize=32)
def lanczos3_weights(size_in: int, size_out: int) -> np.ndarray:
    """(size_out, size_in) float32 rows of normalized Lanczos3 weights, widened when shrinking."""
    scale = size_in / size_out
    kernel_scale = max(scale, 1.0)
    center = (np.arange(size_out, dtype=np.float64) + 0.5) * scale
    place = np.arange(size_in, dtype=np.float64) + 0.5
    x = np.abs(place[None, :] - center[:, None]) / kernel_scale
    weights = np.where(x < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)
    weights /= weights.sum(1, keepdims=True)
    result = weights.astype(np.float32)
    result.flags.writeable = False
    return result


def resize_lanczos3(images: np.ndarray, size: int) -> np.ndarray:
    """uint8 (..., H, W, 3) -> uint8 (..., S, S, 3); identity where the size is right already."""
    height, width = images.shape[-3:-1]
    if (height, width) == (size, size):
        return images
    rows, columns = lanczos3_weights(height, size), lanczos3_weights(width, size)
    lead = images.shape[:-3]
    # two large products: a batch of products with 3 columns each is tens of times slower
    flat = rearrange(images.reshape(-1, height, width, 3), "b h w c -> h (b w c)")
    tall = rearrange(rows @ flat.astype(np.float32), "s (b w c) -> w (s b c)", w=width, c=3)
    done = rearrange(columns @ tall, "t (s b c) -> b s t c", s=size, c=3)
    return np.clip(np.rint(done), 0, 255).astype(np.uint8).reshape(*lead, size, size, 3)


def to_unit(images: np.ndarray) -> np.ndarray:
    """uint8 -> float32 [0, 1]."""
    return images.astype(np.float32) / np.float32(255)


def to_uint8(unit: np.ndarray) -> np.ndarray:
    """float [0, 1] -> uint8 as TensorFlow converts: truncate(255.5 x)."""
    return (unit * np.float32(255.5)).astype(np.uint8)


def center_crop(images: np.ndarray, area: float = CROP_AREA) -> np.ndarray:
    """uint8 (B, S, S, 3) -> uint8: the central `area`, resized back bilinearly.

    float32 operations in the order of tf.image.crop_and_resize.
    """
    size, side = images.shape[1], np.float32(np.sqrt(area))
    corner = (np.float32(1) - side) / np.float32(2)
    step = np.float32(corner + side) - corner
    place = corner * np.float32(size - 1) + np.arange(size, dtype=np.float32) * step
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    weight = (place - low).astype(np.float32)
    unit = images.astype(np.float32) * np.float32(1 / 255)
    lower, upper = unit[:, low], unit[:, high]
    across = weight[None, None, :, None]
    first = lower[:, :, low] + (lower[:, :, high] - lower[:, :, low]) * across
    second = upper[:, :, low] + (upper[:, :, high] - upper[:, :, low]) * across
    out = first + (second - first) * weight[None, :, None, None]
    return to_uint8(np.clip(out, 0, 1))


# random numbers per image: crop place (2), brightness, contrast, saturation, hue
AUGMENTATION_DRAWS = 6


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Largest changes of colors in training, as in OpenVLA's fine-tuning: added brightness, factors 1 +-
    contrast and saturation, and a turn of the hue as a fraction of the circle."""

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.2
    hue: float = 0.05


def augment(
    images: Tensor, draws: Tensor, jitter: Jitter, area: float | None = CROP_AREA
) -> Tensor:
    """uint8 (B, S, S, 3) and float32 (B, 6) in [0, 1) -> float32 (B, S, S, 3) in [0, 1].

    A crop of `area` at a random place (None: no crop), then brightness, contrast, saturation, hue, as
    published and in that order, clipped at the end; the hue is turned in YIQ, not in HSV.
    """
    unit = images.to(torch.float32) / 255
    if area is not None:
        unit = _crop(unit, draws[:, :2], float(np.float32(np.sqrt(area))))
    signed = (2 * draws[:, 2:] - 1)[:, :, None, None, None]
    unit = unit + jitter.brightness * signed[:, 0]
    mean = unit.mean(dim=(1, 2), keepdim=True)
    unit = mean + (unit - mean) * (1 + jitter.contrast * signed[:, 1])
    if jitter.saturation:
        value = unit.amax(dim=3, keepdim=True)
        unit = value - (value - unit) * (1 + jitter.saturation * signed[:, 2])
    if jitter.hue:
        turn = _hue_matrix(2 * math.pi * jitter.hue * signed[:, 3, 0, 0, 0])
        unit = (unit.flatten(1, 2) @ turn.mT).view_as(unit)
    return unit.clamp_(0, 1)


def _crop(unit: Tensor, place: Tensor, side: float) -> Tensor:
    """Square crops of `side` (fraction) with their corners at place (B, 2) in [0, 1) of the room there
    is, resized back bilinearly: two batched matrix products."""
    count, size = unit.shape[:2]
    steps = torch.linspace(0, side, size, device=unit.device)
    grid = torch.arange(size, dtype=torch.float32, device=unit.device)
    points = (place[..., None] * (1 - side) + steps) * (size - 1)
    weights = (1 - (points[..., None] - grid).abs()).clamp_(min=0)
    tall = (weights[:, 0] @ unit.reshape(count, size, -1)).view(count, size, size, 3)
    across = weights[:, 1] @ tall.transpose(1, 2).reshape(count, size, -1)
    return across.view(count, size, size, 3).transpose(1, 2)


_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def _hue_matrix(angles: Tensor) -> Tensor:
    """Radians (B,) -> (B, 3, 3): a turn of the color plane of YIQ, in RGB."""
    to_yiq = torch.tensor(_YIQ, device=angles.device)
    cos, sin, zero = angles.cos(), angles.sin(), torch.zeros_like(angles)
    one = torch.ones_like(angles)
    rows = [one, zero, zero, zero, cos, -sin, zero, sin, cos]
    return torch.linalg.inv(to_yiq) @ torch.stack(rows, 1).view(-1, 3, 3) @ to_yiq
