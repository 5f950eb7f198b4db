"""Load, settle and render every task of a suite: `invact libero check --assets.type procedural`.
With `--sheet FILE.png` the first frames are drawn into one picture.

LIBERO's init states hold most objects up to 7 cm above their support (bowls of libero_spatial up
to 16), and ketchup, milk and juice 3 cm inside the table, which throws them up. So an object may
drop straight down while it settles; one beside such a thrown object may also be pushed aside, which
is reported as a note (it happens alike with LIBERO's own assets); and all must then stand still,
upright, on their support.
"""

import math
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from libero_eval.env.assets.pack import AssetPack, ProceduralPack

if TYPE_CHECKING:
    from libero_eval.env.sim import LiberoSim

DROP_LIMIT_M = 0.18
OVERLAP_M = 0.004  # deeper contact in an init state: the object starts inside another
REACH_M = 0.12  # how far such an object reaches when it is thrown out
TILT_LIMIT_DEG = 20.0
LIMIT_M = 0.02  # an object may slide, or move once it has settled, by this much
SHEET_COLUMNS, CAPTION_PX, CAPTION_CHARACTERS = 5, 44, 40
SHEET_BITS = 6  # a color channel; fewer make a smaller file


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """What to check."""

    assets: AssetPack = field(default_factory=ProceduralPack)  # asset pack to check
    suite: str = "libero_10"  # LIBERO suite
    tasks: list[int] = field(default_factory=list)  # task numbers; empty: all of the suite
    init_states: int = 5  # check init states 0..n-1 of each task
    image_size: int = 128  # side of the rendered frames, pixels
    sheet: Path | None = None  # PNG file of the tasks' first frames, with their instructions

    def __post_init__(self) -> None:
        if self.init_states < 1:
            raise ValueError(f"init_states must be >= 1, got {self.init_states}")


@dataclass(frozen=True, kw_only=True)
class Settling:
    """How one object settled: lengths in meters, angle in degrees."""

    name: str
    slide: float  # horizontally, during the settle steps
    drop: float  # downwards, during the settle steps
    tilt: float  # change of its upright axis
    drift: float  # any direction, during as many steps again
    overlap: float  # how deep it, or a neighbor, was inside another body at the start

    def faults(self, limit: float) -> Iterator[str]:
        """What is wrong, in words."""
        if self.slide > limit and self.overlap < OVERLAP_M:
            yield f"{self.name} slid {100 * self.slide:.1f} cm"
        if self.drop > DROP_LIMIT_M:
            yield f"{self.name} fell {100 * self.drop:.1f} cm"
        if self.tilt > TILT_LIMIT_DEG:
            yield f"{self.name} tilted {self.tilt:.0f} degrees"
        if self.drift > limit:
            yield f"{self.name} still moved {100 * self.drift:.1f} cm"

    def notes(self, limit: float) -> Iterator[str]:
        """What LIBERO's own init state causes, in words."""
        if self.slide > limit and self.overlap >= OVERLAP_M:
            yield (
                f"{self.name} is pushed {100 * self.slide:.1f} cm, for the init state holds "
                f"it or a neighbor {1000 * self.overlap:.0f} mm inside another body"
            )


@dataclass(frozen=True)
class TaskCheck:
    """The outcome for one task: one line for a person, and what is wrong."""

    line: str
    faults: list[str]


def main(config: CheckConfig) -> int:
    """Print a line for every task; returns 1 if any has a fault, else 0."""
    from libero_eval.env import gl
    from libero_eval.env.sim import LiberoSim
    from libero_eval.env.tasks import task_names

    gl.probe()
    assets = config.assets.build()
    count = len(task_names(config.suite))
    wrong = [task for task in config.tasks if not 0 <= task < count]
    if wrong:
        raise UserError(f"{config.suite} has tasks 0..{count - 1}, got {wrong}")
    tasks = config.tasks or range(count)
    print(f"{config.assets.name} pack {assets}, {config.init_states} init states each")
    failed, frames = 0, {}
    for task_id in tasks:
        sim = LiberoSim(config.suite, task_id, assets, image_size=config.image_size)
        result = check_task(sim, config)
        print(result.line, flush=True)
        failed += bool(result.faults)
        if config.sheet is not None:
            sim.reset(0)
            # as a person would see it: policies see frames turned by 180 degrees from OpenGL's row
            # order, which mirrors them
            frames[f"{task_id}: {sim.instruction}"] = sim.raw_image("agentview")[::-1]
        sim.close()
    if config.sheet is not None:
        _write_sheet(config.sheet, frames, config.image_size)
    print(f"{len(tasks) - failed} of {len(tasks)} tasks without fault")
    return 1 if failed else 0


