"""Color, shine and texture of a geom, set in OpenGL as `mjr_render` of MuJoCo 3.3.2 sets them."""

import importlib
from typing import Any

import numpy as np

from libero_eval.env.render.gl_calls import Calls

TINY = 1e-15  # MuJoCo's mjMINVAL
# turned by 90 degrees about x
SKY_PLANES = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]], np.float32)
CYLINDER = 3  # place of MuJoCo's display list after that of the sphere
SHININESS = 128.0  # MuJoCo's range is 0 to 1, OpenGL's 0 to 128


class Surfaces:
    """Sets the surface of one geom after the other."""

    def __init__(self, gl: Calls, buffers: Any) -> None:
        """buffers: mujoco.MjrContext, which owns the textures."""
        mujoco: Any = importlib.import_module("mujoco")
        self._k: Any = importlib.import_module("OpenGL.GL")  # the constants
        self._gl, self._buffers = gl, buffers
        role = mujoco.mjtTextureRole
        roles, color = int(role.mjNTEXROLE), int(role.mjTEXROLE_RGB)
        self._texture_of = [int(t) for t in np.ravel(buffers.mat_texid)[color::roles]]
        self._names = [int(name) for name in buffers.texture]
        sky = int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)
        kinds = [int(t) for t in buffers.textureType[: buffers.ntexture]]
        self._sky = self._names[kinds.index(sky)] if sky in kinds else None
        self._is_flat = [t == int(mujoco.mjtTexture.mjTEXTURE_2D) for t in buffers.textureType]

    def begin(self, geom: Any, reflectance: float = 1.0) -> None:
        """Before a geom is drawn. reflectance: of the mirror it is seen in."""
        gl, k = self._gl, self._k
        if geom.matid >= 0:
            self._texture_on(geom)
        rgba = np.array(geom.rgba, np.float32)
        rgba[:3] *= np.float32(reflectance)
        glow = np.append(np.float32(geom.emission) * rgba[:3], np.float32(1))
        shine = np.array([geom.specular] * 3 + [1], np.float32)
        gl.Materialfv(k.GL_FRONT_AND_BACK, k.GL_EMISSION, glow.ctypes.data)
        gl.Color4fv(rgba.ctypes.data)
        gl.Materialf(k.GL_FRONT_AND_BACK, k.GL_SHININESS, geom.shininess * SHININESS)
        gl.Materialfv(k.GL_FRONT_AND_BACK, k.GL_SPECULAR, shine.ctypes.data)

    def end(self, geom: Any) -> None:
        """After it was drawn."""
        if geom.matid < 0:
            return
        gl, k = self._gl, self._k
        for switch in self._switches(geom):
            gl.Disable(switch)
        if not self._switches(geom):
            gl.Disable(k.GL_TEXTURE_2D)

    def draw_sky(self, place: np.ndarray, radius: float) -> None:
        """The skybox: a cylinder around a place, m. Nothing without a skybox texture."""
        gl, k = self._gl, self._k
        if self._sky is None:
            return
        kinds = (k.GL_TEXTURE_CUBE_MAP, k.GL_TEXTURE_GEN_S, k.GL_TEXTURE_GEN_T, k.GL_TEXTURE_GEN_R)
        gl.Disable(k.GL_LIGHTING)
        gl.Disable(k.GL_COLOR_MATERIAL)
        gl.CullFace(k.GL_FRONT)
        gl.PushMatrix()
        gl.Translatef(*(float(value) for value in place))
        gl.Scalef(radius, radius, radius)
        for kind in kinds:
            gl.Enable(kind)
        gl.BindTexture(k.GL_TEXTURE_CUBE_MAP, self._sky)
        for axis, row in zip((k.GL_S, k.GL_T, k.GL_R), SKY_PLANES, strict=True):
            gl.TexGenfv(axis, k.GL_OBJECT_PLANE, row.ctypes.data)
        gl.Color4f(1.0, 1.0, 1.0, 1.0)
        gl.CallList(self._buffers.baseBuiltin + CYLINDER)
        for kind in kinds:
            gl.Disable(kind)
        gl.PopMatrix()
        gl.Enable(k.GL_LIGHTING)
        gl.Enable(k.GL_COLOR_MATERIAL)
        gl.CullFace(k.GL_BACK)

    def _switches(self, geom: Any) -> tuple[int, ...]:
        """What a geom's texture needs enabled; empty without a texture."""
        k = self._k
        texture = self._texture_of[geom.matid]
        if texture < 0:
            return ()
        if geom.texcoord:
            return (k.GL_TEXTURE_2D,)
        if self._is_flat[texture]:
            return (k.GL_TEXTURE_2D, k.GL_TEXTURE_GEN_S, k.GL_TEXTURE_GEN_T)
        generated = (k.GL_TEXTURE_GEN_S, k.GL_TEXTURE_GEN_T, k.GL_TEXTURE_GEN_R)
        return (k.GL_TEXTURE_CUBE_MAP, *generated)

    def _texture_on(self, geom: Any) -> None:
        gl, k = self._gl, self._k
        switches = self._switches(geom)
        if not switches:
            return
        for switch in switches:
            gl.Enable(switch)
        gl.BindTexture(switches[0], self._names[self._texture_of[geom.matid]])
        for row, plane in enumerate(self._planes(geom, len(switches))):
            gl.TexGenfv((k.GL_S, k.GL_T, k.GL_R)[row], k.GL_OBJECT_PLANE, plane.ctypes.data)

    def _planes(self, geom: Any, switches: int) -> list[np.ndarray]:
        """The planes that generate texture coordinates from positions: float32 (4,) each."""
        size = geom.size
        uniform = bool(self._buffers.mat_texuniform[geom.matid])
        if switches == 1:
            return []
        if switches == 4:
            scales = size if uniform else np.ones(3, np.float32)
            return [np.append(row, np.float32(0)) for row in np.diag(scales).astype(np.float32)]
        scale = np.array(self._buffers.mat_texrepeat[2 * geom.matid :][:2], np.float32)
        for axis in range(2):
            if geom.dataid >= 0 and size[axis] > 0:
                scale[axis] = np.float64(scale[axis]) / max(TINY, float(size[axis]))
            if uniform and size[axis] > 0:
                scale[axis] *= size[axis]
        return [
            np.array([0.5 * scale[0], 0, 0, -0.5], np.float32),
            np.array([0, -0.5 * scale[1], 0, -0.5], np.float32),
        ]
