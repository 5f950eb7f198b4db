"""Things that stand so near to an object that the hand must make way for them."""

from dataclasses import dataclass

import numpy as np

from libero_eval.env.sim import LiberoSim
from libero_eval.expert.hand import position_of

HAND = (0.042, 0.105)  # half widths in x and y of the hand, fingers closing along y, and some air
FINGERS = (0.014, 0.056)  # those of the open fingers near their tips
OFF_CENTRE = 0.0165  # fingers 7.6 cm apart still go around a box of 4.2 cm


@dataclass(frozen=True)
class Neighbor:
    """A thing that would stop the hand above the grasp.

    name: its body. half: its half widths in x and y, m. gives_way: whether the hand may push it.
    part: half widths of what it would stop, m: the hand, or only the fingers if it is low. room: how
    far off center the object can still be grasped, m.
    """

    name: str
    half: tuple[float, float]
    gives_way: bool
    part: tuple[float, float] = HAND
    room: float = OFF_CENTRE

    def side(self, sim: LiberoSim, grasp: np.ndarray) -> float:
        """How far beside the grasp, along x, the hand must come down; 0 if this is not in its way.

        The hand comes down next to it, then slides in at the object's height and gently pushes it
        away.
        """
        if not self.gives_way:
            return 0.0
        offset = position_of(sim, self.name) - grasp
        reach = self.part[0] + self.half[0]
        if abs(offset[0]) > reach or abs(offset[1]) > self.part[1] + self.half[1]:
            return 0.0
        return float(offset[0] + reach * (1 if offset[0] <= 0 else -1))

    def dodge(self, sim: LiberoSim, grasp: np.ndarray) -> float:
        """How far along y to grasp off center, away from this, if that clears it or nothing else
        can."""
        offset = position_of(sim, self.name) - grasp
        overlap = self.part[1] + self.half[1] - abs(offset[1])
        if abs(offset[0]) > self.part[0] + self.half[0] or overlap <= 0.0:
            return 0.0
        if overlap >= self.room and self.gives_way:
            return 0.0
        return -float(np.sign(offset[1])) * min(overlap, self.room)
