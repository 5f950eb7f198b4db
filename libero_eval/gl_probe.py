"""Run as a script in a child process by `gl.find`: render a tiny scene with MUJOCO_GL's backend.

Prints `renders on device N` for the first EGL device whose picture is not of one colour (0 for
OSMesa). robosuite takes device 0 unless told otherwise, so the devices are tried one by one.
"""

import os
import sys
from types import ModuleType

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


def main() -> int:
    """Exit code 0 if some device renders."""
    import mujoco

    for device in _devices():
        if device is not None:
            os.environ[DEVICE_VARIABLE] = str(device)
        if _renders(mujoco):
            sys.stdout.write(f"renders on device {device or 0}\n")
            sys.stdout.flush()
            os._exit(0)  # finalisers of broken drivers are noisy, and nothing is left to do
    sys.stderr.write("no device renders\n")
    return 1


def _devices() -> list[int | None]:
    """EGL devices to try; [None] for OSMesa, or if one is already chosen."""
    if os.environ["MUJOCO_GL"] != "egl" or os.environ.get(DEVICE_VARIABLE):
        return [None]
    from mujoco.egl import egl_ext

    return list(range(len(egl_ext.eglQueryDevicesEXT())))


def _renders(mujoco: ModuleType) -> bool:
    """Whether the picture shows more than one colour."""
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    try:
        renderer = mujoco.Renderer(model, height=32, width=32)
        renderer.update_scene(data, camera="eye")
        picture = renderer.render()
    except (ImportError, RuntimeError, mujoco.FatalError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return False
    return bool(picture.std() > 1.0)


if __name__ == "__main__":
    sys.exit(main())
