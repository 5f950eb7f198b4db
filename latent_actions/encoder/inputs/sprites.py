"""Sprites moving on textured backgrounds: a data-free bed with known actions, scenes and views.

Action = motion pattern, scene = texture + palette + still distractors, view = wide `exo` or zoomed,
swaying `ego`. In training scenes each scene favors a few actions (`correlation`), in validation
scenes none. World coordinates run over [-1, 1]; everything is drawn from formulas, so any view is
exact.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from latent_actions.encoder.inputs.clips import ClipData, ClipTable
from latent_actions.video.index import SPLITS
from latent_actions.video.records import Split, View

MOTIONS = ("left", "right", "up", "down", "approach", "part", "circle", "bounce")


_COLUMNS = ("frames", "moment", "take", "scene", "view", "camera", "verb", "text", "split")


@ClipData.register_subclass("sprites")
@dataclass(frozen=True, kw_only=True)
class SpriteConfig(ClipData):
    """Size and difficulty of the bed."""

    moments: int = 1500  # training moments, each seen by one ego and one exo camera
    val_moments: int = 320  # validation moments
    train_scenes: int = 12  # scenes of the training split
    val_scenes: int = 8  # other scenes, validation only
    # share of a training scene's moments that show its two favorite actions
    correlation: float = 0.85
    size: int = 32  # H = W, pixels
    radius: float = 0.2  # of a sprite, world units
    travel: float = 0.5  # half of a sprite's path, world units
    seed: int = 0  # decides everything

    def __post_init__(self) -> None:
        if min(self.moments, self.val_moments, self.train_scenes, self.val_scenes) < 1:
            raise ValueError("moments and scenes of both splits must be >= 1")
        if not 0 <= self.correlation <= 1:
            raise ValueError(f"correlation must be in [0, 1], got {self.correlation}")

    def table(
        self, frames: int, folder: Path, workers: int, splits: Sequence[Split] = SPLITS
    ) -> ClipTable:
        """Rendered in memory, both splits; `folder` and `workers` are not used."""
        return sprite_table(self, frames)

    def parents(self) -> dict[str, Path]:
        return {}


@dataclass(frozen=True)
class _Scene:
    waves: np.ndarray  # (K, 3): frequency x, frequency y, phase
    palette: np.ndarray  # (2, 3) colors in [0, 1]
    still: np.ndarray  # (J, 6): x, y, radius, color
    favorites: np.ndarray  # two motion indices


def sprite_table(config: SpriteConfig, frames: int) -> ClipTable:
    """Render the whole bed. Row order: moment by moment, ego then exo."""
    columns: dict[str, Any] = {name: [] for name in _COLUMNS}
    n_scenes = config.train_scenes + config.val_scenes
    scenes = [_make_scene(np.random.default_rng([config.seed, 1, i])) for i in range(n_scenes)]
    for index in range(config.moments + config.val_moments):
        rng = np.random.default_rng([config.seed, 2, index])
        train = index < config.moments
        number = (
            rng.integers(config.train_scenes)
            if train
            else config.train_scenes + rng.integers(config.val_scenes)
        )
        scene, motion = scenes[number], int(rng.integers(len(MOTIONS)))
        if train and rng.random() < config.correlation:
            motion = int(rng.choice(scene.favorites))
        paths, colors = _paths(rng, motion, config, frames), rng.random((2, 3))
        for view in ("ego", "exo"):
            place = _ego(rng, frames) if view == "ego" else _exo(frames)
            columns["frames"].append(_draw(scene, paths, colors, place, config))
            _describe(
                columns, index, scene=int(number), view=view, verb=MOTIONS[motion], train=train
            )
    pixels = np.stack(columns.pop("frames"))
    facts: dict[str, Any] = {name: tuple(values) for name, values in columns.items()}
    return ClipTable(frames=pixels, **facts)


def _describe(
    columns: dict[str, list], index: int, *, scene: int, view: View, verb: str, train: bool
) -> None:
    row = {
        "moment": f"m{index}", "take": f"scene{scene}_take{index % 5}", "scene": f"scene{scene}",
        "view": view, "camera": "aria" if view == "ego" else "cam01",
        "verb": verb, "text": f"a sprite goes {verb}", "split": "train" if train else "val",
    }  # fmt: skip
    for name, value in row.items():
        columns[name].append(value)


def _make_scene(rng: np.random.Generator) -> _Scene:
    waves = np.concatenate([rng.normal(0, 4, (4, 2)), rng.uniform(0, 2 * np.pi, (4, 1))], axis=1)
    still = np.concatenate(
        [rng.uniform(-1, 1, (3, 2)), rng.uniform(0.08, 0.2, (3, 1)), rng.random((3, 3))], axis=1
    )
    return _Scene(waves, rng.random((2, 3)), still, rng.choice(len(MOTIONS), 2, replace=False))


def _paths(rng: np.random.Generator, motion: int, config: SpriteConfig, frames: int) -> np.ndarray:
    """Centers of the two sprites over time, (T, 2 sprites, 2). One sprite stands still in
    one-sprite motions.
    """
    t, far = np.linspace(-1, 1, frames), config.travel * rng.uniform(0.8, 1.2)
    zero = np.zeros_like(t)
    name = MOTIONS[motion]
    lines = {"left": (-t, zero), "right": (t, zero), "up": (zero, -t), "down": (zero, t)}
    turn = np.pi * t + rng.uniform(0, 2 * np.pi)
    lines |= {
        "circle": (np.cos(turn), np.sin(turn)),
        "bounce": (zero, 1 - 2 * np.abs(np.sin(np.pi * t))),
    }
    middle = rng.uniform(-0.25, 0.25, 2)
    if name in lines:
        first = far * np.stack(lines[name], axis=1) + middle
        second = np.tile(rng.choice([-1, 1], 2) * rng.uniform(0.5, 0.8, 2), (len(t), 1))
        return np.stack([first, second], axis=1)
    reach = 0.15 + far * (1 - t if name == "approach" else 1 + t) / 2 * 1.2
    angle = rng.uniform(0, 2 * np.pi)
    step = reach[:, None] * np.array([np.cos(angle), np.sin(angle)])
    return np.stack([middle + step, middle - step], axis=1)


def _exo(frames: int) -> np.ndarray:
    """World position and half width of the picture over time, (T, 3)."""
    return np.tile([0.0, 0.0, 1.0], (frames, 1))


def _ego(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Zoomed in, with a smooth sway: (T, 3)."""
    sway = np.cumsum(rng.normal(0, 0.03, (frames, 2)), axis=0) + rng.uniform(-0.1, 0.1, 2)
    return np.concatenate([sway, np.full((frames, 1), rng.uniform(0.7, 0.85))], axis=1)


