"""Draws a MuJoCo scene on the CPU in half the time of `mjr_render`, with the same bits.

MuJoCo clears the picture and sets up the camera, the lights and the sky; this module then draws the
geoms in MuJoCo's order with the OpenGL calls that `mjr_render` of MuJoCo 3.3.2 makes, except that
of the meshes it sends only the triangles that can touch the picture (see `triangles`). Scenes that
need another pass (shadows, labels) are left to MuJoCo.
"""

import ctypes
import importlib
from typing import Any

import numpy as np

from libero_eval.env.render.gl_calls import CYLINDER, Calls, Surfaces
from libero_eval.env.render.mirror import Mirror, View

IMITATED = "3.3.2"  # version of MuJoCo
OPAQUE_ALPHA = 0.995  # from which MuJoCo draws a geom without blending
NEAR_FACTOR = 16.0  # triangles nearer than this many near planes are not examined
STRIDE, NORMAL_AT, COORDINATES_AT = 32, 12, 24  # bytes of a corner in the vertex buffer
SPHERE_TOP, SPHERE_BOTTOM, OPEN_CYLINDER, BOX = 1, 2, 4, 6  # MuJoCo's display lists, as CYLINDER
RENDERER = 0x1F01  # GL_RENDERER
VISUAL = 1  # group of the geoms that are drawn
MANY_TRIANGLES = 160_000


def is_worth_it(model: Any) -> bool:
    """Whether this is the MuJoCo whose calls are imitated, the current GL context is Mesa's software
    renderer, and the model has many triangles.

    A GPU does not mind triangles; the robot alone has 140,000, which MuJoCo draws as quickly.
    """
    if importlib.import_module("mujoco").__version__ != IMITATED:
        return False
    if not (Calls().GetString(RENDERER) or b"").startswith((b"llvmpipe", b"softpipe")):
        return False
    visible = (model.geom_group == VISUAL) & (model.geom_dataid >= 0)
    return int(model.mesh_facenum[model.geom_dataid[visible]].sum()) > MANY_TRIANGLES


class SoftRenderer:
    """Renders the scenes of one model into the buffers of one MjrContext."""

    def __init__(self, model: Any, buffers: Any) -> None:
        """model: mujoco.MjModel. buffers: mujoco.MjrContext, of the current GL context."""
        self._mujoco: Any = importlib.import_module("mujoco")
        self._triangles = importlib.import_module("libero_eval.env.render.triangles")
        self._gl = Calls()
        self._buffers = buffers
        self._surfaces = Surfaces(self._gl, buffers)
        self._meshes, corners = self._triangles.mesh_buffer(model)
        name, gl = (ctypes.c_uint * 1)(), self._gl
        gl.GenBuffers(1, name)
        gl.BindBuffer(gl.ARRAY_BUFFER, name[0])
        gl.BufferData(gl.ARRAY_BUFFER, corners.nbytes, corners.ctypes.data, gl.STATIC_DRAW)
        gl.BindBuffer(gl.ARRAY_BUFFER, 0)
        self._vertex_buffer = int(name[0])
        # where a pixel is sampled: float32 (S, 2) in [0, 1)
        self._samples = np.full((max(buffers.offSamples, 1), 2), 0.5, np.float32)
        for index in range(buffers.offSamples):
            place = self._samples[index].ctypes.data
            gl.GetMultisamplefv(gl.SAMPLE_POSITION, index, place)
        vertices = max((m.vertices.shape[1] for m in self._meshes), default=0)
        faces = max((len(m.faces) for m in self._meshes), default=0)
        self._points = np.empty((3, vertices), np.float32)
        self._kept = np.empty((faces + 1, 3), np.uint32)
        kind, first = self._mujoco.mjtGeom, buffers.baseBuiltin
        self._mesh, self._plane = int(kind.mjGEOM_MESH), int(kind.mjGEOM_PLANE)
        self._box, self._capsule = int(kind.mjGEOM_BOX), int(kind.mjGEOM_CAPSULE)
        self._shapes = {
            int(kind.mjGEOM_SPHERE): first,
            int(kind.mjGEOM_ELLIPSOID): first,
            int(kind.mjGEOM_CYLINDER): first + CYLINDER,
            self._box: first + BOX,
        }

    def free(self) -> None:
        """Free the vertex buffer; the GL context must be current."""
        self._gl.DeleteBuffers(1, (ctypes.c_uint * 1)(self._vertex_buffer))

    # -- one picture

    def render(self, viewport: Any, scene: Any) -> None:
        """Draw a scene, as `mujoco.mjr_render(viewport, scene, buffers)` does."""
        geoms = [scene.geoms[index] for index in range(scene.ngeom)]
        blended = [geom for geom in geoms if 0 < geom.rgba[3] < OPAQUE_ALPHA]
        if len(blended) > 1 or not self._is_plain(viewport, scene, geoms):
            self._mujoco.mjr_render(viewport, scene, self._buffers)
            return
        opaque = [geom for geom in geoms if geom.rgba[3] >= OPAQUE_ALPHA]
        boxes = [geom for geom in opaque if geom.type == self._box and geom.reflectance > 0]
        sky = self._mujoco.mjtRndFlag.mjRND_SKYBOX
        with_sky, scene.flags[sky] = scene.flags[sky], scene.flags[sky] and not boxes
        scene.ngeom = 0  # without geoms, MuJoCo sets up everything else
        self._mujoco.mjr_render(viewport, scene, self._buffers)
        scene.ngeom, scene.flags[sky] = len(geoms), with_sky
        view = self._prepare(viewport, scene)
        if boxes:  # MuJoCo has one mirror at most
            opaque = [geom for geom in opaque if geom is not boxes[0]]
            self._draw_mirror(Mirror(self._gl, boxes[0]), scene, view, [*opaque, *blended])
        self._draw_all(opaque, view)
        if boxes and with_sky:
            radius = np.float32(float(scene.camera[0].frustum_far) * np.float32(0.7))
            self._surfaces.draw_sky(_head(scene), float(radius))
        self._draw_all(blended, view)
        self._finish(scene)

    def _draw_mirror(self, mirror: Mirror, scene: Any, view: View, geoms: list[Any]) -> None:
        gl = self._gl
        reflected = mirror.view(view) if mirror.faces(_head(scene)) else None
        if reflected is not None:
            with mirror.open(self._surfaces, self._buffers.basePlane, scene):
                self._draw_all(geoms, reflected, mirror.reflectance)
        gl.Enable(gl.BLEND)
        gl.BlendFunc(gl.ONE, gl.ONE)
        self._draw(mirror.box, view)
        gl.Disable(gl.BLEND)

    def _is_plain(self, viewport: Any, scene: Any, geoms: list[Any]) -> bool:
        """Whether one pass over the geoms, of shapes known here, is all that MuJoCo would do."""
        flag = self._mujoco.mjtRndFlag
        flags = scene.flags
        rare = (flag.mjRND_SEGMENT, flag.mjRND_WIREFRAME, flag.mjRND_FOG, flag.mjRND_ADDITIVE)
        if any(flags[f] for f in rare) or not flags[flag.mjRND_CULL_FACE]:
            return False
        if scene.nskin or scene.stereo or scene.enabletransform or scene.framewidth:
            return False
        if viewport.width != viewport.height:
            return False
        lights = [scene.lights[index] for index in range(scene.nlight)]
        shadows = flags[flag.mjRND_SHADOW] and self._buffers.shadowFBO
        if shadows and any(light.castshadow for light in lights):
            return False
        return all(self._is_known(geom, _head(scene)) for geom in geoms)

    def _is_known(self, geom: Any, head: np.ndarray) -> bool:
        if geom.label:
            return False
        if geom.type == self._plane:  # seen from the front, finite, no mirror
            in_front = np.dot(head - geom.pos, geom.mat[:, 2]) > 0
            return bool(in_front and geom.size[:2].all() and not geom.reflectance)
        return geom.type in (self._mesh, self._capsule) or geom.type in self._shapes

    def _prepare(self, viewport: Any, scene: Any) -> View:
        """Lights and vertex arrays; returns what triangles are held against."""
        gl = self._gl
        for light in range(scene.nlight):
            gl.Enable(gl.LIGHT0 + light)
        gl.BindBuffer(gl.ARRAY_BUFFER, self._vertex_buffer)
        gl.VertexPointer(3, gl.FLOAT, STRIDE, None)
        gl.NormalPointer(gl.FLOAT, STRIDE, NORMAL_AT)
        gl.TexCoordPointer(2, gl.FLOAT, STRIDE, COORDINATES_AT)
        gl.EnableClientState(gl.VERTEX_ARRAY)
        gl.EnableClientState(gl.NORMAL_ARRAY)
        clip = self._matrix(gl.PROJECTION_MATRIX) @ self._matrix(gl.MODELVIEW_MATRIX)
        x, y, w = clip[0], clip[1], clip[3]
        half = viewport.width / 2
        to_pixels = np.stack([(x + w) * half, (y + w) * half, w])
        nearest = NEAR_FACTOR * float(scene.camera[0].frustum_near)
        return View(to_pixels, nearest, self._samples, viewport.width)

    def _matrix(self, which: int) -> np.ndarray:
        """A current matrix of GL: float64 (4, 4)."""
        values = np.empty(16, np.float32)
        self._gl.GetFloatv(which, values.ctypes.data)
        return values.reshape(4, 4).T.astype(np.float64)

    def _finish(self, scene: Any) -> None:
        gl = self._gl
        gl.DisableClientState(gl.VERTEX_ARRAY)
        gl.DisableClientState(gl.NORMAL_ARRAY)
        gl.BindBuffer(gl.ARRAY_BUFFER, 0)
        for light in range(scene.nlight):
            gl.Disable(gl.LIGHT0 + light)

    # -- geoms

    def _draw_all(self, geoms: list[Any], view: View, reflectance: float = 1.0) -> None:
        """Transparent ones as MuJoCo does: twice, from the front and from the back."""
        gl = self._gl
        for geom in geoms:
            if geom.rgba[3] >= OPAQUE_ALPHA:
                self._draw(geom, view, reflectance)
                continue
            gl.DepthMask(0)
            gl.Enable(gl.BLEND)
            gl.BlendFunc(gl.SRC_ALPHA, gl.ONE_MINUS_SRC_ALPHA)
            self._draw(geom, view, reflectance)
            self._draw(geom, view, reflectance)
            gl.DepthMask(1)
            gl.Disable(gl.BLEND)

    def _draw(self, geom: Any, view: View, reflectance: float = 1.0) -> None:
        gl = self._gl
        pose = np.eye(4, dtype=np.float32)
        pose[:3, :3] = geom.mat
        x, y, z = (float(value) for value in geom.pos)
        mesh, count = None, 0
        if geom.type == self._mesh:
            mesh = self._meshes[geom.dataid // 2]
            world = pose.astype(np.float64)
            world[:3, 3] = x, y, z
            to_pixels = (view.to_pixels @ world).astype(np.float32)
            self._triangles.project(mesh.vertices, to_pixels, self._points)
            count = self._triangles.touching(
                self._points, mesh.faces, mesh.corners, view.samples, view.size, view.nearest,
                self._kept,
            )  # fmt: skip
            if not count:  # none may touch the picture
                return
        self._surfaces.begin(geom, reflectance)
        gl.PushMatrix()
        gl.Translatef(x, y, z)
        gl.MultMatrixf(np.ascontiguousarray(pose.T).ctypes.data)
        if mesh is not None:
            if mesh.textured:
                gl.EnableClientState(gl.TEXTURE_COORD_ARRAY)
            gl.DrawElements(gl.TRIANGLES, 3 * count, gl.UNSIGNED_INT, self._kept.ctypes.data)
            if mesh.textured:
                gl.DisableClientState(gl.TEXTURE_COORD_ARRAY)
        elif geom.type == self._plane:
            gl.CallList(self._buffers.basePlane + geom.dataid + 1)
        elif geom.type == self._capsule:
            self._draw_capsule(geom.size)
        else:
            gl.Scalef(*map(float, geom.size))
            gl.CallList(self._shapes[geom.type])
        gl.PopMatrix()
        self._surfaces.end(geom)

    def _draw_capsule(self, size: np.ndarray) -> None:
        gl, first = self._gl, self._buffers.baseBuiltin
        half = size[2]
        radius = np.float32(0.5 * np.float64(size[0] + size[1]))
        gl.Scalef(float(size[0]), float(size[1]), float(half))
        gl.CallList(first + OPEN_CYLINDER)
        gl.Scalef(1.0, 1.0, float(radius / half))
        gl.Translatef(0.0, 0.0, float((half - radius) / radius))
        gl.CallList(first + SPHERE_TOP)
        gl.Translatef(0.0, 0.0, float(2 * (radius - half) / radius))
        gl.CallList(first + SPHERE_BOTTOM)


def _head(scene: Any) -> np.ndarray:
    return (scene.camera[0].pos + scene.camera[1].pos) / 2
