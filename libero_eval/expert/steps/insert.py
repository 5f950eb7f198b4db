"""Put an object into something that is open at its side."""

from dataclasses import dataclass

import numpy as np

from libero_eval.env.sim import LiberoSim
from libero_eval.expert.hand import Hand, position_of
from libero_eval.expert.skills import CLOSE, OPEN, smoothstep, toward
from libero_eval.expert.steps.carry import LOWERED, Carry
from libero_eval.expert.steps.step import holds

AT_GRASP = 0.03  # a hand this near to its grasp is around the object
OUT = 0.06  # a hand that was drawn back this far is free
SWING = (0.06, 0.16)  # distances from the place, along y: straight before it, fully aside


@dataclass(frozen=True, kw_only=True)
class Insert(Carry):
    """Take an object along y into its target, through an opening that faces -y.

    gate: how far before its place, along y, the object waits until its height and its x are right,
    m. swing: how far to the side, along x, it is carried past an open door, m. clearance: height
    above its place on the way in, m. The hand leaves the way it came.
    """

    gate: float
    swing: float

    def is_done(self, sim: LiberoSim) -> bool:
        """Whether it is in there and stands."""
        above = position_of(sim, self.item) - position_of(sim, self.target) - self.place_offset
        return holds(sim, self.item) and above[2] < LOWERED

    def leave(self, sim: LiberoSim, hand: Hand) -> np.ndarray | None:
        """Open the fingers and draw the hand straight back."""
        offset = hand.position - position_of(sim, self.item) - self.grasp_offset(sim)
        is_in_line = max(abs(offset[0]), abs(offset[2])) < AT_GRASP
        if not is_in_line or not -OUT < offset[1] < AT_GRASP:
            return None
        back = 0.003 + 0.06 * smoothstep(hand.opening, 0.025, 0.045)
        return toward(np.array([0.0, -back, 0.0]), OPEN)

    def _bring(self, item: np.ndarray, goal: np.ndarray, hand: Hand, askew: float) -> np.ndarray:
        """Go before the opening, then straight in above the floor, then down."""
        del hand
        error = goal - item
        inside = smoothstep(abs(error[1]), 0.005, 0.02)
        error[2] += self.clearance * inside
        error[0] += self.swing * smoothstep(error[1], *SWING)
        outside = float(np.hypot(error[0], error[2])) * inside + askew
        error[1] -= self.gate * smoothstep(outside, 0.008, 0.03)
        return toward(error, CLOSE)
