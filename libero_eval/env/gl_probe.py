"""Run as a script in a child process by `gl.find`: render a tiny scene with MUJOCO_GL's backend.

Prints `renders on device N` for the first EGL device whose picture is not of one color (0 for
OSMesa). robosuite takes device 0 unless told otherwise, so the devices are tried one by one. A device
that the environment names is tried alone; if it does not render, the last line says which ones do.
"""

import importlib
import os
import sys
from typing import Any

SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 3"/>
    <geom type="box" size="1 1 .1" rgba="1 0 0 1"/>
    <camera name="eye" pos="0 0 5"/>
  </worldbody>
</mujoco>
"""
DEVICE_VARIABLE = "MUJOCO_EGL_DEVICE_ID"


def main() -> None:
    """Exit code 0 if some device renders. Without finalisers: those of broken drivers are noisy."""
    chosen = os.environ.get(DEVICE_VARIABLE, "").strip() if os.environ["MUJOCO_GL"] == "egl" else ""
    for device in [chosen] if chosen else _devices():
        if _renders_on(device):
            sys.stdout.write(f"renders on device {device or 0}\n")
            sys.stdout.flush()
            os._exit(0)
    good = [device for device in _devices() if _renders_on(device)] if chosen else []
    remedy = f"set it to {' or '.join(good)}, or unset it"
    named = f"{DEVICE_VARIABLE}={chosen} names no EGL device that renders here: {remedy}\n"
    sys.stderr.write(named if good else "no device renders\n")
    sys.stderr.flush()
    os._exit(1)


def _devices() -> list[str]:
    """Numbers of the EGL devices; [""] for OSMesa."""
    if os.environ["MUJOCO_GL"] != "egl":
        return [""]
    from mujoco.egl import egl_ext

    return [str(number) for number in range(len(egl_ext.eglQueryDevicesEXT()))]


def _renders_on(device: str) -> bool:
    """Whether the picture shows more than one color."""
    mujoco: Any = importlib.import_module("mujoco")
    if device:
        os.environ[DEVICE_VARIABLE] = device
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    try:
        renderer = mujoco.Renderer(model, height=32, width=32)
        renderer.update_scene(data, camera="eye")
        return bool(renderer.render().std() > 1.0)
    except (ImportError, RuntimeError, ValueError, mujoco.FatalError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return False


if __name__ == "__main__":
    main()
