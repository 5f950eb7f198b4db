"""Frames that an action can be told in: the world's, the camera's, and a level one with a heading.

A code that is the same from every camera can only be read in a frame that the cameras share; a code
that sees pixels alone, best in the camera's own. Axes are (..., 3, 3), columns are unit vectors in
world coordinates, z is up. A camera's columns are right, up and backwards, as MuJoCo and OpenGL
have them.
"""

import numpy as np


def heading_axes(camera: np.ndarray) -> np.ndarray:
    """The level frame of cameras, (..., 3, 3) -> (..., 3, 3): columns forward, left, up, as on robots
    (REP 103).

    Forward is level and at right angles to the right edge of the picture, so it is known for a camera
    that looks straight down, too. A camera whose right edge points up or down keeps the world's axes.
    """
    right = camera[..., :, 0] * (1.0, 1.0, 0.0)
    length = np.linalg.norm(right, axis=-1, keepdims=True)
    right = np.where(length > 1e-3, right / np.maximum(length, 1e-9), (0.0, -1.0, 0.0))
    up = np.broadcast_to((0.0, 0.0, 1.0), right.shape)
    return np.stack([np.cross(up, right), -right, up], axis=-1)


def into_frame(actions: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Actions (N, A) in world coordinates -> in axes (N, 3, 3): the first three numbers (a velocity)
    and the next three (a rotation) are turned, the others stay."""
    if actions.shape[1] < 3 or axes.shape != (len(actions), 3, 3):
        raise ValueError(f"expected (N, >= 3) and (N, 3, 3), got {actions.shape} and {axes.shape}")
    turned = np.array(actions, np.float64)
    for start in (0, 3)[: 1 + (actions.shape[1] >= 6)]:
        turned[:, start : start + 3] = np.einsum("nij,ni->nj", axes, actions[:, start : start + 3])
    return turned
