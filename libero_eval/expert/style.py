"""How a demonstration is moved: people differ in pace and in the arcs of their hands."""

from dataclasses import dataclass

import numpy as np

from libero_eval.expert.skills import SPEED

SLOWEST = 0.5
HIGHEST_M = 0.06  # keeps the arm within reach over every table
WIDEST_M = 0.025  # at this offset open fingers still clear the object when the hand straightens


@dataclass(frozen=True)
class Style:
    """The manner of one demonstration; the default is the plain motion of the recipes.

    speed: share of the plain motion's largest speed, 0.5..1. rise: how much higher the hand
    travels, 0..0.06 m. approach: sideways offset, (x, y) m, of the path along which the hand comes
    down onto an object; it fades out above it. At most 0.025 m long.
    """

    speed: float = 1.0
    rise: float = 0.0
    approach: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not SLOWEST <= self.speed <= 1.0 or not 0.0 <= self.rise <= HIGHEST_M:
            raise ValueError(
                f"need speed in [{SLOWEST}, 1] and rise in [0, {HIGHEST_M}], got {self}"
            )
        if np.hypot(*self.approach) > WIDEST_M:
            raise ValueError(f"need an approach offset of at most {WIDEST_M} m, got {self}")

    def paced(self, action: np.ndarray) -> np.ndarray:
        """The action, (7,), with its largest motions slowed down; small ones stay as they are."""
        if self.speed == 1.0:
            return action
        limit = SPEED * self.speed
        slow = action.copy()
        slow[:2] /= max(1.0, float(np.linalg.norm(slow[:2])) / limit)
        slow[2] = np.clip(slow[2], -limit, limit)
        slow[3:6] /= max(1.0, float(np.linalg.norm(slow[3:6])) / limit)
        return slow


PLAIN = Style()


def random_style(rng: np.random.Generator) -> Style:
    """A style drawn evenly from all of them, for one demonstration."""
    angle, length = rng.uniform(-np.pi, np.pi), WIDEST_M * np.sqrt(rng.uniform())
    return Style(
        speed=float(rng.uniform(SLOWEST, 1.0)),
        rise=float(rng.uniform(0.0, HIGHEST_M)),
        approach=(float(length * np.cos(angle)), float(length * np.sin(angle))),
    )