def _draw(
    scene: _Scene, paths: np.ndarray, colors: np.ndarray, place: np.ndarray, config: SpriteConfig
) -> np.ndarray:
    """Frames of one clip, uint8 (T, H, W, 3)."""
    axis = (np.arange(config.size) + 0.5) / config.size * 2 - 1
    x = (place[:, 0, None, None] + place[:, 2, None, None] * axis).repeat(config.size, axis=1)
    y = (place[:, 1, None, None] + place[:, 2, None, None] * axis[:, None]).repeat(
        config.size, axis=2
    )
    waves = [np.sin(fx * x + fy * y + phase) for fx, fy, phase in scene.waves]
    mix = (np.mean(waves, axis=0)[..., None] + 1) / 2
    picture = scene.palette[0] * mix + scene.palette[1] * (1 - mix)
    soft = config.size / 2 * 1.0
    for sx, sy, radius, *color in scene.still:
        cover = np.clip((radius - np.hypot(x - sx, y - sy)) * soft, 0, 1)[..., None]
        picture = picture * (1 - cover) + np.array(color) * cover
    for sprite in range(2):
        distance = np.hypot(*(c - paths[:, sprite, i, None, None] for i, c in enumerate((x, y))))
        cover = np.clip((config.radius - distance) * soft, 0, 1)[..., None]
        picture = picture * (1 - cover) + colors[sprite] * cover
    return (picture * 255).astype(np.uint8)
