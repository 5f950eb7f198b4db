"""Which triangles of a mesh can touch a picture: those that cannot need not be sent to the renderer.

A software renderer's time goes by triangles: LIBERO's scanned objects have 15,000 each and are 30
pixels wide. Most of theirs look away, lie beside the picture, or fall between the four samples of
every pixel. `touching` leaves out a triangle only when it is certain to touch no sample, so that
the picture is the same bit for bit.
"""

import numpy as np
from numba import njit

# px; twice what a vertex may be off: the renderer snaps it by up to 1/512 and computes in float32.
# Three vertices in a box of w x h, each off by m / 2, change twice an area by less than 2 m (w + h).
MARGIN = np.float32(1 / 128)
SMALL = np.float32(2.0)  # px; triangles of at most this extent are held against every sample


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
