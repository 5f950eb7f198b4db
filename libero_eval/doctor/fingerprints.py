"""Render fingerprints: what the first frame of each task looks like where scores were measured.

A fingerprint is the mean colors of 16 x 16 blocks of both cameras after `reset(0)`, uint8. The
references are package data, `fingerprints.json`: {pack: {GL backend: {suite/task id: base64}}}.
Two software renderers differ by less than a gray level; MuJoCo >= 3.3.3 darkens floors, and
flipped frames, missing textures or another light change whole regions.
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json, write_json
from libero_eval.env.camera import CAMERA_NAMES

if TYPE_CHECKING:
    from libero_eval.env.sim import LiberoSim

REFERENCES = Path(__file__).parents[1] / "fingerprints.json"
BLOCKS = 16  # a side
SIZE = 128  # pixels of the frames
MEAN_LIMIT = 2.0  # gray levels, mean over all blocks
REGION_LIMIT = 10.0  # gray levels, of the worst twentieth of the blocks
SHAPE = (len(CAMERA_NAMES), BLOCKS, BLOCKS, 3)


@dataclass(frozen=True)
class Difference:
    """Gray levels between two fingerprints."""

    mean: float  # over all
    region: float  # 95th percentile
    shade: float  # mean with sign, negative where the found one is darker

    @property
    def same(self) -> bool:
        """Whether both show the same picture."""
        return self.mean <= MEAN_LIMIT and self.region <= REGION_LIMIT

    def __str__(self) -> str:
        word = "darker" if self.shade < 0 else "brighter"
        return f"{self.mean:.1f} gray levels off, {abs(self.shade):.1f} {word} on the whole"


def fingerprint(frames: list[np.ndarray]) -> np.ndarray:
    """Frames of the cameras, uint8 (H, W, 3) with H, W multiples of 16 -> uint8 (2, 16, 16, 3)."""
    rows = []
    for frame in frames:
        height, width = (side // BLOCKS for side in frame.shape[:2])
        blocks = frame.reshape(BLOCKS, height, BLOCKS, width, 3).astype(np.float64)
        rows.append(np.rint(blocks.mean((1, 3))).astype(np.uint8))
    return np.stack(rows)


def first_frame(sim: "LiberoSim") -> np.ndarray:
    """The fingerprint of init state 0, as the policy's first frame shows it."""
    sim.reset(0)
    return fingerprint([sim.image(camera, SIZE) for camera in CAMERA_NAMES])


def difference(found: np.ndarray, reference: np.ndarray) -> Difference:
    """How far apart two fingerprints are."""
    signed = found.astype(np.float64) - reference
    off = np.abs(signed)
    return Difference(float(off.mean()), float(np.quantile(off, 0.95)), float(signed.mean()))


def turned_like(found: np.ndarray, reference: np.ndarray) -> str | None:
    """How the found frames are turned, if turning them back makes them the reference."""
    views = {
        "upside down": found[:, ::-1],
        "mirrored": found[:, :, ::-1],
        "turned by 180 degrees": found[:, ::-1, ::-1],
    }
    return next((how for how, view in views.items() if difference(view, reference).same), None)


def read_references(path: Path = REFERENCES) -> dict[str, Any]:
    """All references; {} where there are none yet."""
    return read_json(path) if path.is_file() else {}


def reference(
    references: dict[str, Any], pack: str, backend: str, task: str
) -> tuple[np.ndarray, str] | None:
    """(fingerprint, backend it is of) of a task such as libero_10/3: of this backend, else of any
    other; None if there is none."""
    of_pack = references.get(pack, {})
    for name in (backend, *sorted(set(of_pack) - {backend})):
        text = of_pack.get(name, {}).get(task)
        if text is not None:
            values = np.frombuffer(base64.b64decode(text), np.uint8)
            if values.size != np.prod(SHAPE):
                raise UserError(f"{REFERENCES}: {pack}, {name}, {task} is damaged: write it again")
            return values.reshape(SHAPE), name
    return None


def write_references(
    found: dict[str, np.ndarray], pack: str, backend: str, path: Path = REFERENCES
) -> None:
    """Add or replace the references of one pack and backend."""
    references = read_references(path)
    own = references.setdefault(pack, {}).setdefault(backend, {})
    own |= {task: base64.b64encode(values.tobytes()).decode() for task, values in found.items()}
    write_json(path, references)
