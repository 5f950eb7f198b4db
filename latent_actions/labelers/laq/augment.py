"""Augmentation of frame pairs: one change for both frames, so that the motion stays what it was.

LAPA trains without any; a few synthetic scenes have too few textures for that, and the decoder then
predicts noise on backgrounds that it has not seen.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class PairAugmentConfig:
    """How strongly pairs are changed; the defaults change nothing."""

    gain: float = 0.0  # each color channel is scaled by a factor in [1 - gain, 1 + gain]
    offset: float = 0.0  # and shifted by up to this share of the full range
    permute: bool = False  # color channels in a random order
    flip: bool = False  # mirrored left to right, half of the time

    def __post_init__(self) -> None:
        if not 0 <= self.gain < 1 or not 0 <= self.offset < 1:
            raise ValueError(f"gain and offset must be in [0, 1), got {self.gain}, {self.offset}")


def augment(frames: np.ndarray, config: PairAugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """uint8 (B, 2, H, W, 3) -> the same shape, each pair changed in its own way."""
    if config == PairAugmentConfig():
        return frames
    frames = frames.copy()
    for pair in frames:
        if config.flip and rng.random() < 0.5:
            pair[:] = pair[:, :, ::-1].copy()
        if config.permute:
            pair[:] = pair[..., rng.permutation(3)]
        gain = 1 + config.gain * rng.uniform(-1, 1, 3)
        offset = 255 * config.offset * rng.uniform(-1, 1, 3)
        # a look-up table per channel: 256 values instead of a float image
        levels = np.arange(256)[:, None] * gain + offset
        table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        for channel in range(3):
            pair[..., channel] = table[:, channel][pair[..., channel]]
    return frames
