"""Colors and surface pictures of a pack: labels of packets, noise-based floors, walls, table tops."""

import colorsys
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Color = tuple[float, float, float]

COLORS: dict[str, Color] = {
    name: tuple(color)
    for name, color in yaml.safe_load(Path(__file__).with_name("colors.yaml").read_text()).items()
}
LABEL_SIZE = (256, 128)
SURFACE_SIZE = 128


class Style:
    """Colors of one pack; a pure function of the seed. Seed 0 is the standard look."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def rng(self, name: str) -> np.random.Generator:
        """The random stream of one named thing."""
        return np.random.default_rng([self.seed, *name.encode()])

    def color(self, name: str) -> Color:
        """The color of a named surface: standard for seed 0, else shifted in hue and brightness.

        Names of objects keep telling the truth for small shifts (a red mug stays reddish): hue by
        at most 0.04 of a turn, saturation and brightness by at most 20 %.
        """
        if self.seed == 0:
            return COLORS[name]
        hue, saturation, value = colorsys.rgb_to_hsv(*COLORS[name])
        shift = self.rng(name).uniform(-1, 1, size=3)
        hue = (hue + 0.04 * shift[0]) % 1.0
        saturation = min(1.0, saturation * (1 + 0.2 * shift[1]))
        value = min(1.0, value * (1 + 0.2 * shift[2]))
        return colorsys.hsv_to_rgb(hue, saturation, value)


def save(path: Path, picture: Image.Image) -> None:
    """Write a PNG without compression: the same bytes whatever the compression library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG", compress_level=0)


def label(background: Color, band: Color, words: str, ink: Color, repeats: int) -> Image.Image:
    """A label that is wrapped around a packet: a colored band with words, `repeats` times.

    The lower three quarters of the picture are the sides, the upper quarter is the top.
    """
    width, height = LABEL_SIZE
    picture = Image.new("RGB", LABEL_SIZE, _as_bytes(background))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, int(0.42 * height), width, int(0.80 * height)), fill=_as_bytes(band))
    draw.rectangle((0, 0, width, int(0.10 * height)), fill=_as_bytes(band))
    cell = width // repeats
    stamp = _stamp(words, int(0.86 * cell), int(0.30 * height), ink)
    for index in range(repeats):
        left = index * cell + (cell - stamp.width) // 2
        picture.paste(stamp, (left, int(0.61 * height) - stamp.height // 2), stamp)
    return picture


def _as_bytes(color: Color) -> tuple[int, int, int]:
    red, green, blue = (round(255 * min(1.0, max(0.0, c))) for c in color)
    return red, green, blue


def _stamp(words: str, width: int, height: int, ink: Color) -> Image.Image:
    """The words drawn with the built-in bitmap font, stretched to at most width x height."""
    font = ImageFont.load_default_imagefont()
    left, top, right, bottom = font.getbbox(words)
    small = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(small).text((-left, -top), words, fill=255, font=font)
    scale = min(width / small.width, height / small.height)
    size = (max(1, int(small.width * scale)), max(1, int(small.height * scale)))
    stamp = Image.new("RGBA", size, (*_as_bytes(ink), 255))
    stamp.putalpha(small.resize(size, Image.Resampling.BILINEAR))
    return stamp


def noise(rng: np.random.Generator, cells: tuple[int, int]) -> NDArray[np.float64]:
    """Smooth periodic noise (SURFACE_SIZE, SURFACE_SIZE) in 0..1 with `cells` (rows, columns)."""
    wrapped = np.pad(rng.random(cells), ((0, 1), (0, 1)), mode="wrap")
    rows = np.linspace(0, cells[0], SURFACE_SIZE, endpoint=False)
    columns = np.linspace(0, cells[1], SURFACE_SIZE, endpoint=False)
    y, x = rows.astype(int), columns.astype(int)
    v, u = (rows - y)[:, None], (columns - x)[None]
    upper = wrapped[y][:, x] * (1 - u) + wrapped[y][:, x + 1] * u
    lower = wrapped[y + 1][:, x] * (1 - u) + wrapped[y + 1][:, x + 1] * u
    return upper * (1 - v) + lower * v


def surface(style: Style, kind: str, name: str, count: int = 2) -> Image.Image:
    """A picture of a surface in a named color.

    kind: "plaster" (a slightly uneven wall), "wood" (its grain along the rows; count: lines of it),
    "planks" (floor boards side by side) or "tiles" (square, with joints; count: in a row).
    """
    rng = style.rng(f"{name}/{kind}")
    step = SURFACE_SIZE // (4 if kind == "planks" else count)
    if kind == "plaster":
        light = 0.94 + 0.08 * noise(rng, (16, 16)) + 0.04 * noise(rng, (64, 64))
    elif kind == "wood":
        light = 0.86 + 0.16 * noise(rng, (count, 3)) + 0.10 * noise(rng, (64, 6))
    elif kind == "planks":
        light = 0.85 + 0.15 * noise(rng, (48, 3))
        for start in range(0, SURFACE_SIZE, step):
            light[start : start + step] *= rng.uniform(0.88, 1.08)
            light[start] *= 0.6
    else:
        light = 0.92 + 0.08 * noise(rng, (8, 8))
        for start in range(0, SURFACE_SIZE, step):
            light[start : start + 2] *= 0.7
            light[:, start : start + 2] *= 0.7
    pixels = np.clip(np.asarray(style.color(name)) * light[..., None], 0, 1)
    return Image.fromarray(np.round(255 * pixels).astype(np.uint8))
