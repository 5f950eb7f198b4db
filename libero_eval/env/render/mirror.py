"""A mirror's picture of the scene, drawn before the scene, as `mjr_render` of MuJoCo 3.3.2 does.

The mirror is the upper face of a box. Its outline goes to the stencil buffer, and inside of it the
scene is drawn a second time, reflected and dimmed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from libero_eval.env.render.gl_calls import Calls, Surfaces


@dataclass(frozen=True)
class View:
    """What triangles are held against."""

    to_pixels: np.ndarray  # (3, 4), world to homogeneous pixels and distance
    nearest: float  # m
    samples: np.ndarray  # (S, 2) places inside a pixel
    size: int  # width and height, px


class Mirror:
    """The upper face of a reflective box geom."""

    def __init__(self, gl: Calls, box: Any) -> None:
        """box: mujoco.MjvGeom."""
        self._gl, self.box = gl, box
        self.reflectance = float(box.reflectance)
        self._normal = np.array(box.mat[:, 2], np.float32)
        self._place = np.array(box.pos, np.float32) + box.size[2] * self._normal
        self._reflection = self._matrix()

    def faces(self, head: np.ndarray) -> bool:
        """Whether the face is seen from its front from a place."""
        return bool(np.dot(head - self._place, self._normal) >= 0)

    def view(self, view: View) -> View | None:
        """What the reflected scene is held against; None if the face is outside the picture.

        The picture is flipped, so that what turned clockwise in the mirror turns back, and cut to
        the face.
        """
        corners = np.array([[x, y, 1, 1] for x in (-1, 1) for y in (-1, 1)], np.float64)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.box.mat * self.box.size, self.box.pos
        x, y, w = view.to_pixels @ pose @ corners.T
        low, high = np.zeros(2), np.full(2, view.size)
        if w.min() > view.nearest:
            places = np.stack([x / w, y / w])
            low = np.maximum(low, np.floor(places.min(axis=1)) - 1)
            high = np.minimum(high, np.ceil(places.max(axis=1)) + 1)
        if (low >= high).any():
            return None
        rows = view.to_pixels @ self._reflection.astype(np.float64)
        flipped = [high[0] * rows[2] - rows[0], rows[1] - low[1] * rows[2], rows[2]]
        samples = view.samples * np.array([-1, 1], np.float32) + np.array([1, 0], np.float32)
        return replace(
            view, to_pixels=np.stack(flipped), samples=samples, size=int((high - low).max())
        )

    @contextmanager
    def open(self, surfaces: Surfaces, plane_list: int, scene: Any) -> Iterator[None]:
        """What is drawn inside is the reflected scene. plane_list: MuJoCo's unit plane."""
        gl = self._gl
        self._draw_outline(surfaces, plane_list)
        gl.Enable(gl.CLIP_PLANE0)
        depth = np.float32(0)
        for place, normal in zip(self._place, self._normal, strict=True):
            depth += place * normal
        equation = np.append(-self._normal, depth).astype(np.float64)
        gl.ClipPlane(gl.CLIP_PLANE0, equation.ctypes.data)
        gl.FrontFace(gl.CW)
        gl.PushMatrix()
        gl.MultMatrixf(np.ascontiguousarray(self._reflection.T).ctypes.data)
        self._place_lights(scene)
        yield
        gl.Disable(gl.STENCIL_TEST)
        gl.Disable(gl.CLIP_PLANE0)
        gl.PopMatrix()
        gl.FrontFace(gl.CCW)
        self._place_lights(scene)

    def _draw_outline(self, surfaces: Surfaces, plane_list: int) -> None:
        """Mark the face in the stencil buffer, and draw only there from now on."""
        gl, box = self._gl, self.box
        pose = np.eye(4, dtype=np.float32)
        pose[:3, :3] = box.mat
        gl.Disable(gl.DEPTH_TEST)
        gl.ColorMask(0, 0, 0, 0)
        gl.Enable(gl.STENCIL_TEST)
        gl.Clear(gl.STENCIL_BUFFER_BIT)
        gl.StencilFunc(gl.ALWAYS, 1, 0xFF)
        gl.StencilOp(gl.REPLACE, gl.REPLACE, gl.REPLACE)
        surfaces.begin(box)
        gl.PushMatrix()
        gl.Translatef(*map(float, self._place))
        gl.MultMatrixf(np.ascontiguousarray(pose.T).ctypes.data)
        gl.Scalef(float(box.size[0]), float(box.size[1]), 1.0)
        gl.CallList(plane_list)
        gl.PopMatrix()
        surfaces.end(box)
        gl.Enable(gl.DEPTH_TEST)
        gl.ColorMask(1, 1, 1, 1)
        gl.StencilFunc(gl.EQUAL, 1, 0xFF)
        gl.StencilOp(gl.KEEP, gl.KEEP, gl.KEEP)

    def _matrix(self) -> np.ndarray:
        """Reflection at the face, float32 (4, 4), operation by operation as MuJoCo computes it."""
        products = np.outer(self._normal, self._normal)
        matrix = np.eye(4, dtype=np.float32)
        for row in range(3):
            along = np.float32(0)
            for column in range(3):
                identity = np.float32(row == column)
                matrix[row, column] = identity - np.float32(2) * products[row, column]
                along += products[row, column] * self._place[column]
            matrix[row, 3] = np.float32(2) * along
        return matrix

    def _place_lights(self, scene: Any) -> None:
        gl = self._gl
        for index in range(scene.nlight):
            light = scene.lights[index]
            name = gl.LIGHT0 + index
            if light.directional:
                place = np.append(-np.array(light.dir), 0).astype(np.float32)
            else:
                direction = np.append(light.dir, 0).astype(np.float32)
                gl.Lightfv(name, gl.SPOT_DIRECTION, direction.ctypes.data)
                place = np.append(light.pos, 1).astype(np.float32)
            gl.Lightfv(name, gl.POSITION, place.ctypes.data)
