"""The door to MuJoCo: which GL it uses is settled before its first import."""

import ctypes.util
import logging
import os
from functools import cache
from types import ModuleType

from invact_vla.core.errors import UserError


@cache
def load_mujoco() -> ModuleType:
    """Import mujoco with a headless GL: EGL where its library is present, else OSMesa.

    MUJOCO_GL wins if it is set. Software GL is kept to the calling thread (LP_NUM_THREADS=0):
    workers are parallel as processes, and small frames render faster so (0.67 ms against 1.03 ms at
    112 px). Raises UserError naming the system package when no GL library is there.
    """
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if "MUJOCO_GL" not in os.environ:
        os.environ["MUJOCO_GL"] = _present_gl()
    logging.getLogger("OpenGL").setLevel(logging.WARNING)  # it reports what it can do without
    try:
        import mujoco
        import mujoco.gl_context
    except (
        ImportError,
        AttributeError,
    ) as error:  # PyOpenGL's way of saying that a library is absent
        raise no_gl(error) from error
    return mujoco


def no_gl(error: Exception) -> UserError:
    """The complaint when rendering can't start."""
    return UserError(
        f"cannot render with MUJOCO_GL={os.environ['MUJOCO_GL']} ({error}): install EGL (Debian: "
        "apt install libegl1 libgl1-mesa-dri) or OSMesa (apt install libosmesa6), and leave "
        "MUJOCO_GL unset"
    )


def _present_gl() -> str:
    if ctypes.util.find_library("EGL"):
        return "egl"
    if ctypes.util.find_library("OSMesa"):
        return "osmesa"
    raise UserError(
        "no headless GL library: rendering needs EGL (Debian: apt install libegl1 libgl1-mesa-dri) "
        "or OSMesa (apt install libosmesa6)"
    )
