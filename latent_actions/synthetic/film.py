"""From rendered frames to filmed ones: lens, motion blur, something near in the way, exposure, noise."""

import numpy as np

from latent_actions.synthetic.cameras import CameraTrack
from latent_actions.synthetic.config import Variety

_EXPOSURES = 3  # pictures that a blurred frame is the mean of


class Lens:
    """Barrel distortion of one camera, with the black rim of glasses where it is strong."""

    def __init__(self, rng: np.random.Generator, largest: float) -> None:
        self.strength = float(rng.uniform(0, largest))
        self.rim = bool(rng.random() < self.strength)  # the picture is a disk

    def through(self, frames: np.ndarray) -> np.ndarray:
        """(T, H, W) or (T, H, W, 3) -> the same, of nearest pixels; black outside a disk."""
        size = frames.shape[1]
        axis = (np.arange(size) + 0.5) / size * 2 - 1
        y, x = np.meshgrid(axis, axis, indexing="ij")
        square = x**2 + y**2
        # 1 at the corner: what is drawn there stays there, the middle grows
        factor = (1 - self.strength + self.strength * square / 2) / 1.0
        rows, columns = (
            np.clip(np.floor((part * factor + 1) / 2 * size), 0, size - 1).astype(int)
            for part in (y, x)
        )
        seen = frames[:, rows, columns]
        if self.rim:
            seen[:, square > 1.1] = 0
        return seen


def filmed(
    frames: np.ndarray, track: CameraTrack, lens: Lens, rng: np.random.Generator, variety: Variety
) -> np.ndarray:
    """Frames of one camera, uint8 (T, H, W, 3) -> the same shape and type."""
    if variety.blur:
        frames = _blurred(frames, track, rng.uniform(0, variety.blur))
    frames = lens.through(frames)
    if rng.random() < variety.occlusion:
        _cover(frames, rng)
    count = len(frames)
    light = 1 + variety.light * rng.uniform(-0.5, 0.5)
    steps = np.cumsum(rng.normal(0, 0.15 * variety.light, count)) * rng.random()
    exposure = (light + np.clip(steps, -0.3, 0.3))[:, None, None, None]
    noise = rng.uniform(0, variety.noise) * 255
    grain = rng.standard_normal((count, *frames.shape[1:3], 1), np.float32) * np.float32(noise)
    made = frames * exposure.astype(np.float32) + grain
    return np.clip(np.rint(made), 0, 255).astype(np.uint8)


def _blurred(frames: np.ndarray, track: CameraTrack, exposure: float) -> np.ndarray:
    """Each frame as the mean of pictures shifted along the camera's turn to the next frame."""
    size = frames.shape[1]
    pixels = size / np.radians(track.fovy_deg)
    forward = -track.axes[..., 2]
    turn = np.diff(forward, axis=0, append=forward[-1:])  # rad a frame, world axes
    along = [np.einsum("td,td->t", turn, track.axes[..., axis]) * pixels for axis in (0, 1)]
    total = np.zeros(frames.shape, np.float32)
    for part in np.linspace(-0.5, 0.5, _EXPOSURES) * exposure:
        x, y = (np.rint(part * shift).astype(int) for shift in along)
        for index, frame in enumerate(frames):
            total[index] += np.roll(frame, (y[index], -x[index]), axis=(0, 1))
    return np.rint(total / _EXPOSURES).astype(np.uint8)


def _cover(frames: np.ndarray, rng: np.random.Generator) -> None:
    """A near thing of one color over a slanted part of one side, in place."""
    size = frames.shape[1]
    axis = (np.arange(size) + 0.5) / size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    across, along = ((x, y), (1 - x, y), (y, x), (1 - y, x))[rng.integers(4)]
    covered = across < rng.uniform(0.08, 0.25) + rng.uniform(-0.2, 0.2) * (along - 0.5)
    frames[:, covered] = rng.integers(10, 200, 3)
