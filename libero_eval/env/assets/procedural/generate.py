"""Generate a procedural pack: objects, fixtures and arenas of LIBERO's five suites, and the robot."""

import hashlib
import os
import tempfile
from pathlib import Path

from libero_eval.env.assets.procedural.arenas import write_arenas
from libero_eval.env.assets.procedural.dishes import write_dishes
from libero_eval.env.assets.procedural.fixtures import write_fixtures
from libero_eval.env.assets.procedural.food import write_food
from libero_eval.env.assets.procedural.furniture import write_furniture
from libero_eval.env.assets.procedural.mugs import write_mugs
from libero_eval.env.assets.procedural.robot import robosuite_assets, write_robot
from libero_eval.env.assets.procedural.style import Style


def generator_key() -> str:
    """SHA-256 (12 digits) of the generator's source and of the robot it starts from."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update((robosuite_assets() / "robots/panda/robot.xml").read_bytes())
    return digest.hexdigest()[:12]


def write_pack(folder: Path, seed: int) -> None:
    """Write all files of the pack with this seed into an existing folder."""
    style = Style(seed)
    write_food(folder, style)
    write_dishes(folder, style)
    write_mugs(folder, style)
    write_furniture(folder, style)
    write_fixtures(folder, style)
    write_arenas(folder, style)
    write_robot(folder)


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
