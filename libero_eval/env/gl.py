"""Find a way to render without a screen: EGL, else OSMesa, or the one that `MUJOCO_GL` names.

Each is tried in a child process, because a failed try poisons the process and a broken driver can
kill it. The answer is kept in a small file until the machine boots again.
"""

import importlib
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from invact_vla.core.cache_folder import cache_folder
from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json, write_json

logger = logging.getLogger(__name__)

BACKENDS = ("egl", "osmesa")
VARIABLES = ("MUJOCO_GL", "PYOPENGL_PLATFORM")
PACKAGES = {"egl": "libegl1 libgl1-mesa-dri", "osmesa": "libosmesa6"}  # of Debian
TIMEOUT_S = 60
DEVICE_VARIABLE = "MUJOCO_EGL_DEVICE_ID"
PROBE = Path(__file__).with_name("gl_probe.py")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What works here. device: number of the EGL device that renders, None for OSMesa."""

    backend: str
    device: int | None


def probe() -> str:
    """Choose a backend and set the environment for it; returns "egl" or "osmesa".

    Call it before mujoco or robosuite is imported. Sets `MUJOCO_GL` and `PYOPENGL_PLATFORM` (and
    the EGL device, if the first one does not work), for this process and its children. A backend or
    a device that these variables name already is taken, and no other.
    Errors: UserError with the Debian packages to install, if no backend renders, and for a variable
    that names what cannot render here.
    """
    loaded = _loaded_backend()
    if loaded in BACKENDS:
        use(loaded)
        return loaded
    answer = find()
    use(answer.backend)
    if answer.device:
        os.environ.setdefault(DEVICE_VARIABLE, str(answer.device))
    return answer.backend


def use(backend: str) -> None:
    """Set the environment for a backend that is known to work."""
    if backend not in BACKENDS:
        raise UserError(f"unknown GL backend {backend!r}; known: {', '.join(BACKENDS)}")
    loaded = _loaded_backend()
    if loaded not in (None, backend):
        raise UserError(
            f"mujoco is already loaded for {loaded}, cannot switch to {backend}: "
            "choose the GL backend at the start of the process"
        )
    os.environ.update(dict.fromkeys(VARIABLES, backend))
    quiet_gl()
    # Triton and Mesa's software renderer bring an LLVM each, and a process in which Mesa's came
    # first dies with a segmentation fault when PyTorch later imports Triton
    if find_spec("triton") is not None:
        importlib.import_module("triton")


def is_set() -> bool:
    """Whether `probe` or `use` has set the environment, here or in a parent process."""
    return os.environ.get("MUJOCO_GL") in BACKENDS and len(_wishes()) == len(VARIABLES)


def _wishes() -> dict[str, str]:
    """The variables that are set, in lower case as MuJoCo reads them."""
    values = {name: os.environ.get(name, "").strip().lower() for name in VARIABLES}
    return {name: value for name, value in values.items() if value}


def _loaded_backend() -> str | None:
    """The backend that mujoco took when it was imported; None before that."""
    return next((name for name in (*BACKENDS, "glfw") if f"mujoco.{name}" in sys.modules), None)


def find(cache: Path | None = None) -> Answer:
    """The backend that works on this machine, from the cache file if it is of this boot.

    UserError where none renders, and for a variable that names one that needs a screen, or is
    unknown, or two that differ.
    """
    wishes = _wishes()
    for name, value in wishes.items():
        if value not in BACKENDS:
            raise UserError(
                f"{name}={os.environ[name]} is set, but LIBERO is rendered without a screen, by "
                f"{' or '.join(BACKENDS)}: unset {name}, or set it to one of these"
            )
    if len(set(wishes.values())) > 1:
        both = " and ".join(f"{name}={value}" for name, value in wishes.items())
        raise UserError(f"{both} contradict each other: unset one of them")
    wanted = next(iter(wishes.values()), None)
    path = (cache or cache_folder("gl")) / f"probe{f'_{wanted}' if wanted else ''}.json"
    key = _boot_key()
    entry: Any = read_json(path) if path.is_file() else {}
    if entry.get("key") == key and entry.get("backend") in BACKENDS:
        return Answer(backend=entry["backend"], device=entry["device"])
    reasons = {}
    for backend in [wanted] if wanted else BACKENDS:
        device, reason = _try(backend)
        if device is not None:
            answer = Answer(backend=backend, device=device if backend == "egl" else None)
            write_json(path, {"key": key, "backend": backend, "device": answer.device})
            return answer
        if reason.startswith(DEVICE_VARIABLE):  # the variable is at fault, not the machine
            raise UserError(reason)
        if wanted is None:
            logger.info("GL backend %s does not work: %s", backend, reason)
        reasons[backend] = reason
    said = "; ".join(f"{backend}: {reason}" for backend, reason in reasons.items())
    if wanted is not None:
        name = next(iter(wishes))
        raise UserError(
            f"{name}={wanted} is set, but does not render here ({said}): apt-get install "
            f"{PACKAGES[wanted]}, or unset {name} to have the others tried"
        )
    raise UserError(
        f"no way to render without a screen ({said}); apt-get install {PACKAGES['egl']} (EGL) or "
        f"apt-get install {PACKAGES['osmesa']} (OSMesa)"
    )


def _boot_key() -> dict[str, str]:
    """What an answer depends on: the boot, the interpreter, the visible devices."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return {
        "boot": boot.read_text().strip() if boot.is_file() else "unknown",
        "python": sys.executable,
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "device": os.environ.get(DEVICE_VARIABLE, ""),
    }


def _try(backend: str) -> tuple[int | None, str]:
    """Render in a child process: (number of the device that works, "") or (None, reason)."""
    environment = {**os.environ, **dict.fromkeys(VARIABLES, backend)}
    command = [sys.executable, str(PROBE)]
    try:
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer within {TIMEOUT_S} s"
    for line in child.stdout.splitlines():
        if line.startswith("renders on device "):
            return int(line.rsplit(" ", 1)[1]), ""
    lines = [line for line in child.stderr.splitlines() if line.strip()]
    return None, lines[-1].strip() if lines else f"exit code {child.returncode}"


def quiet_gl() -> None:
    """Drop PyOpenGL's import notes, and EGL errors raised by finalisers at interpreter exit.

    PyOpenGL's contexts are freed after their display was terminated; Python then prints
    "Exception ignored in ... EGLError" for every one. Nothing else is dropped.
    """
    logging.getLogger("OpenGL").setLevel(logging.WARNING)
    previous = sys.unraisablehook
    if getattr(previous, "drops_gl_teardown", False):
        return

    def hook(unraisable: Any, previous: Any = previous, getattr: Any = getattr) -> None:
        module = getattr(unraisable.exc_type, "__module__", "") or ""
        name = getattr(unraisable.exc_type, "__name__", "")
        finaliser = getattr(unraisable.object, "__qualname__", "")
        is_gl = module.startswith("OpenGL") and name in ("EGLError", "GLError")
        if not (is_gl and finaliser.endswith("__del__")):
            previous(unraisable)

    hook.drops_gl_teardown = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook
