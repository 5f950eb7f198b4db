"""Generate a procedural pack: objects, fixtures and arenas of LIBERO's five suites, and the robot."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from libero_eval.env.assets.procedural import pictures
from libero_eval.env.assets.procedural.mjcf import IDENTITY, File, Part, text, turn
from libero_eval.env.assets.procedural.robot import robosuite_assets, write_robot

HERE = Path(__file__).parent
UPRIGHT = turn("x", -np.pi / 2)


def generate(root: Path, seed: int) -> Path:
    """Return `root/procedural-<generator>-<seed>`, made at most once.

    It appears whole or not at all. When two processes make it at once, the first one's stays, so
    that a folder in use is never replaced.
    """
    folder = root / f"procedural-{generator_key()}-{seed}"
    if folder.is_dir():
        return folder
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".making-") as temporary:
        made = Path(temporary) / "pack"
        made.mkdir()
        write_pack(made, seed)
        try:
            os.rename(made, folder)
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def generator_key() -> str:
    """SHA-256 (12 digits) of the generator's sources and of the robot it starts from."""
    digest = hashlib.sha256()
    for path in sorted([*HERE.glob("*.py"), *HERE.glob("*.yaml")]):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update((robosuite_assets() / "robots/panda/robot.xml").read_bytes())
    return digest.hexdigest()[:12]


def write_pack(folder: Path, seed: int) -> None:
    """Write all files of the pack with this seed into an existing folder."""
    write_scenes(folder, seed)
    write_robot(folder)


def write_scenes(folder: Path, seed: int) -> None:
    """Write objects, fixtures, arenas and their pictures."""
    style = pictures.Style(seed)
    food, objects, fixtures, scenes = map(_read, ("food", "objects", "fixtures", "scenes"))
    for name, arguments in scenes["pictures"].items():
        pictures.save(folder / "textures" / name, pictures.surface(style, *arguments))
    for path, entry in {**food, **objects, **fixtures, **scenes["files"]}.items():
        name = Path(path).stem
        place = folder / (path if path.endswith(".xml") else f"{path}/{name}.xml")
        file = File(place, style, entry.get("model", name), entry.get("colors", {}))
        if "world" in entry:
            file.world.build(entry["world"])
        else:
            _build_object(file, entry)
        file.write()


def _read(name: str) -> dict[str, Any]:
    return yaml.safe_load((HERE / f"{name}.yaml").read_text())


def _build_object(file: File, entry: dict[str, Any]) -> None:
    """The body `object` with its steps, and beside it what LIBERO's placement samplers read."""
    outer = file.world.child(None)
    part = Part(file, outer.add("body", name="object"))
    bottom, top, radius = entry.get("placement", (-0.06, 0.04, 0.025))
    sites = {"bottom_site": (0, 0, bottom), "top_site": (0, 0, top)}
    for site, pos in {**sites, "horizontal_radius_site": (radius, radius, 0)}.items():
        outer.add("site", name=site, pos=text(pos), size="0.005", rgba="0 0 0 0")
    if "inner" in entry:
        part = part.child(entry["inner"], (0, 0.05, 0))
    if "weight" in entry:
        part.weight(*entry["weight"])
    Part(file, part.body, UPRIGHT if entry.get("upright") else IDENTITY).build(entry["steps"])
