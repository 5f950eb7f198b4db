"""Light triangle meshes: what procedural objects look like."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float, float]


class Mesh(NamedTuple):
    """vertices (V, 3) float, faces (F, 3) int (outward, anticlockwise), coordinates (V, 2)."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    coordinates: NDArray[np.float64] | None = None


def lathe(profile: Sequence[Sequence[float]], segments: int = 24, printed: bool = False) -> Mesh:
    """Revolve a profile of (radius, z) about z; go up the outside first, then down the inside.

    printed: with texture coordinates (for 2d textures only): u once around, v from the highest
    z (0) to the lowest (1), as MuJoCo reads pictures from their top, so that a label wraps around.
    """
    points = np.asarray(profile, dtype=np.float64)
    angles = np.linspace(0, 2 * np.pi, segments + 1)
    radius, z = points.T[..., None]
    flat = 0 * radius * angles
    vertices = np.stack([radius * np.cos(angles), radius * np.sin(angles), flat + z], axis=2)
    v = 1 - (z - z.min()) / (np.ptp(z) or 1.0)
    coordinates = np.stack([flat + angles / (2 * np.pi), flat + v], axis=2)
    faces = []
    for row, column in np.ndindex(len(points) - 1, segments):
        a = row * (segments + 1) + column
        c = a + segments + 1
        if points[row, 0] > 0:
            faces.append((a, a + 1, c + 1))
        if points[row + 1, 0] > 0:
            faces.append((a, c + 1, c))
    return Mesh(
        vertices.reshape(-1, 3),
        np.asarray(faces, dtype=np.int64),
        coordinates.reshape(-1, 2) if printed else None,
    )


def rounded_plate(half: Sequence[float], center: Sequence[float]) -> Mesh:
    """A table top with well rounded corners (a superellipse), its texture seen from above."""
    disc = lathe([(0, 0.410), (1, 0.410), (1, 0.4367), (0, 0.4367)], segments=32)
    x, y, z = disc.vertices.T
    stretch = (x**4 + y**4 + 1e-12) ** -0.25 * (x**2 + y**2 > 0.25)
    x, y = x * stretch * half[0] + center[0], y * stretch * half[1] + center[1]
    return Mesh(np.stack([x, y, z], axis=1), disc.faces, np.stack([x, y], axis=1))


def carton(half: Sequence[float], roof: float = 0.0) -> Mesh:
    """A box (half sizes), with a gable roof of that height on top, ridge along x.

    Texture coordinates: the four sides side by side (u in quarters) on the lower three quarters
    of the picture, top and roof in the strip above; MuJoCo's v runs from the top down.
    """
    x, y, z = half
    corners = [(x, -y), (x, y), (-x, y), (-x, -y)]
    vertices: list[Point] = []
    coordinates: list[tuple[float, float]] = []
    faces: list[tuple[int, int, int]] = []

    def polygon(points: list[Point], uv: list[tuple[float, float]]) -> None:
        start = len(vertices)
        vertices.extend(points)
        coordinates.extend((u, 1 - v) for u, v in uv)
        faces.extend((start, start + i, start + i + 1) for i in range(1, len(points) - 1))

    for side in range(4):
        (ax, ay), (bx, by) = corners[side], corners[(side + 1) % 4]
        u, w = side / 4, (side + 1) / 4
        points = [(ax, ay, -z), (bx, by, -z), (bx, by, z), (ax, ay, z)]
        polygon(points, [(u, 0), (w, 0), (w, 0.75), (u, 0.75)])
    polygon([(x, y, -z), (x, -y, -z), (-x, -y, -z), (-x, y, -z)], [(0, 0.9)] * 4)
    strip, gable = [(0, 0.76), (1, 0.76), (1, 1), (0, 1)], [(0, 0.8), (1, 0.8), (0.5, 0.9)]
    if roof == 0:
        polygon([(x, -y, z), (x, y, z), (-x, y, z), (-x, -y, z)], strip)
    else:
        polygon([(x, y, z), (-x, y, z), (-x, 0, z + roof), (x, 0, z + roof)], strip)
        polygon([(-x, -y, z), (x, -y, z), (x, 0, z + roof), (-x, 0, z + roof)], strip)
        polygon([(x, -y, z), (x, y, z), (x, 0, z + roof)], gable)
        polygon([(-x, y, z), (-x, -y, z), (-x, 0, z + roof)], gable)
    return Mesh(np.asarray(vertices), np.asarray(faces, dtype=np.int64), np.asarray(coordinates))