def _write_sheet(path: Path, frames: dict[str, np.ndarray], size: int) -> None:
    """frames: uint8 (size, size, 3) by their captions."""
    from PIL import Image, ImageDraw, ImageOps

    height = size + CAPTION_PX
    rows = -(-len(frames) // SHEET_COLUMNS)
    sheet = Image.new("RGB", (SHEET_COLUMNS * size, rows * height), "white")
    for place, (words, frame) in enumerate(frames.items()):
        x, y = place % SHEET_COLUMNS * size, place // SHEET_COLUMNS * height
        sheet.paste(Image.fromarray(np.ascontiguousarray(frame)), (x, y + CAPTION_PX))
        text = "\n".join(textwrap.wrap(words, CAPTION_CHARACTERS)[:3])
        ImageDraw.Draw(sheet).multiline_text((x + 4, y + 3), text, fill="black")
    with atomic_file(path) as temporary:
        ImageOps.posterize(sheet, SHEET_BITS).save(temporary, format="PNG", optimize=True)


def check_task(sim: "LiberoSim", config: CheckConfig) -> TaskCheck:
    """Load, settle and render one task."""
    started = time.perf_counter()
    sim.reset(0, settle=False)
    build_s = time.perf_counter() - started
    faults: list[str] = []
    notes: list[str] = []
    settlings: list[Settling] = []
    for init_index in range(config.init_states):
        for each in settle(sim, init_index):
            settlings.append(each)
            faults += [f"init state {init_index}: {what}" for what in each.faults(LIMIT_M)]
            notes += [f"init state {init_index}: {what}" for what in each.notes(LIMIT_M)]
        if all(holds for _, holds in sim.predicates()):
            faults.append(f"init state {init_index}: the goal holds already")
    for camera in ("agentview", "wrist"):
        if np.std(sim.image(camera)) < 5:
            faults.append(f"the {camera} frame is of one color")
    slide, drop, drift = np.max([(s.slide, s.drop, s.drift) for s in settlings], axis=0)
    line = (
        f"{'FAULT' if faults else 'ok':5} {sim.task_id} {sim.task}: slide {1000 * slide:.1f} mm, "
        f"drop {1000 * drop:.0f} mm, drift {1000 * drift:.2f} mm, build {build_s:.1f} s"
    )
    return TaskCheck("; ".join([line, *faults, *(f"note: {note}" for note in notes)]), faults)


def settle(sim: "LiberoSim", init_index: int) -> list[Settling]:
    """Set an init state and let it settle; how each movable object moved."""
    from libero_eval.env.protocol import SETTLE_ACTION

    sim.reset(init_index, settle=False)
    poses, overlaps = [_poses(sim)], _overlaps(sim)
    for _ in range(2):
        for _ in range(10):
            sim.step(np.array(SETTLE_ACTION))
        poses.append(_poses(sim))
    result = []
    for name, overlap in overlaps.items():
        (start, upright), (settled, later), (end, _) = (each[name] for each in poses)
        result.append(
            Settling(
                name=name,
                slide=float(np.linalg.norm((settled - start)[:2])),
                drop=float(start[2] - settled[2]),
                tilt=math.degrees(math.acos(float(np.clip(upright @ later, -1, 1)))),
                drift=float(np.linalg.norm(end - settled)),
                overlap=overlap,
            )
        )
    return result


def _poses(sim: "LiberoSim") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Position (3,) and the axis (3,) of the body that points up most, of every movable object.

    The axis is expressed in the world: its change is the tilt, whatever axis an object stands on.
    """
    bodies = {name: sim.data.body(each.root_body) for name, each in sim.env.objects_dict.items()}
    return {n: (b.xpos.copy(), b.xmat.reshape(3, 3)[2].copy()) for n, b in bodies.items()}


def _overlaps(sim: "LiberoSim") -> dict[str, float]:
    """How deep each movable object, or one beside it, is inside any other body now, meters."""
    depths = dict.fromkeys(sim.env.objects_dict, 0.0)
    owners = {sim.model.body(o.root_body).id: n for n, o in sim.env.objects_dict.items()}
    for contact in sim.data.contact:
        for geom in contact.geom:
            name = owners.get(int(sim.model.geom_bodyid[geom]))
            if name is not None:
                depths[name] = max(depths[name], -float(contact.dist))
    places = {name: place for name, (place, _) in _poses(sim).items()}
    return {
        name: max(d for n, d in depths.items() if np.linalg.norm(places[n] - here) < REACH_M)
        for name, here in places.items()
    }
