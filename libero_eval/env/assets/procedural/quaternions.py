"""Unit quaternions (w, x, y, z) for placing geoms."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Vector = Sequence[float] | NDArray[np.float64]
Quaternion = tuple[float, float, float, float]

IDENTITY: Quaternion = (1.0, 0.0, 0.0, 0.0)


def turn(axis: str, angle: float) -> Quaternion:
    """Rotation by `angle` (radians) about the coordinate axis "x", "y" or "z"."""
    sine = math.sin(angle / 2)
    x, y, z = (sine if name == axis else 0.0 for name in "xyz")
    return (math.cos(angle / 2), x, y, z)


def compose(first: Vector, second: Vector) -> Quaternion:
    """Quaternion product: turn by `second`, then by `first`."""
    w1, x1, y1, z1 = first
    w2, x2, y2, z2 = second
    return (
        w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
        w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
        w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
    )


def rotate(quaternion: Vector, point: Vector) -> tuple[float, float, float]:
    """The point (x, y, z) turned by the quaternion."""
    w, x, y, z = quaternion
    turned = compose(compose(quaternion, (0.0, *point)), (w, -x, -y, -z))
    return turned[1:]
