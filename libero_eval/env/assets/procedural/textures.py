"""Surface pictures: labels of packets and noise-based floors, walls and table tops (PNG)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from libero_eval.env.assets.procedural.style import Color, Style

LABEL_SIZE = (256, 128)
SURFACE_SIZE = 128


def as_bytes(color: Color) -> tuple[int, int, int]:
    """A color of 0..1 as 0..255."""
    red, green, blue = (round(255 * min(1.0, max(0.0, c))) for c in color)
    return red, green, blue


def save(path: Path, picture: Image.Image) -> None:
    """Write a PNG without compression: the same bytes whatever the compression library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG", compress_level=0)


def label(background: Color, band: Color, words: str, ink: Color, repeats: int) -> Image.Image:
    """A label that is wrapped around a packet: a colored band with words, `repeats` times.

    The lower three quarters of the picture are the sides, the upper quarter is the top.
    """
    width, height = LABEL_SIZE
    picture = Image.new("RGB", LABEL_SIZE, as_bytes(background))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, int(0.42 * height), width, int(0.80 * height)), fill=as_bytes(band))
    draw.rectangle((0, 0, width, int(0.10 * height)), fill=as_bytes(band))
    cell = width // repeats
    stamp = _words(words, int(0.86 * cell), int(0.30 * height), ink)
    for index in range(repeats):
        left = index * cell + (cell - stamp.width) // 2
        top = int(0.61 * height) - stamp.height // 2
        picture.paste(stamp, (left, top), stamp)
    return picture


def _words(words: str, width: int, height: int, ink: Color) -> Image.Image:
    """The words drawn with the built-in bitmap font, stretched to at most width x height."""
    font = ImageFont.load_default_imagefont()
    left, top, right, bottom = font.getbbox(words)
    small = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(small).text((-left, -top), words, fill=255, font=font)
    scale = min(width / small.width, height / small.height)
    size = (max(1, int(small.width * scale)), max(1, int(small.height * scale)))
    mask = small.resize(size, Image.Resampling.BILINEAR)
    stamp = Image.new("RGBA", size, (*as_bytes(ink), 255))
    stamp.putalpha(mask)
    return stamp


def noise(rng: np.random.Generator, cells: tuple[int, int]) -> NDArray[np.float64]:
    """Smooth periodic noise (SURFACE_SIZE, SURFACE_SIZE) in 0..1 with `cells` (rows, columns)."""
    grid = rng.random(cells)
    wrapped = np.pad(grid, ((0, 1), (0, 1)), mode="wrap")
    rows = np.linspace(0, cells[0], SURFACE_SIZE, endpoint=False)
    columns = np.linspace(0, cells[1], SURFACE_SIZE, endpoint=False)
    y, x = rows.astype(int), columns.astype(int)
    v, u = (rows - y)[:, None], (columns - x)[None]
    upper = wrapped[y][:, x] * (1 - u) + wrapped[y][:, x + 1] * u
    lower = wrapped[y + 1][:, x] * (1 - u) + wrapped[y + 1][:, x + 1] * u
    return upper * (1 - v) + lower * v


def shaded(color: Color, light: NDArray[np.float64]) -> Image.Image:
    """A color multiplied by a field of brightness around 1."""
    pixels = np.clip(np.asarray(color) * light[..., None], 0, 1)
    return Image.fromarray(np.round(255 * pixels).astype(np.uint8))


def plaster(style: Style, name: str) -> Image.Image:
    """Slightly uneven wall."""
    rng = style.rng(name + "/plaster")
    light = 0.94 + 0.08 * noise(rng, (16, 16)) + 0.04 * noise(rng, (64, 64))
    return shaded(style.color(name), light)


def wood(style: Style, name: str, grain: int = 40) -> Image.Image:
    """Wood with its grain along the picture's rows."""
    rng = style.rng(name + "/wood")
    light = 0.86 + 0.16 * noise(rng, (grain, 3)) + 0.10 * noise(rng, (64, 6))
    return shaded(style.color(name), light)


def planks(style: Style, name: str, count: int = 4) -> Image.Image:
    """Floor boards side by side."""
    rng = style.rng(name + "/planks")
    light = 0.85 + 0.15 * noise(rng, (48, 3))
    height = SURFACE_SIZE // count
    for index in range(count):
        light[index * height : (index + 1) * height] *= rng.uniform(0.88, 1.08)
        light[index * height] *= 0.6
    return shaded(style.color(name), light)


def tiles(style: Style, name: str, count: int = 2) -> Image.Image:
    """Square tiles with joints."""
    rng = style.rng(name + "/tiles")
    light = 0.92 + 0.08 * noise(rng, (8, 8))
    step = SURFACE_SIZE // count
    for index in range(count):
        light[index * step : index * step + 2] *= 0.7
        light[:, index * step : index * step + 2] *= 0.7
    return shaded(style.color(name), light)
