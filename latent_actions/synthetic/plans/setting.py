"""What a plan reads. A plan is a list of keys with times in [0, 1], the first being where the action
naturally begins."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from latent_actions.synthetic.hand import Side
from latent_actions.synthetic.motions import Key, hand_rotation
from latent_actions.synthetic.objects import Kind


@dataclass
class Setting:
    """What a plan reads, and the object's place, which it moves on.

    spot: origin of the object on the table, (3,) m. yaw: of the object, rad. partner: origin of the
    second object (bowl, base of a stack). amplitude scales distances, offset shifts the start of
    free ways, tilt_deg and turn_rad vary the wrist. home: where the empty hand comes from and goes
    to.
    """

    side: Side
    kind: Kind
    spot: np.ndarray
    yaw: float
    partner: np.ndarray
    amplitude: float
    offset: np.ndarray
    tilt_deg: float
    turn_rad: float
    home: np.ndarray
    cycles: float
    name: str = ""
    phase: float = 0.0
    flip: int = 1
    held_at: np.ndarray = field(default_factory=lambda: np.zeros(3))

    @property
    def mirror(self) -> float:
        """+1 for a right hand, -1 for a left hand."""
        return 1.0 if self.side == "right" else -1.0

    def grasp(self, origin: np.ndarray | None = None) -> np.ndarray:
        """Where the grasp point goes to take hold of the object standing at `origin` (its spot)."""
        place = self.spot if origin is None else origin
        return place + Rotation.from_euler("z", self.yaw).apply(self.kind.grasp)

    def hand(self, pose: str | None = None, turn: float | None = None) -> Rotation:
        """Hand orientation for a pose (the kind's own by default)."""
        return hand_rotation(
            pose or self.kind.pose,
            self.side,
            self.turn_rad if turn is None else turn,
            self.tilt_deg,
        )

    @property
    def away(self) -> np.ndarray:
        """From the grasp to where the open hand comes from: above, or beside for upright
        objects.
        """
        if self.kind.pose in ("side", "stick"):
            return np.array([self.mirror * 0.10, -0.07, 0.03])
        return np.array([0.0, -0.04, 0.11])


Plan = Callable[[Setting], list[Key]]
