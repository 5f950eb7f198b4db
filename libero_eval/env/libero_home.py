"""The one door to hf-libero: nothing is asked, nothing is downloaded.

The first `import libero.libero` of a machine asks a question on standard input and waits, and the
first object or scene that is built downloads the assets from a hub, whatever the `assets` entry
of the config file says: `get_assets_path` reads a module variable, then the wheel's own folder,
then the hub. `prepare` writes LIBERO's config file before that import, and sets the variable
right after it.
"""

import hashlib
import importlib
import importlib.util
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from invact_vla.core.cache_folder import cache_folder
from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file

CONFIG_VARIABLE = "LIBERO_CONFIG_PATH"


def prepare(assets: Path) -> None:
    """Make `libero` importable with this assets folder. Call it before any import of libero.

    assets: a folder in LIBERO's own layout (`AssetPack.build()` gives one). May be called again,
    also with another folder: environments built later use the folder of the last call. Processes
    are independent of each other. Sets `LIBERO_CONFIG_PATH`, so that child processes ask nothing.
    Errors: UserError if the folder is not an assets folder or hf-libero is not installed.
    """
    assets = Path(assets).resolve()
    check_assets(assets)
    root = benchmark_root()
    entries = {
        "assets": assets,
        "bddl_files": root / "bddl_files",
        "benchmark_root": root,
        "datasets": root.parent / "datasets",
        "init_states": root / "init_files",
    }
    text = "".join(f'{key}: "{value}"\n' for key, value in entries.items())
    key = hashlib.sha256(text.encode()).hexdigest()[:16]  # a folder a pair (wheel, assets)
    config_file = cache_folder("libero_home") / key / "config.yaml"
    if not config_file.is_file() or config_file.read_text() != text:
        with atomic_file(config_file) as temporary:
            temporary.write_text(text)
    os.environ[CONFIG_VARIABLE] = str(config_file.parent)
    quiet_robosuite()
    libero = importlib.import_module("libero.libero")
    # also if somebody imported it before
    here = {"libero_config_path": str(config_file.parent), "config_file": str(config_file)}
    vars(libero).update(here, _assets_path_cache=str(assets))
    if "libero.libero.utils" in sys.modules:
        vars(sys.modules["libero.libero.utils"]).update(here)
    # the robot from the pack if it holds one, else robosuite's own
    models = importlib.import_module("robosuite.models")
    own, light = Path(models.__file__ or "").parent / "assets", assets / "robosuite"
    vars(models)["assets_root"] = str(light if light.is_dir() else own)


def check_assets(assets: Path) -> None:
    """Raise UserError unless the folder looks like LIBERO's assets."""
    if not assets.is_dir():
        raise UserError(
            f"no assets folder {assets}; expected LIBERO's assets (scenes/, stable_hope_objects/, "
            "...): give an existing folder, or use the procedural pack, which needs none"
        )
    if not (assets / "scenes").is_dir():
        raise UserError(
            f"{assets} is not a LIBERO assets folder: it has no scenes/ inside; give the folder "
            "that holds scenes/, articulated_objects/, stable_hope_objects/, ..."
        )


def benchmark_root() -> Path:
    """The folder of the installed wheel that holds bddl_files/ and init_files/ (no import)."""
    spec = importlib.util.find_spec("libero")
    locations = list(spec.submodule_search_locations or []) if spec else []
    for location in locations:
        root = Path(location) / "libero"
        if (root / "bddl_files").is_dir():
            return root
    raise UserError(
        "LIBERO is not installed (no package `libero` with bddl_files): "
        "pip install 'invact-vla[libero]'"
    )


def quiet_robosuite() -> None:
    """Silence robosuite's import, before it happens; without robosuite, do nothing.

    robosuite warns about a missing private macro file and opens `/tmp/robosuite.log`, which fails
    when another user of the machine made that file: its log file is switched off. The libraries
    below it warn about their own deprecations at import.
    """
    logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
    for module in ("robosuite", "libero", "gym", "gymnasium", "numba", "mujoco", "bddl"):
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=rf"{module}(\..*)?")
    package = importlib.util.find_spec("robosuite")
    if "robosuite" in sys.modules or package is None or not package.submodule_search_locations:
        return
    # the file of constants alone, to be set before the rest loads
    name = "robosuite.macros"
    path = f"{package.submodule_search_locations[0]}/macros.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    macros: Any = importlib.util.module_from_spec(spec)
    sys.modules[name] = macros
    spec.loader.exec_module(macros)
    macros.FILE_LOGGING_LEVEL = None
