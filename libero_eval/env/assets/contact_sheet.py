"""The first frames of a suite in one picture.

`python -m libero_eval.env.assets.contact_sheet --out docs/images/contact_procedural.png`
"""

import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from invact_vla.config.command import parse_config, run
from invact_vla.core.files import atomic_file
from libero_eval.env.assets.pack import AssetPack, ProceduralPack

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
    """Draw the sheet: every task settled from init state 0, as a person would see it.

    Policies see frames turned by 180 degrees from OpenGL's row order, which mirrors them.
    """
    from PIL import Image, ImageDraw, ImageOps

    from libero_eval.env import gl
    from libero_eval.env.sim import LiberoSim
    from libero_eval.env.tasks import task_names

    gl.probe()
    assets, size = config.assets.build(), config.image_size
    count = len(task_names(config.suite))
    rows = -(-count // config.columns)
    sheet = Image.new("RGB", (config.columns * size, rows * (size + CAPTION_PX)), "white")
    for task_id in range(count):
        sim = LiberoSim(config.suite, task_id, assets, image_size=size)
        sim.reset(0)
        frame = np.ascontiguousarray(sim.raw_image(config.camera)[::-1])
        row, column = divmod(task_id, config.columns)
        x, y = column * size, row * (size + CAPTION_PX)
        sheet.paste(Image.fromarray(frame), (x, y + CAPTION_PX))
        words = textwrap.wrap(f"{task_id}: {sim.instruction}", CHARACTERS)[:3]
        ImageDraw.Draw(sheet).multiline_text((x + 4, y + 3), "\n".join(words), fill="black")
        sim.close()
    small = ImageOps.posterize(sheet, config.bits)
    with atomic_file(config.out) as temporary:
        small.save(temporary, format="PNG", optimize=True)
    return config.out


if __name__ == "__main__":
    sys.exit(run(lambda: main(parse_config(ContactSheetConfig, sys.argv[1:], "contact_sheet"))))
