"""OpenVLA's image arithmetic without TensorFlow, agreeing with it to the last digit but a few.

JPEG: TensorFlow decodes with libjpeg's fast integer transform, and Pillow does not; simplejpeg can.
Lanczos3 and the bilinear crop are those of tf.image (half-pixel centres, antialiasing, renormalised
weights; crop_and_resize coordinates). Axis letters: B images, H W pixels, S side of the result.
"""

import io
from functools import lru_cache

import numpy as np
from einops import rearrange
from PIL import Image

CROP_AREA = 0.9  # of the image, in training (random place) and evaluation (centre)


def jpeg_round_trip(image: np.ndarray, quality: int = 95) -> np.ndarray:
    """uint8 (H, W, 3) -> the same after JPEG, as TensorFlow encodes and decodes it (4:2:0)."""
    import simplejpeg

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return simplejpeg.decode_jpeg(buffer.getvalue(), fastdct=True, fastupsample=False)


@lru_cache(maxsize=32)
def lanczos3_weights(size_in: int, size_out: int) -> np.ndarray:
    """(size_out, size_in) float32 rows of normalised Lanczos3 weights, widened when shrinking."""
    scale = size_in / size_out
    kernel_scale = max(scale, 1.0)
    centre = (np.arange(size_out, dtype=np.float64) + 0.5) * scale
    place = np.arange(size_in, dtype=np.float64) + 0.5
    x = np.abs(place[None, :] - centre[:, None]) / kernel_scale
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


@lru_cache(maxsize=8)
def crop_side(area: float) -> np.float32:
    """Side of a square crop of `area`, as a fraction of the image."""
    return np.float32(np.sqrt(area))


def center_crop(images: np.ndarray, area: float = CROP_AREA) -> np.ndarray:
    """uint8 (B, S, S, 3) -> uint8: the central `area`, resized back bilinearly.

    float32 operations in the order of tf.image.crop_and_resize.
    """
    size = images.shape[1]
    side = crop_side(area)
    corner = (np.float32(1) - side) / np.float32(2)
    step = np.float32(corner + side) - corner
    place = corner * np.float32(size - 1) + np.arange(size, dtype=np.float32) * step
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, size - 1)
    share = (place - low).astype(np.float32)
    unit = images.astype(np.float32) * np.float32(1 / 255)
    lower, upper = unit[:, low], unit[:, high]
    across = share[None, None, :, None]
    first = lower[:, :, low] + (lower[:, :, high] - lower[:, :, low]) * across
    second = upper[:, :, low] + (upper[:, :, high] - upper[:, :, low]) * across
    out = first + (second - first) * share[None, :, None, None]
    return to_uint8(np.clip(out, 0, 1))


def random_crop(
    images: np.ndarray, rng: np.random.Generator, area: float = CROP_AREA
) -> np.ndarray:
    """uint8 (B, S, S, 3) -> float32 [0, 1]: a crop of `area` at a random place of each image,
    resized back bilinearly, as two batched matrix products."""
    count, size = images.shape[:2]
    side = crop_side(area)
    corners = rng.uniform(0, 1 - side, (2, count, 1)).astype(np.float32)
    place = (corners + np.linspace(0, side, size, dtype=np.float32)) * np.float32(size - 1)
    grid = np.arange(size, dtype=np.float32)
    down, across = np.maximum(0, 1 - np.abs(place[..., None] - grid))
    unit = images.astype(np.float32) * np.float32(1 / 255)
    tall = rearrange(down @ rearrange(unit, "b h w c -> b h (w c)"), "b s (w c) -> b s w c", c=3)
    done = across @ rearrange(tall, "b s w c -> b w (s c)")
    return np.clip(rearrange(done, "b t (s c) -> b s t c", c=3), 0, 1)


def jitter(
    unit: np.ndarray, rng: np.random.Generator, brightness: float, contrast: float
) -> np.ndarray:
    """Random brightness (added, +-brightness) and contrast (factor 1 +- contrast) of each image.

    unit: float32 (B, S, S, 3) in [0, 1], clipped after each, as in OpenVLA's fine-tuning.
    """
    shape = (len(unit), 1, 1, 1)
    delta = rng.uniform(-brightness, brightness, shape).astype(np.float32)
    factor = rng.uniform(1 - contrast, 1 + contrast, shape).astype(np.float32)
    unit = np.clip(unit + delta, 0, 1)
    mean = unit.mean(axis=(1, 2), keepdims=True)
    return np.clip((unit - mean) * factor + mean, 0, 1)
