"""Turn a stove's knob: reach around its grip with open fingers and push it sideways."""

from dataclasses import dataclass, replace

import numpy as np

from libero_eval.env.sim import LiberoSim
from libero_eval.expert.hand import Hand
from libero_eval.expert.skills import OPEN, hover_down, toward
from libero_eval.expert.steps.step import Memory, Step, holds
from libero_eval.expert.style import PLAIN, Style

LEVER = (0.0014, 0.036, 0.033)  # where the fingers reach around the grip, in the knob's frame, m
AROUND = (0.05, 0.025, 0.015)  # this far from there, in the knob's frame, the grip is between them
PUSH_M = 0.045  # how far ahead of itself the pushing hand aims


@dataclass(frozen=True, kw_only=True)
class Turn(Step):
    """Turn a knob on. stove: the fixture. transit_z: height of the hand on its way, m. style: of the
    demonstration; a slow push turns the knob too.

    The fingers close along y, across the grip of a knob that is off. They stay open: the one behind
    the grip pushes it, and the hand follows the grip's end around its axis without turning.
    """

    stove: str
    transit_z: float
    style: Style = PLAIN

    def styled(self, style: Style) -> "Turn":
        return replace(self, style=style, transit_z=self.transit_z + style.rise)

    def is_done(self, sim: LiberoSim) -> bool:
        return holds(sim, self.stove)

    def act(self, sim: LiberoSim, hand: Hand, memory: Memory) -> np.ndarray:
        """Come down around the grip, then push its end along the circle it moves on."""
        del memory
        knob = sim.data.body(f"{self.stove}_button")
        axes = knob.xmat.reshape(3, 3)
        lever = knob.xpos + axes @ np.array(LEVER)
        offset = axes.T @ (hand.position - lever)
        if np.any(np.abs(offset) > AROUND):
            aside = self.style.approach
            return hover_down(hand.position, lever, self.transit_z, OPEN, aside=aside)
        return toward(axes @ np.array([-PUSH_M, -offset[1], -offset[2]]), OPEN)
