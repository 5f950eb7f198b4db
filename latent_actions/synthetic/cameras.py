"""Where the cameras are: a swaying, zooming camera on the performer's head, and fixed ones around.

A camera pose is (position (3,) m, axes (3, 3) with columns right, up, backwards, fovy in degrees).
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from latent_actions.synthetic.scenes import ExoCamera

WORK_CENTER = np.array([0.0, 0.02, 0.09])  # what exo cameras look at


@dataclass(frozen=True)
class CameraTrack:
    """Poses over T frames: position (T, 3) m, axes (T, 3, 3), fovy_deg (T,)."""

    position: np.ndarray
    axes: np.ndarray
    fovy_deg: np.ndarray


def look_at(position: np.ndarray, target: np.ndarray, roll: np.ndarray | float = 0.0) -> np.ndarray:
    """Camera axes (..., 3, 3) of a camera at `position` that looks at `target`, rolled by `roll`
    rad.
    """
    backwards = position - target
    backwards = backwards / np.linalg.norm(backwards, axis=-1, keepdims=True)
    right = np.cross(np.broadcast_to([0.0, 0.0, 1.0], backwards.shape), backwards)
    right = right / np.linalg.norm(right, axis=-1, keepdims=True)
    up = np.cross(backwards, right)
    cos, sin = np.cos(roll)[..., None], np.sin(roll)[..., None]
    return np.stack([cos * right + sin * up, cos * up - sin * right, backwards], axis=-1)


def exo_track(camera: ExoCamera, frames: int) -> CameraTrack:
    """A fixed camera, the same pose in every frame."""
    direction = np.array(
        [
            np.cos(camera.azimuth) * np.cos(camera.elevation),
            np.sin(camera.azimuth) * np.cos(camera.elevation),
            np.sin(camera.elevation),
        ]
    )
    position = WORK_CENTER + camera.distance * direction
    axes = look_at(position, WORK_CENTER)
    return CameraTrack(
        np.tile(position, (frames, 1)),
        np.tile(axes, (frames, 1, 1)),
        np.full(frames, camera.fovy_deg),
    )


def ego_track(
    rng: np.random.Generator, times: np.ndarray, wrist: np.ndarray, fps: float, spread: float = 0.0,
    aside: np.ndarray | float = 0.0,
) -> CameraTrack:  # fmt: skip
    """A head camera at times (T,) s: slow sway and zoom, gaze drawn a little to the hand, (T, 3)
    m. spread: of the field of view, up to glasses that see all of the room; aside: how far the gaze
    is from what the hands do, (T, 3) m.
    """
    head = np.array([rng.uniform(-0.06, 0.06), rng.uniform(-0.44, -0.36), rng.uniform(0.66, 0.76)])
    sway = np.stack([_wander(rng, times) for _ in range(3)], axis=1) * (0.022, 0.018, 0.012)
    gaze = np.array([0.0, 0.04, 0.02]) + 0.16 * (_smoothed(wrist, fps) - np.array([0.0, 0.0, 0.1]))
    gaze = (
        gaze
        + aside
        + np.stack([_wander(rng, times) for _ in range(3)], axis=1) * (0.025, 0.025, 0.0)
    )
    roll = 0.05 * _wander(rng, times)
    fovy = rng.uniform(37, 43 + 47 * spread) * (1 + 0.09 * _wander(rng, times))
    position = head + sway
    return CameraTrack(position, look_at(position, gaze, roll), fovy)


def shaken(
    track: CameraTrack, rng: np.random.Generator, times: np.ndarray, degrees: float
) -> CameraTrack:
    """The track with turns about all axes, slow ones and a tremor, of up to about `degrees`."""
    size = np.radians(rng.uniform(0, degrees)) * rng.uniform(0.3, 1, 3)
    turns = np.stack(
        [_wander(rng, times) + 0.5 * _wander(rng, 4 * times) for _ in range(3)], axis=1
    )
    return replace(track, axes=track.axes @ Rotation.from_rotvec(turns * size).as_matrix())


def _wander(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """A smooth random signal of about unit size: three slow sines."""
    frequencies = rng.uniform((0.08, 0.2, 0.5), (0.2, 0.5, 1.1))
    phases = rng.uniform(0, 2 * np.pi, 3)
    weights = np.array([0.6, 0.4, 0.2])
    return np.sin(2 * np.pi * np.outer(times, frequencies) + phases) @ weights


def _smoothed(track: np.ndarray, fps: float, seconds: float = 0.8) -> np.ndarray:
    """Running mean over about `seconds`, (T, 3); the head follows the hand late and softly."""
    width = max(1, round(seconds * fps))
    padded = np.concatenate([np.repeat(track[:1], width, 0), track])
    sums = np.cumsum(padded, axis=0)
    return (sums[width:] - sums[:-width]) / width
