"""The shape of the project: import order, one door per heavy library, configs that parse."""

import ast
import dataclasses
import importlib
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import draccus
import pytest
import yaml

from invact_vla.app.cli import COMMANDS
from invact_vla.config.command import parse_config
from invact_vla.openvla.checkpoints.config_file import load_model_config
from tests.paths import REPOSITORY

# configs/<folder>/<prefix>_*.yaml -> the command that reads it
CONFIG_COMMANDS = {
    "data/synth": "data synth",
    "data/index": "data index",
    "data/phyworld": "data phyworld",
    "encoder/encoder": "encoder train",
    "encoder/baseline_train_vila": "encoder vila",
    "encoder/baseline_train": "encoder train",
    "encoder/baseline": "encoder baseline",
    "encoder/bench": "bench encoder",
    "encoder/eval": "encoder eval",
    "encoder/search": "encoder search",
    "encoder/compare": "encoder compare",
    "latent/laq": "latent train",
    "latent/label": "latent label",
    "latent/report": "latent report",
    "vla/init": "vla init",
    "vla/pretrain": "vla pretrain",
    "vla/posttrain": "vla posttrain",
    "libero/check": "libero check",
    "libero/doctor": "libero doctor",
    "libero/demos": "libero demos",
    "libero/demonstrate": "libero demonstrate",
    "libero/rollout": "libero rollout",
    "libero/serve": "libero serve",
    "libero/report": "libero report",
    "libero/compare": "libero compare",
    "libero/plan": "libero plan",
    "libero/bench": "bench rollout",
    "ladder/": "ladder",
}
# configs/accelerate are read by `accelerate launch`
CONFIGS = sorted(
    path for path in (REPOSITORY / "configs").rglob("*.yaml") if path.parent.name != "accelerate"
)
PACKAGES = ("invact_vla", "latent_actions", "libero_eval")
# Rooms from the ground floor up: a module imports from its own room and from lower rows, also where
# the import is lazy or for types alone. A room is a folder with what lies below it, unless that is a
# room of its own.
ROWS = (
    ("invact_vla", "invact_vla.core"),
    ("invact_vla.untrusted", "invact_vla.config", "invact_vla.stats"),
    ("invact_vla.html", "invact_vla.training"),
    ("invact_vla.data",),
    ("invact_vla.openvla",),
    ("invact_vla.recipes",),
    ("latent_actions", "libero_eval"),
    ("latent_actions.video", "libero_eval.policy_source", "libero_eval.results"),
    ("latent_actions.synthetic", "libero_eval.env", "libero_eval.serving"),
    ("latent_actions.encoder", "libero_eval.executors", "libero_eval.perturbations"),
    ("latent_actions.labelers", "libero_eval.expert"),
    ("latent_actions.retrieval", "libero_eval.policies"),
    (
        "latent_actions.train_encoder",
        "latent_actions.report",
        "libero_eval.rollout",
        "libero_eval.demos",
    ),
    ("libero_eval.doctor", "libero_eval.report", "libero_eval.bench"),
    ("invact_vla.app",),
)
LEVELS = {room: row for row, rooms in enumerate(ROWS) for room in rooms}
MOST_FILES = 22  # in a folder
COPIED = 10  # lines that may not stand in two files
DOORS = {
    "av": {"invact_vla/data"},
    "h5py": {"invact_vla/data", "libero_eval"},
    "robosuite": {"libero_eval"},
    "libero": {"libero_eval"},
    "mujoco": {"libero_eval", "latent_actions/synthetic"},
    "tensorflow_datasets": {"invact_vla/data"},
    "peft": {"invact_vla/openvla"},
    "ray": {"invact_vla/training", "libero_eval"},
    "accelerate": {"invact_vla/training"},
    "timm": {"invact_vla/openvla", "latent_actions/retrieval/baselines"},
    "faiss": {"latent_actions/retrieval"},
}
LAZY = {
    "av",
    "h5py",
    "robosuite",
    "libero",
    "mujoco",
    "tensorflow_datasets",
    "peft",
    "ray",
    "faiss",
}


@cache
def modules() -> list[Path]:
    return [p for package in PACKAGES for p in sorted((REPOSITORY / package).rglob("*.py"))]


