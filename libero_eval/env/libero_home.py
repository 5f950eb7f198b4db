"""The one door to hf-libero: nothing is asked, nothing is downloaded.

The first `import libero.libero` of a machine asks a question on standard input and waits, and the
first object or scene that is built downloads the assets from a hub, whatever the `assets` entry
of the config file says: `get_assets_path` reads a module variable, then the wheel's own folder,
then the hub. `prepare` writes LIBERO's config file before that import, and sets the variable
right after it. BDDL files and init states come from the wheel, or from a folder of own tasks.
"""

import hashlib
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from invact_vla.core.cache_folder import cache_folder
from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from libero_eval.env import own_suite
from libero_eval.env import silence_warnings as quiet

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
    config_file = _write_config(root, assets)
    os.environ[CONFIG_VARIABLE] = str(config_file.parent)
    quiet.quiet_robosuite()
    libero = importlib.import_module("libero.libero")
    _point(libero, config_file, assets)
    _point_robosuite(assets)


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


def bddl_file(suite: str, task: str) -> Path:
    """The BDDL file of a task, e.g. ("libero_10", "KITCHEN_SCENE3_turn_on_...")."""
    wheel = benchmark_root() / "bddl_files" / suite
    if own_suite.is_folder(suite) and not wheel.is_dir():
        return own_suite.bddl_file(suite, task)
    return _existing(wheel / f"{task}.bddl")


def init_states_file(suite: str, task: str) -> Path:
    """The wheel's file of a task's init states."""
    return _existing(benchmark_root() / "init_files" / suite / f"{task}.pruned_init")


def _existing(path: Path) -> Path:
    """The path itself, or a UserError that names the neighbors."""
    if path.is_file():
        return path
    known = sorted(p.stem for p in path.parent.glob(f"*{path.suffix}"))
    raise UserError(f"no file {path}; tasks there: {', '.join(known) or 'none'}")


def _write_config(root: Path, assets: Path) -> Path:
    """Write LIBERO's config.yaml, one folder a pair (wheel, assets), and return its path."""
    entries = {
        "assets": assets,
        "bddl_files": root / "bddl_files",
        "benchmark_root": root,
        "datasets": root.parent / "datasets",
        "init_states": root / "init_files",
    }
    text = "".join(f'{key}: "{value}"\n' for key, value in entries.items())
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    config_file = cache_folder("libero_home") / key / "config.yaml"
    if not config_file.is_file() or config_file.read_text() != text:
        with atomic_file(config_file) as temporary:
            temporary.write_text(text)
    return config_file


def _point_robosuite(assets: Path) -> None:
    """Take the robot from the pack if it holds one (`robosuite/`), else robosuite's own."""
    models = importlib.import_module("robosuite.models")
    own = Path(models.__file__ or "").parent / "assets"
    light = assets / "robosuite"
    vars(models)["assets_root"] = str(light if light.is_dir() else own)


def _point(libero: ModuleType, config_file: Path, assets: Path) -> None:
    """Point the imported module at our config and assets, also if somebody imported it before."""
    here = {"libero_config_path": str(config_file.parent), "config_file": str(config_file)}
    vars(libero).update(here, _assets_path_cache=str(assets))
    utils = sys.modules.get("libero.libero.utils")
    if utils is not None:
        vars(utils).update(here)
