"""The shape of the project: import order, one door per heavy library, configs that parse."""

import ast
from pathlib import Path

import pytest

from invact_vla.cli import COMMANDS
from tests.paths import REPOSITORY

PACKAGES = ("invact_vla", "latent_actions", "libero_eval")
# A module may import from its own level and from lower ones.
LEVELS = {
    "invact_vla": 0,
    "invact_vla.errors": 0,
    "invact_vla.schema": 0,
    "invact_vla.training": 1,
    "invact_vla.data": 2,
    "invact_vla.openvla": 3,
    "invact_vla.init": 4,
    "invact_vla.pretrain": 4,
    "invact_vla.posttrain": 4,
    "latent_actions": 4,
    "libero_eval": 4,
    "invact_vla.report": 5,
    "invact_vla.ladder": 6,
    "invact_vla.cli": 7,
}
DOORS = {
    "av": {"invact_vla/data"},
    "h5py": {"invact_vla/data", "libero_eval"},
    "robosuite": {"libero_eval"},
    "libero": {"libero_eval"},
    "mujoco": {"libero_eval", "latent_actions/video/synthetic"},
    "tensorflow_datasets": {"invact_vla/data"},
    "peft": {"invact_vla/openvla"},
    "ray": {"invact_vla/training", "libero_eval"},
    "accelerate": {"invact_vla/training"},
    "timm": {"invact_vla/openvla"},
}
LAZY = {"av", "h5py", "robosuite", "libero", "mujoco", "tensorflow_datasets", "peft", "ray"}


def modules() -> list[Path]:
    return [p for package in PACKAGES for p in sorted((REPOSITORY / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def level_of(name: str) -> int:
    matches = [key for key in LEVELS if name == key or name.startswith(key + ".")]
    return LEVELS[max(matches, key=len)]


def imports(path: Path) -> list[tuple[str, bool]]:
    """(imported module, whether at the top of the file) of every import statement."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found += [(node.module, id(node) in top)]
            found += [(f"{node.module}.{alias.name}", id(node) in top) for alias in node.names]
    return found


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_import_order(path: Path) -> None:
    name = name_of(path)
    for imported, _ in imports(path):
        if imported.split(".")[0] not in PACKAGES:
            continue
        assert level_of(imported) <= level_of(name), f"{name} must not import {imported}"
        roots = {name.split(".")[0], imported.split(".")[0]}
        assert roots != {"latent_actions", "libero_eval"}, f"{name} imports the other branch"
        if name.startswith("latent_actions"):
            assert not imported.startswith("invact_vla.openvla"), f"{name} imports {imported}"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_heavy_libraries_have_one_door(path: Path) -> None:
    relative = path.relative_to(REPOSITORY).as_posix()
    for imported, at_top in imports(path):
        library = imported.split(".")[0]
        if library not in DOORS:
            continue
        assert any(relative.startswith(door) for door in DOORS[library]), (
            f"{relative} imports {library}; its doors are {sorted(DOORS[library])}"
        )
        assert not (library in LAZY and at_top), f"{relative}: import {library} where it is used"


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_files_and_functions_stay_short(path: Path) -> None:
    source = path.read_text()
    assert source.count("\n") <= 400, f"{path.name} has over 400 lines"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno
            assert length <= 70, f"{path.name}:{node.lineno} {node.name} has {length} lines"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_can_be_found(command: str) -> None:
    module, config, purpose = COMMANDS[command]
    path = REPOSITORY / (module.replace(".", "/") + ".py")
    assert path.exists(), f"{command}: no module {module}"
    names = {n.name for n in ast.parse(path.read_text()).body if hasattr(n, "name")}
    assert "main" in names and purpose
    assert config is None or config in names
