"""The meshes of a model as MuJoCo draws them, and which of their triangles can touch a picture.

A software renderer's time goes by triangles: LIBERO's scanned objects have 15,000 each and are 30
pixels wide. Most of theirs look away, lie beside the picture, or fall between the four samples of
every pixel. `touching` leaves out a triangle only when it is certain to touch no sample, so that
the picture is the same bit for bit.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import njit

SMOOTH_COSINE = 0.8  # where a stored normal turns further from its face, MuJoCo draws the face flat
# px; twice what a vertex may be off: the renderer snaps it by up to 1/512 and computes in float32.
# Three vertices in a box of w x h, each off by m / 2, change twice an area by less than 2 m (w + h).
MARGIN = np.float32(1 / 128)
SMALL = np.float32(2.0)  # px; triangles of at most this extent are held against every sample


class Mesh(NamedTuple):
    """One mesh of the vertex buffer."""

    vertices: np.ndarray  # float32 (3, V), m
    faces: np.ndarray  # uint32 (F, 3), columns of `vertices`
    corners: np.ndarray  # uint32 (F, 3), rows of the vertex buffer
    textured: bool  # whether it has texture coordinates


def mesh_buffer(model: Any) -> tuple[list[Mesh], np.ndarray]:
    """All meshes and their buffer, float32 (N, 8): position, normal, texture coordinates.

    Follows MuJoCo 3.3.2, `mjr_uploadMesh`, so that every corner has the same bits.
    """
    meshes, blocks, start = [], [np.zeros((0, 8), np.float32)], 0
    for index in range(model.nmesh):
        vertices = model.mesh_vert[model.mesh_vertadr[index] :][: model.mesh_vertnum[index]]
        rows = model.mesh_faceadr[index] + np.arange(model.mesh_facenum[index])
        faces = model.mesh_face[rows]
        keys, normals, coordinates = _attributes(model, index, vertices, rows)
        _, first, corner = np.unique(keys, return_index=True, return_inverse=True)
        block = np.concatenate([vertices[faces.reshape(-1)], normals, coordinates], axis=1)[first]
        corners = (corner.reshape(faces.shape) + start).astype(np.uint32)
        textured = bool(model.mesh_texcoordadr[index] >= 0)
        columns = np.ascontiguousarray(vertices.T)
        meshes.append(Mesh(columns, faces.astype(np.uint32), corners, textured))
        blocks.append(block.astype(np.float32))
        start += len(block)
    return meshes, np.concatenate(blocks)


def _attributes(
    model: Any, index: int, vertices: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all 3F corners: a key that is equal where all attributes are, normal, coordinates."""
    faces = model.mesh_face[rows]
    which = model.mesh_facenormal[rows].reshape(-1).astype(np.int64)
    normals = model.mesh_normal[model.mesh_normaladr[index] + which]
    key = faces.reshape(-1).astype(np.int64)
    if model.mesh_texcoordadr[index] >= 0:
        place = model.mesh_facetexcoord[rows].reshape(-1).astype(np.int64)
        coordinates = model.mesh_texcoord[model.mesh_texcoordadr[index] + place]
    else:
        flat = np.repeat(_face_normals(vertices, faces), 3, axis=0)
        products = normals * flat
        cosines = products[:, 0] + products[:, 1] + products[:, 2]
        is_flat = cosines.astype(np.float64) < SMOOTH_COSINE
        normals = np.where(is_flat[:, None], flat, normals)
        face = np.repeat(np.arange(len(faces)), 3)
        which = np.where(is_flat, model.mesh_normalnum[index] + face, which)
        place, coordinates = np.zeros_like(which), np.zeros((len(which), 2), np.float32)
    key = (key * (which.max(initial=0) + 1) + which) * (place.max(initial=0) + 1) + place
    return key, normals, coordinates


