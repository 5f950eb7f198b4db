"""The first frames of a suite in one picture.

`python -m libero_eval.env.assets.contact_sheet --out docs/images/contact_procedural.png`
"""

import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from invact_vla.config.command import parse_config, run
from invact_vla.core.files import atomic_file
from libero_eval.env.assets.pack import AssetPack, ProceduralPack

if TYPE_CHECKING:
    from PIL import Image

CAPTION_PX = 44
CHARACTERS = 40


@dataclass(frozen=True, kw_only=True)
class ContactSheetConfig:
    """What to draw."""

    out: Path  # PNG file to write
    assets: AssetPack = field(default_factory=ProceduralPack)  # asset pack to show
    suite: str = "libero_10"  # LIBERO suite
    camera: str = "agentview"  # agentview or wrist
    image_size: int = 256  # side of a frame, pixels
    columns: int = 5  # frames a row
    bits: int = 6  # bits a color channel; fewer make a smaller file

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 8:
            raise ValueError(f"bits must be 1..8, got {self.bits}")
        if self.columns < 1 or self.image_size < 16:
            raise ValueError(f"bad sizes: {self.columns} columns of {self.image_size} pixels")


def main(config: ContactSheetConfig) -> Path:
    """Draw the sheet: every task settled from init state 0, as a person would see it."""
    from PIL import Image, ImageOps

    from libero_eval.env import gl
    from libero_eval.env.tasks import task_names

    gl.probe()
    assets = config.assets.build()
    count = len(task_names(config.suite))
    rows = -(-count // config.columns)
    cell = config.image_size + CAPTION_PX
    sheet = Image.new("RGB", (config.columns * config.image_size, rows * cell), "white")
    for task_id in range(count):
        frame, words = _frame(config, assets, task_id)
        row, column = divmod(task_id, config.columns)
        corner = (column * config.image_size, row * cell)
        sheet.paste(Image.fromarray(frame), (corner[0], corner[1] + CAPTION_PX))
        _caption(sheet, corner, f"{task_id}: {words}")
    small = ImageOps.posterize(sheet, config.bits)
    with atomic_file(config.out) as temporary:
        small.save(temporary, format="PNG", optimize=True)
    return config.out


def _frame(config: ContactSheetConfig, assets: Path, task_id: int) -> tuple[np.ndarray, str]:
    """The first frame of a task, upright and not mirrored, and its instruction.

    Policies see frames turned by 180 degrees from OpenGL's row order, which mirrors them.
    """
    from libero_eval.env.sim import LiberoSim

    sim = LiberoSim(config.suite, task_id, assets, image_size=config.image_size)
    sim.reset(0)
    frame = np.ascontiguousarray(sim.raw_image(config.camera)[::-1])
    words = sim.instruction
    sim.close()
    return frame, words


def _caption(sheet: "Image.Image", corner: tuple[int, int], words: str) -> None:
    """Write words in the white strip whose upper left corner is given."""
    from PIL import ImageDraw

    text = "\n".join(textwrap.wrap(words, CHARACTERS)[:3])
    ImageDraw.Draw(sheet).multiline_text((corner[0] + 4, corner[1] + 3), text, fill="black")


if __name__ == "__main__":
    sys.exit(run(lambda: main(parse_config(ContactSheetConfig, sys.argv[1:], "contact_sheet"))))
