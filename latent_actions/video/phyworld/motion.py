"""Where the balls are: the three scenarios of PhyWorld in closed form, and their ranges.

A world of 10 x 10 units, y up, without walls; 32 frames every 0.1 s, the first one after one
integration step of 0.01 s. Ranges and timing after github.com/phyworld/phyworld (arXiv 2411.02385).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

WORLD = 10.0  # side of the world, units
STEP_S = 0.01  # integration step of the published generator
FRAME_S = 0.1  # time between frames
FRAMES = 32
GRAVITY = 2.5  # units / s^2, parabola only
MARGIN = 0.05 * WORLD
VISIBLE_FRAMES = 16  # at least as many frames show the whole ball in uniform motion
SPEEDS = (1.0, 4.0)  # in distribution, units / s
RADII = {"uniform_motion": (0.7, 1.4), "parabola": (0.7, 1.4), "collision": (0.5, 1.5)}
Scenario = Literal["uniform_motion", "parabola", "collision"]
SCENARIOS: tuple[Scenario, ...] = ("uniform_motion", "parabola", "collision")
DIRECTIONS = {"right": (1.0, 0.0), "left": (-1.0, 0.0), "up": (0.0, 1.0), "down": (0.0, -1.0)}


@dataclass(frozen=True)
class Sample:
    """One scene. positions: float64 (FRAMES, balls, 2), world units; radii, speeds: (balls,)."""

    positions: np.ndarray
    radii: tuple[float, ...]
    speeds: tuple[float, ...]

    @property
    def init(self) -> list[float]:
        """As published: [r1, v1] or [r1, r2, v1, v2]."""
        return [*self.radii, *self.speeds]


def frame_times() -> np.ndarray:
    """Times of the frames, seconds, (FRAMES,)."""
    return STEP_S + FRAME_S * np.arange(FRAMES)


def uniform_motion(start: np.ndarray, direction: str, radius: float, speed: float) -> Sample:
    """A ball at constant speed. start: (2,), world units."""
    step = np.array(DIRECTIONS[direction]) * speed
    return Sample((start + frame_times()[:, None] * step)[:, None], (radius,), (speed,))


def parabola(start: np.ndarray, direction: str, radius: float, speed: float) -> Sample:
    """A ball thrown to the right or left. The fall is that of the published integrator (semi-
    implicit Euler): g t (t + step) / 2.
    """
    sample = uniform_motion(start, direction, radius, speed)
    times = frame_times()
    sample.positions[:, 0, 1] -= GRAVITY * times * (times + STEP_S) / 2
    return sample


def collision(
    x: tuple[float, float], height: float, radii: tuple[float, float], speeds: tuple[float, float]
) -> Sample:
    """Two balls that meet head-on and part elastically; the left one moves right at speeds[0], the
    right one left at speeds[1]. Masses ~ radius^2.
    """
    before = np.array([speeds[0], -speeds[1]])
    after = np.array(speeds_after(radii, speeds))
    contact_s = contact_time(x[1] - x[0], radii, speeds)
    times = frame_times()[:, None]
    along = np.array(x) + np.minimum(times, contact_s) * before
    along = along + np.maximum(times - contact_s, 0) * after
    return Sample(np.stack([along, np.full_like(along, height)], -1), radii, speeds)


def contact_time(distance: float, radii: tuple[float, float], speeds: tuple[float, float]) -> float:
    """Seconds until two balls touch whose centers are `distance` apart; a large number if never."""
    closing = sum(speeds)
    return max(distance - sum(radii), 0.0) / closing if closing > 0 else 1e9


def speeds_after(radii: tuple[float, float], speeds: tuple[float, float]) -> tuple[float, float]:
    """Signed speeds (right is positive) after a head-on elastic collision."""
    m1, m2 = radii[0] ** 2, radii[1] ** 2
    u1, u2 = speeds[0], -speeds[1]
    total = m1 + m2
    return ((m1 - m2) * u1 + 2 * m2 * u2) / total, ((m2 - m1) * u2 + 2 * m1 * u1) / total


def draw_sample(
    scenario: Scenario, directions: tuple[str, ...], rng: np.random.Generator
) -> Sample:
    """A random scene of one scenario, in distribution. directions: of uniform motion and, right and
    left, of the parabola.
    """
    if scenario == "collision":
        return _draw_collision(rng)
    radius, speed = rng.uniform(*RADII[scenario]), rng.uniform(*SPEEDS)
    sides = [d for d in directions if scenario == "uniform_motion" or d in ("right", "left")]
    direction = sides[rng.integers(len(sides))]
    run = VISIBLE_FRAMES * FRAME_S * speed + radius  # room that the ball needs ahead of it
    ahead = rng.uniform(radius, max(WORLD - run, radius))
    top = WORLD - MARGIN - radius
    low = radius + MARGIN if scenario == "uniform_motion" else top - 1.0
    across = rng.uniform(low, top)
    along = ahead if direction in ("right", "up") else WORLD - ahead
    horizontal = direction in ("right", "left")
    start = np.array([along, across] if horizontal else [across, along])
    move = uniform_motion if scenario == "uniform_motion" else parabola
    return move(start, direction, radius, speed)


def _draw_collision(rng: np.random.Generator) -> Sample:
    """Balls that touch between the 4th and the 24th frame."""
    low, high = RADII["collision"]
    while True:
        radii = (rng.uniform(low, high), rng.uniform(low, high))
        speeds = (rng.uniform(*SPEEDS), rng.uniform(*SPEEDS))
        gap = rng.uniform(4, 24) * FRAME_S * sum(speeds)
        room = WORLD - 2 * sum(radii) - gap
        if room > 0:
            break
    left = radii[0] + rng.uniform(0, room)
    height = rng.uniform(max(radii) + MARGIN, WORLD - MARGIN - max(radii))
    return collision((left, left + gap + sum(radii)), height, radii, speeds)