def _face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (F, 3) in float32, operation by operation as MuJoCo computes them."""
    first, second, third = (vertices[faces[:, k]] for k in range(3))
    a, b = second - first, third - first
    cross = np.stack(
        [a[:, i] * b[:, j] - a[:, j] * b[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=1
    )
    squares = cross * cross
    length = np.sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2])
    is_point = length < np.float32(1e-10)
    scale = np.float32(1) / np.where(is_point, np.float32(1), length)
    return np.where(is_point[:, None], np.array([0, 0, 1], np.float32), cross * scale[:, None])


@njit(inline="always", error_model="numpy")
def _area(ax, ay, bx, by, cx, cy):
    """Twice the area of a triangle, positive if it turns counter-clockwise."""
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)


@njit(inline="always", error_model="numpy")
def _covers_sample(ax, ay, bx, by, cx, cy, left, right, low, high, samples):
    """Whether a sample of some pixel may lie inside the triangle, whose box is given."""
    least = -2 * MARGIN * (right - left + high - low)
    for s in range(len(samples)):
        y = np.ceil(low - samples[s, 1]) + samples[s, 1]
        while y <= high:
            x = np.ceil(left - samples[s, 0]) + samples[s, 0]
            while x <= right:
                if (
                    _area(ax, ay, bx, by, x, y) >= least
                    and _area(bx, by, cx, cy, x, y) >= least
                    and _area(cx, cy, ax, ay, x, y) >= least
                ):
                    return True
                x += np.float32(1)
            y += np.float32(1)
    return False


@njit("void(float32[:,::1], float32[:,::1], float32[:,::1])", cache=True, error_model="numpy")
def project(vertices, to_pixels, points):
    """Write pixel coordinates and distance of vertices to the columns of `points`.

    vertices: (3, V), m. to_pixels: (3, 4), homogeneous pixel coordinates; the third is the distance
    along the view, m. points: (3, >= V).
    """
    for v in range(vertices.shape[1]):
        x, y, z = vertices[0, v], vertices[1, v], vertices[2, v]
        w = to_pixels[2, 0] * x + to_pixels[2, 1] * y + to_pixels[2, 2] * z + to_pixels[2, 3]
        px = to_pixels[0, 0] * x + to_pixels[0, 1] * y + to_pixels[0, 2] * z + to_pixels[0, 3]
        py = to_pixels[1, 0] * x + to_pixels[1, 1] * y + to_pixels[1, 2] * z + to_pixels[1, 3]
        points[0, v], points[1, v], points[2, v] = px / w, py / w, w


@njit("int64(float32[:,::1], uint32[:,::1], uint32[:,::1], float32[:,::1], float32, float32,"
      " uint32[:,::1])", cache=True, error_model="numpy")  # fmt: skip
def touching(points, faces, corners, samples, size, nearest, kept):
    """Write the corners of the triangles that may touch a sample to `kept`; returns their number.

    points: (3, V) from `project`. faces: (F, 3) columns of `points`, counter-clockwise seen from
    outside. corners: (F, 3) what is written for a face. samples: (S, 2) places inside a pixel, in
    [0, 1). size: width and height of the picture, px. nearest: m; triangles with a nearer vertex
    are always kept. kept: (> F, 3).
    """
    candidates = 0
    for f in range(len(faces)):  # without branches, which a processor would guess wrong
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, bx, cx = points[0, a], points[0, b], points[0, c]
        ay, by, cy = points[1, a], points[1, b], points[1, c]
        is_near = min(points[2, a], points[2, b], points[2, c]) < nearest
        left, right = min(ax, bx, cx) - MARGIN, max(ax, bx, cx) + MARGIN
        low, high = min(ay, by, cy) - MARGIN, max(ay, by, cy) + MARGIN
        looks_here = _area(ax, ay, bx, by, cx, cy) >= -2 * MARGIN * (right - left + high - low)
        in_frame = (right >= 0) & (high >= 0) & (left <= size) & (low <= size)
        kept[candidates, 0] = f
        candidates += is_near | (looks_here & in_frame)
    count = 0
    for candidate in range(candidates):
        f = kept[candidate, 0]
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ax, bx, cx = points[0, a], points[0, b], points[0, c]
        ay, by, cy = points[1, a], points[1, b], points[1, c]
        left, right = min(ax, bx, cx) - MARGIN, max(ax, bx, cx) + MARGIN
        low, high = min(ay, by, cy) - MARGIN, max(ay, by, cy) + MARGIN
        if (
            max(right - left, high - low) > SMALL
            or min(points[2, a], points[2, b], points[2, c]) < nearest
            or _covers_sample(ax, ay, bx, by, cx, cy, left, right, low, high, samples)
        ):
            for k in range(3):
                kept[count, k] = corners[f, k]
            count += 1
    return count
