"""Known harmless noise of the simulator libraries, silenced in one place."""

import importlib.util
import logging
import sys
import warnings
from types import ModuleType
from typing import Any


def quiet_robosuite() -> None:
    """Silence robosuite's import, before it happens; without robosuite, do nothing.

    robosuite warns about a missing private macro file and opens `/tmp/robosuite.log`, which fails
    when another user of the machine made that file: its log file is switched off. The libraries
    below it warn about their own deprecations at import.
    """
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    for module in ("robosuite", "libero", "gym", "gymnasium", "numba", "mujoco", "bddl"):
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=rf"{module}(\..*)?")
    if "robosuite" in sys.modules or importlib.util.find_spec("robosuite") is None:
        return
    macros = _load_macros()
    macros.FILE_LOGGING_LEVEL = None  # type: ignore[attr-defined]


def _load_macros() -> ModuleType:
    """Load `robosuite.macros` alone (a file of constants), to be set before the rest loads."""
    name = "robosuite.macros"
    package = importlib.util.find_spec("robosuite")
    assert package is not None and package.submodule_search_locations
    path = f"{package.submodule_search_locations[0]}/macros.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


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
        if is_gl and finaliser.endswith("__del__"):
            return
        previous(unraisable)

    hook.drops_gl_teardown = True  # type: ignore[attr-defined]
    sys.unraisablehook = hook
