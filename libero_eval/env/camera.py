"""Frames of a MuJoCo scene, with one GL context a process.

robosuite makes a GL context for every environment. Here all scenes of a process share one context,
made at the first frame and never inherited by a forked child. Scene options are robosuite's
(`utils/binding_utils.py` of 1.4.0), so that the pixels are the same.
"""

import atexit
import importlib
import os
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from libero_eval.env import gl
from libero_eval.env.render.soft_renderer import SoftRenderer, is_worth_it

CAMERA_NAMES = {"agentview": "agentview", "wrist": "robot0_eye_in_hand"}
MAX_GEOMS = 1000  # robosuite's MjvScene
MIN_WIDTH, MIN_HEIGHT = 640, 480  # robosuite's smallest offscreen buffer

_context: dict[int, Any] = {}  # process id -> GL context


def _make_current() -> None:
    pid = os.getpid()
    if pid not in _context:
        _context.clear()  # a forked parent's context must not be used, nor freed, here
        _context[pid] = _new_context()
        atexit.register(lambda: _context.pop(pid).free() if pid == os.getpid() else None)
    _context[pid].make_current()


def _new_context() -> Any:
    """A context of the backend that works here, whatever `import mujoco` chose at its time."""
    if os.environ.get("MUJOCO_GL") not in gl.BACKENDS:
        gl.probe()
    backend = os.environ["MUJOCO_GL"]
    try:
        module = importlib.import_module(f"mujoco.{backend}")
        return module.GLContext(MIN_WIDTH, MIN_HEIGHT)
    except (RuntimeError, ImportError, AttributeError) as error:
        raise UserError(
            f"no GL context for rendering with MUJOCO_GL={backend}: {error}; "
            "install a Debian package: libegl1 (EGL) or libosmesa6 (OSMesa)"
        ) from error


class Camera:
    """Renders one model. Made lazily by the simulator; cheap to keep."""

    def __init__(self, model: Any) -> None:
        """model: mujoco.MjModel whose scene is rendered."""
        mujoco: Any = importlib.import_module("mujoco")
        _make_current()
        self._mujoco, self._model = mujoco, model
        self._scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        self._options = mujoco.MjvOption()
        self._options.geomgroup[0] = 0  # collision geometry
        self._options.geomgroup[1] = 1  # visual geometry
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._perturbation = mujoco.MjvPerturb()
        self._buffers: Any = None
        self._soft: SoftRenderer | None = None  # where it is quicker than MuJoCo's own

    def _prepare(self, size: int) -> None:
        """Have an offscreen buffer of at least size x size, and make it the target."""
        m = self._mujoco
        visual = self._model.vis.global_
        if self._buffers is not None and size > min(visual.offwidth, visual.offheight):
            self._free_buffers()
        if self._buffers is None:
            visual.offwidth = max(size, visual.offwidth, MIN_WIDTH)
            visual.offheight = max(size, visual.offheight, MIN_HEIGHT)
            self._buffers = m.MjrContext(self._model, m.mjtFontScale.mjFONTSCALE_150)
            self._soft = (
                SoftRenderer(self._model, self._buffers) if is_worth_it(self._model) else None
            )
        m.mjr_setBuffer(m.mjtFramebuffer.mjFB_OFFSCREEN, self._buffers)

    def frame(self, data: Any, camera: str, size: int) -> np.ndarray:
        """One frame as the simulator returns it: uint8 (size, size, 3) RGB, bottom row first.

        data: mujoco.MjData after a forward pass. camera: "agentview" or "wrist".
        """
        if camera not in CAMERA_NAMES:
            raise UserError(f"unknown camera {camera!r}; known: {', '.join(CAMERA_NAMES)}")
        m = self._mujoco
        _make_current()
        self._prepare(size)
        viewport = m.MjrRect(0, 0, size, size)
        self._camera.fixedcamid = self._model.camera(CAMERA_NAMES[camera]).id
        m.mjv_updateScene(
            self._model, data, self._options, self._perturbation, self._camera,
            m.mjtCatBit.mjCAT_ALL, self._scene,
        )  # fmt: skip
        if self._soft is not None:
            self._soft.render(viewport, self._scene)
        else:
            m.mjr_render(viewport, self._scene, self._buffers)
        image = np.empty((size, size, 3), dtype=np.uint8)
        m.mjr_readPixels(image, None, viewport, self._buffers)
        return image

    def close(self) -> None:
        """Free the GL objects of this scene."""
        if self._buffers is not None and os.getpid() in _context:
            _make_current()
            self._free_buffers()
        self._buffers = self._soft = None

    def _free_buffers(self) -> None:
        if self._soft is not None:
            self._soft.free()
        self._buffers.free()
        self._buffers = self._soft = None
