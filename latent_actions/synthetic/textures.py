"""Procedural surface textures: uint8 (SIZE, SIZE, 3) from a seed, for tables, walls and floors."""

import colorsys

import numpy as np

SIZE = 64
Color = tuple[float, float, float]


def random_color(
    rng: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]
) -> Color:
    """A color with any hue, RGB in [0, 1]."""
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))


def _coordinates() -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(SIZE) + 0.5) / SIZE
    return np.meshgrid(axis, axis, indexing="ij")


def _smooth_noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """Noise in [0, 1] with `cells` bumps per side, periodic, bilinear."""
    grid = rng.random((cells, cells))
    rows, columns = _coordinates()
    r, c = rows * cells, columns * cells
    r0, c0 = r.astype(int), c.astype(int)
    fr, fc = r - r0, c - c0
    r1, c1 = (r0 + 1) % cells, (c0 + 1) % cells
    r0, c0 = r0 % cells, c0 % cells
    top = grid[r0, c0] * (1 - fc) + grid[r0, c1] * fc
    bottom = grid[r1, c0] * (1 - fc) + grid[r1, c1] * fc
    return top * (1 - fr) + bottom * fr


def _wood(rng: np.random.Generator) -> np.ndarray:
    rows, _ = _coordinates()
    rings = rows * rng.integers(5, 10) + 1.5 * _smooth_noise(rng, 4)
    return 0.5 + 0.5 * np.sin(2 * np.pi * rings)


def _stripes(rng: np.random.Generator) -> np.ndarray:
    axis = _coordinates()[rng.integers(2)]
    return (axis * rng.integers(3, 7) % 1 < rng.uniform(0.3, 0.7)).astype(float)


def _checks(rng: np.random.Generator) -> np.ndarray:
    rows, columns = _coordinates()
    count = int(rng.integers(2, 5)) * 2
    return ((np.floor(rows * count) + np.floor(columns * count)) % 2).astype(float)


def _tiles(rng: np.random.Generator) -> np.ndarray:
    rows, columns = _coordinates()
    count = int(rng.integers(3, 7))
    return ((rows * count % 1 > 0.1) & (columns * count % 1 > 0.1)).astype(float)


def _marble(rng: np.random.Generator) -> np.ndarray:
    return 0.6 * _smooth_noise(rng, 5) + 0.4 * _smooth_noise(rng, 16)


def _plain(rng: np.random.Generator) -> np.ndarray:
    return 0.5 + 0.1 * _smooth_noise(rng, 16)


PATTERNS = (_wood, _stripes, _checks, _tiles, _marble, _plain)


def texture(rng: np.random.Generator, first: Color, second: Color) -> np.ndarray:
    """A random pattern that mixes two colors, with a little grain."""
    weight = PATTERNS[rng.integers(len(PATTERNS))](rng)[..., None]
    mixed = (1 - weight) * np.array(first) + weight * np.array(second)
    grain = 1 + 0.06 * (rng.random((SIZE, SIZE, 1)) - 0.5)
    return np.clip(np.rint(mixed * grain * 255), 0, 255).astype(np.uint8)


def rough(rng: np.random.Generator, picture: np.ndarray, contrast: float) -> np.ndarray:
    """The surface with structure of every size on it, as things lie about in real places."""
    structure = sum((_smooth_noise(rng, cells) - 0.5) for cells in (4, 9, 17, 32))
    lines = PATTERNS[rng.integers(len(PATTERNS))](rng) - 0.5
    factor = 1 + contrast * rng.uniform(0.4, 1) * (0.8 * structure + 0.5 * lines)
    return np.clip(np.rint(picture * factor[..., None]), 0, 255).astype(np.uint8)
