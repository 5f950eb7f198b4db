"""Shapes: round bodies as overlapping boxes (contact), and light triangle meshes (looks).

MuJoCo gives a cylinder on a box a single contact point; a few boxes turned about a common axis
have faces and edges that stand still.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEGMENTS = 24


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """vertices (V, 3) float, faces (F, 3) int (outward, anticlockwise), coordinates (V, 2)."""

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    coordinates: NDArray[np.float64] | None = None


def lathe(
    profile: Sequence[tuple[float, float]], segments: int = SEGMENTS, printed: bool = False
) -> Mesh:
    """Revolve a profile of (radius, z) about z; go up the outside first, then down the inside.

    printed: with texture coordinates (for 2d textures only): u once around, v from the highest
    z (0) to the lowest (1), as MuJoCo reads pictures from their top, so that a label wraps around.
    """
    points = np.asarray(profile, dtype=np.float64)
    angles = np.linspace(0, 2 * np.pi, segments + 1)
    low = points[:, 1].min()
    span = np.ptp(points[:, 1]) or 1.0
    rows, coordinates = [], []
    for radius, z in points:
        ring = np.stack([radius * np.cos(angles), radius * np.sin(angles), 0 * angles + z], axis=1)
        rows.append(ring)
        v = 0 * angles + 1 - (z - low) / span
        coordinates.append(np.stack([angles / (2 * np.pi), v], axis=1))
    faces = []
    width = segments + 1
    for row in range(len(points) - 1):
        for column in range(segments):
            a, b = row * width + column, row * width + column + 1
            c, d = a + width, b + width
            if points[row, 0] > 0:
                faces.append((a, b, d))
            if points[row + 1, 0] > 0:
                faces.append((a, d, c))
    return Mesh(
        vertices=np.concatenate(rows),
        faces=np.asarray(faces, dtype=np.int64),
        coordinates=np.concatenate(coordinates) if printed else None,
    )


def carton(half: Sequence[float], roof: float = 0.0) -> Mesh:
    """A box (half sizes), with a gable roof of that height on top, ridge along x.

    Texture coordinates: the four sides side by side (u in quarters) on the lower three quarters
    of the picture, top and roof in the strip above; MuJoCo's v runs from the top down.
    """
    x, y, z = half
    corners = [(x, -y), (x, y), (-x, y), (-x, -y)]
    vertices: list[tuple[float, float, float]] = []
    coordinates: list[tuple[float, float]] = []
    faces: list[tuple[int, int, int]] = []

    def polygon(points: list[tuple[float, float, float]], uv: list[tuple[float, float]]) -> None:
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
    if roof == 0:
        uv = [(0, 0.76), (1, 0.76), (1, 1), (0, 1)]
        polygon([(x, -y, z), (x, y, z), (-x, y, z), (-x, -y, z)], uv)
    else:
        slope = [(0, 0.76), (1, 0.76), (1, 1), (0, 1)]
        polygon([(x, y, z), (-x, y, z), (-x, 0, z + roof), (x, 0, z + roof)], slope)
        polygon([(-x, -y, z), (x, -y, z), (x, 0, z + roof), (-x, 0, z + roof)], slope)
        polygon([(x, -y, z), (x, y, z), (x, 0, z + roof)], [(0, 0.8), (1, 0.8), (0.5, 0.9)])
        polygon([(-x, y, z), (-x, -y, z), (-x, 0, z + roof)], [(0, 0.8), (1, 0.8), (0.5, 0.9)])
    return Mesh(
        vertices=np.asarray(vertices),
        faces=np.asarray(faces, dtype=np.int64),
        coordinates=np.asarray(coordinates),
    )