def name_of(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def module_names() -> frozenset[str]:
    return frozenset(map(name_of, modules()))


def room_of(name: str) -> str:
    return max((r for r in LEVELS if name == r or name.startswith(r + ".")), key=len)


def targets(path: Path) -> set[str]:
    """The modules of this project that a module imports."""
    found = {name for name, _ in imports(path)} & module_names()
    # `from package import module` means the module
    return {n for n in found if not any(f.startswith(n + ".") for f in found)} - {name_of(path)}


@cache
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
    room = room_of(name)
    for imported in targets(path):
        other = room_of(imported)
        below = LEVELS[other] < LEVELS[room]
        assert below or other == room, f"{name} must not import {imported}"
        roots = {name.split(".")[0], imported.split(".")[0]}
        assert roots != {"latent_actions", "libero_eval"}, f"{name} imports the other branch"
        if name.startswith("latent_actions"):
            assert not imported.startswith("invact_vla.openvla"), f"{name} imports {imported}"


def test_no_import_circle() -> None:
    waiting = {name_of(path): targets(path) for path in modules()}
    while True:
        free = {name for name, needs in waiting.items() if not needs & waiting.keys()}
        if not free:
            break
        waiting = {name: needs for name, needs in waiting.items() if name not in free}
    assert not waiting, f"circles among {sorted(waiting)}"


def test_the_rooms_are_drawn_as_they_are() -> None:
    """docs/architecture.md has a line for every room, with its row."""
    page = (REPOSITORY / "docs/architecture.md").read_text().partition("## Four trips")[0]
    drawn = re.findall(r"^\| (\d+) \| `([\w/.]+)` \|", page, re.MULTILINE)
    rooms = {path.removesuffix(".py").strip("/").replace("/", "."): int(row) for row, path in drawn}
    assert rooms == {room: row + 1 for room, row in LEVELS.items() if "." in room}


def test_no_folder_is_crowded() -> None:
    counts = Counter(path.parent for path in modules())
    crowded = {str(folder): n for folder, n in counts.items() if n > MOST_FILES}
    assert not crowded, f"more than {MOST_FILES} files: {crowded}"


def blocks(path: Path) -> set[tuple[str, ...]]:
    """Runs of COPIED statements' lines in the bodies of functions, as ast writes them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = [line for part in body for line in ast.unparse(part).split("\n")]
            found |= {tuple(lines[i : i + COPIED]) for i in range(len(lines) - COPIED + 1)}
    return found


def test_nothing_is_copied() -> None:
    home: dict[tuple[str, ...], str] = {}
    for path in modules():
        for block in blocks(path):
            other = home.setdefault(block, path.name)
            assert other == path.name, (
                f"{COPIED} lines of {other} are in {path.name}: {block[0]} ..."
            )


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
    body = ast.parse(path.read_text()).body
    names = {n.name for n in body if hasattr(n, "name")}
    names |= {a.name for n in body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert "main" in names and purpose
    assert config is None or config in names


@cache
def parsed(path: Path) -> Any:
    """What a config is read into."""
    place = f"{path.parent.name}/{path.stem}"
    if place.startswith("vla/model"):
        return load_model_config(path)
    if place.endswith("_report"):
        return yaml.safe_load(path.read_text())
    command = next(c for prefix, c in CONFIG_COMMANDS.items() if place.startswith(prefix))
    module, name, _ = COMMANDS[command]
    config_class = getattr(importlib.import_module(module), str(name))
    has_out = "out" in {field.name for field in dataclasses.fields(config_class)}
    given = ["--out", "runs/x"] if has_out else []
    return parse_config(config_class, ["--config_path", str(path), *given])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_config_has_a_header_and_parses(path: Path) -> None:
    assert path.read_text().startswith("# "), "a config starts with what it is, command and time"
    assert not path.stem.endswith("_report") or "title" in parsed(path)
    assert parsed(path)


@cache
def used() -> set[type]:
    """The classes of all parts of all configs."""
    found, waiting = set(), [parsed(path) for path in CONFIGS]
    while waiting:
        part = waiting.pop()
        if dataclasses.is_dataclass(part):
            found.add(type(part))
            waiting += [getattr(part, field.name) for field in dataclasses.fields(part)]
        elif isinstance(part, dict | list | tuple):
            waiting += part.values() if isinstance(part, dict) else part
    return found


def members() -> list[tuple[type, str]]:
    """(registry, name) of every member of every registry; tests register some of their own."""
    for module, _, _ in COMMANDS.values():
        importlib.import_module(module)
    return [
        (registry, name)
        for registry in draccus.ChoiceRegistry.__subclasses__()
        if registry.__module__.split(".")[0] in PACKAGES
        for name, member in registry.get_known_choices().items()
        if member.__module__.split(".")[0] in PACKAGES
    ]


@pytest.mark.parametrize(("registry", "name"), members(), ids=lambda v: getattr(v, "__name__", v))
def test_every_registry_member_has_a_config(registry: Any, name: str) -> None:
    assert registry.get_choice_class(name) in used(), f"no config has type: {name}"
