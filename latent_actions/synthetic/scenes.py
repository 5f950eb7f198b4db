"""Scenes: places that differ in table, walls, light, clutter and exo cameras. A scene is a function
of (seed, index).

Names follow Ego-Exo4D's `<institution>_<activity>`; the validation scenes are other places than the
training scenes and, up to five of them, have five different activity keywords.
"""

from dataclasses import dataclass

import numpy as np

from latent_actions.synthetic.config import TIDY, Variety
from latent_actions.synthetic.objects import FREE
from latent_actions.synthetic.textures import Color, random_color, rough, texture

SCENE_STREAM = 101  # first number of the random streams of scenes
ACTIVITIES = ("cooking", "bike", "covid", "pcr", "cpr")
TRAIN_INSTITUTIONS = ("harbor", "northlab", "meadow", "delta", "summit", "quarry")
VAL_INSTITUTIONS = ("lagoon", "orchard", "tundra", "canyon")
# places at the rim of the table, out of the working area: (x, y) in m
CLUTTER_SLOTS = (
    (-0.40, 0.30), (-0.2, 0.37), (0.03, 0.39), (0.24, 0.37), (0.42, 0.28), (-0.46, 0.08),
    (0.47, 0.05), (-0.44, -0.18), (0.46, -0.2),
)  # fmt: skip


@dataclass(frozen=True)
class Clutter:
    """A standing object that nobody touches: kind, place on the table in m, turn in rad,
    colors.
    """

    kind: str
    x: float
    y: float
    yaw: float
    colors: tuple[Color, Color]


@dataclass(frozen=True)
class ExoCamera:
    """A fixed camera on a sphere around the working area: azimuth from +x, elevation, distance,
    field of view; radians, meters, degrees."""

    name: str
    azimuth: float
    elevation: float
    distance: float
    fovy_deg: float


@dataclass(frozen=True)
class Scene:
    """One place. textures: table, wall, floor, uint8 (64, 64, 3)."""

    index: int
    name: str
    split: str
    textures: tuple[np.ndarray, np.ndarray, np.ndarray]
    light_direction: tuple[float, float, float]
    light_color: Color
    ambient: float
    clutter: tuple[Clutter, ...]
    exo: tuple[ExoCamera, ...]

    @property
    def uid(self) -> str:
        """physical_setting_uid of takes.json."""
        return f"{self.name}_place"


def scene_name(split: str, number: int) -> str:
    """`<institution>_<activity>` of the number-th scene of a split; all names differ."""
    institutions = TRAIN_INSTITUTIONS if split == "train" else VAL_INSTITUTIONS
    # the two counts have no common factor, so pairs repeat only after their product
    activity = ACTIVITIES[number % len(ACTIVITIES)]
    institution = institutions[number % len(institutions)]
    generation = number // (len(ACTIVITIES) * len(institutions))
    return f"{institution}{'' if not generation else chr(ord('a') + generation)}_{activity}"


def make_scene(
    seed: int, split: str, number: int, n_exo: int = 2, variety: Variety = TIDY
) -> Scene:
    """The number-th scene of a split ("train" or "val")."""
    index = number if split == "train" else 1000 + number
    rng = np.random.default_rng([seed, SCENE_STREAM, index])
    table = texture(
        rng, random_color(rng, (0.1, 0.6), (0.35, 0.75)), random_color(rng, (0.1, 0.6), (0.45, 0.9))
    )
    wall, floor = (
        texture(
            rng,
            random_color(rng, (0.05, 0.5), (0.3, 0.9)),
            random_color(rng, (0.05, 0.5), (0.3, 0.9)),
        )
        for _ in range(2)
    )
    tint = rng.uniform(0.85, 1.0, 3)
    direction = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.4, 0.6), -1.0])
    if variety.textures:
        grain = np.random.default_rng([seed, SCENE_STREAM, index, 1])
        table, wall, floor = (
            rough(grain, picture, variety.textures) for picture in (table, wall, floor)
        )
    return Scene(
        index=index, name=scene_name(split, number), split=split, textures=(table, wall, floor),
        light_direction=tuple(direction / np.linalg.norm(direction)),
        light_color=tuple(tint * rng.uniform(0.55, 0.75)), ambient=float(rng.uniform(0.3, 0.45)),
        clutter=_clutter(rng), exo=_exo_cameras(rng, n_exo, variety.views),
    )  # fmt: skip


def _clutter(rng: np.random.Generator) -> tuple[Clutter, ...]:
    slots = rng.permutation(len(CLUTTER_SLOTS))[: rng.integers(2, 6)]
    kinds = [kind for kind in FREE if kind not in ("spoon", "knife", "cucumber")]
    return tuple(
        Clutter(
            kind=kinds[rng.integers(len(kinds))],
            x=CLUTTER_SLOTS[slot][0] + rng.uniform(-0.03, 0.03),
            y=CLUTTER_SLOTS[slot][1] + rng.uniform(-0.03, 0.03),
            yaw=rng.uniform(-np.pi, np.pi),
            colors=(
                random_color(rng, (0.3, 0.9), (0.4, 0.95)),
                random_color(rng, (0.1, 0.9), (0.3, 0.95)),
            ),
        )
        for slot in slots
    )


def _exo_cameras(rng: np.random.Generator, count: int, spread: float) -> tuple[ExoCamera, ...]:
    """Cameras around the far side and the two flanks (the user sits at -y). spread: of their places."""
    azimuths = np.linspace(20, 160, count + 1)[:-1] + 70 / max(count, 1)
    return tuple(
        ExoCamera(
            name=f"cam{number + 1:02d}",
            azimuth=float(np.radians(azimuth + rng.uniform(-18, 18))),
            elevation=float(np.radians(rng.uniform(22, 42 + 18 * spread))),
            distance=float(rng.uniform(0.95 - 0.25 * spread, 1.15)),
            fovy_deg=float(rng.uniform(31 - 3 * spread, 36 + 44 * spread)),
        )
        for number, azimuth in enumerate(azimuths)
    )
