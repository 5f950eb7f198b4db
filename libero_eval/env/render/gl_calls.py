"""OpenGL straight from the library (PyOpenGL's wrappers cost more than the calls), and what of a geom
is set there: color, shine and texture, as `mjr_render` of MuJoCo 3.3.2 sets them."""

import ctypes
import importlib
from typing import Any

import numpy as np

_TYPES = {"i": ctypes.c_int, "f": ctypes.c_float, "p": ctypes.c_void_p, "s": ctypes.c_ssize_t}
_SIGNATURES = (  # function:types of its arguments
    "BindBuffer:ii BindTexture:ii BlendFunc:ii BufferData:ispi CallList:i Clear:i ClipPlane:ip "
    "Color4f:ffff Color4fv:p ColorMask:iiii CullFace:i DeleteBuffers:ip DepthMask:i Disable:i "
    "DisableClientState:i DrawElements:iiip Enable:i EnableClientState:i FrontFace:i GenBuffers:ip "
    "GetFloatv:ip GetMultisamplefv:iip GetString:i Lightfv:iip Materialf:iif Materialfv:iip "
    "MultMatrixf:p NormalPointer:iip PopMatrix: PushMatrix: Scalef:fff StencilFunc:iii StencilOp:iii "
    "TexCoordPointer:iiip TexGenfv:iip Translatef:fff VertexPointer:iiip"
)
TINY = 1e-15  # MuJoCo's mjMINVAL
# turned by 90 degrees about x
SKY_PLANES = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0]], np.float32)
CYLINDER = 3  # place of MuJoCo's display list after that of the sphere
SHININESS = 128.0  # MuJoCo's range is 0 to 1, OpenGL's 0 to 128


class Calls:
    """Functions and constants as attributes, without the prefix: `gl.Enable(gl.BLEND)`."""

    def __init__(self) -> None:
        library = importlib.import_module("OpenGL.platform").PLATFORM.GL
        for name, arguments in (entry.split(":") for entry in _SIGNATURES.split()):
            function = getattr(library, f"gl{name}")
            function.argtypes = [_TYPES[argument] for argument in arguments]
            function.restype = ctypes.c_char_p if name == "GetString" else None
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        constant = int(getattr(importlib.import_module("OpenGL.GL"), f"GL_{name}"))
        setattr(self, name, constant)
        return constant


class Surfaces:
    """Sets the surface of one geom after the other."""

    def __init__(self, gl: Calls, buffers: Any) -> None:
        """buffers: mujoco.MjrContext, which owns the textures."""
        mujoco: Any = importlib.import_module("mujoco")
        self._gl, self._buffers = gl, buffers
        role = mujoco.mjtTextureRole
        roles, color = int(role.mjNTEXROLE), int(role.mjTEXROLE_RGB)
        self._texture_of = [int(t) for t in np.ravel(buffers.mat_texid)[color::roles]]
        self._names = [int(name) for name in buffers.texture]
        sky = int(mujoco.mjtTexture.mjTEXTURE_SKYBOX)
        kinds = [int(t) for t in buffers.textureType[: buffers.ntexture]]
        self._sky = self._names[kinds.index(sky)] if sky in kinds else None
        self._is_flat = [t == int(mujoco.mjtTexture.mjTEXTURE_2D) for t in buffers.textureType]
        self._generated = (gl.TEXTURE_GEN_S, gl.TEXTURE_GEN_T, gl.TEXTURE_GEN_R)

    def begin(self, geom: Any, reflectance: float = 1.0) -> None:
        """Before a geom is drawn. reflectance: of the mirror it is seen in."""
        gl, switches = self._gl, self._switches(geom)
        for switch in switches:
            gl.Enable(switch)
        if switches:
            gl.BindTexture(switches[0], self._names[self._texture_of[geom.matid]])
            planes = self._planes(geom, len(switches))
            for axis, plane in zip((gl.S, gl.T, gl.R), planes, strict=False):
                gl.TexGenfv(axis, gl.OBJECT_PLANE, plane.ctypes.data)
        rgba = np.array(geom.rgba, np.float32)
        rgba[:3] *= np.float32(reflectance)
        glow = np.append(np.float32(geom.emission) * rgba[:3], np.float32(1))
        shine = np.array([geom.specular] * 3 + [1], np.float32)
        gl.Materialfv(gl.FRONT_AND_BACK, gl.EMISSION, glow.ctypes.data)
        gl.Color4fv(rgba.ctypes.data)
        gl.Materialf(gl.FRONT_AND_BACK, gl.SHININESS, geom.shininess * SHININESS)
        gl.Materialfv(gl.FRONT_AND_BACK, gl.SPECULAR, shine.ctypes.data)

    def end(self, geom: Any) -> None:
        """After it was drawn."""
        if geom.matid >= 0:
            for switch in self._switches(geom) or (self._gl.TEXTURE_2D,):
                self._gl.Disable(switch)

    def draw_sky(self, place: np.ndarray, radius: float) -> None:
        """The skybox: a cylinder around a place, m. Nothing without a skybox texture."""
        gl = self._gl
        if self._sky is None:
            return
        kinds = (gl.TEXTURE_CUBE_MAP, *self._generated)
        gl.Disable(gl.LIGHTING)
        gl.Disable(gl.COLOR_MATERIAL)
        gl.CullFace(gl.FRONT)
        gl.PushMatrix()
        gl.Translatef(*map(float, place))
        gl.Scalef(radius, radius, radius)
        for kind in kinds:
            gl.Enable(kind)
        gl.BindTexture(gl.TEXTURE_CUBE_MAP, self._sky)
        for axis, row in zip((gl.S, gl.T, gl.R), SKY_PLANES, strict=True):
            gl.TexGenfv(axis, gl.OBJECT_PLANE, row.ctypes.data)
        gl.Color4f(1.0, 1.0, 1.0, 1.0)
        gl.CallList(self._buffers.baseBuiltin + CYLINDER)
        for kind in kinds:
            gl.Disable(kind)
        gl.PopMatrix()
        gl.Enable(gl.LIGHTING)
        gl.Enable(gl.COLOR_MATERIAL)
        gl.CullFace(gl.BACK)

    def _switches(self, geom: Any) -> tuple[int, ...]:
        """What a geom's texture needs enabled; empty without a texture."""
        texture = self._texture_of[geom.matid] if geom.matid >= 0 else -1
        if texture < 0:
            return ()
        if geom.texcoord:
            return (self._gl.TEXTURE_2D,)
        if self._is_flat[texture]:
            return (self._gl.TEXTURE_2D, *self._generated[:2])
        return (self._gl.TEXTURE_CUBE_MAP, *self._generated)

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
