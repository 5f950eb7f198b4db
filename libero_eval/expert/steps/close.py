"""Push a drawer or a door shut."""

from dataclasses import dataclass, replace

import numpy as np

from libero_eval.env.sim import LiberoSim
from libero_eval.expert.hand import Hand
from libero_eval.expert.skills import CLOSE, TURN_GAIN, hover_down, toward, turn_toward
from libero_eval.expert.steps.carry import ASKEW_M
from libero_eval.expert.steps.step import Memory, Step, holds
from libero_eval.expert.style import Style

BEFORE = 0.03  # the hand comes down this far before the surface that it will push
ASIDE = 0.02  # a hand this far from its line or height, or behind the surface, comes again
AHEAD = 0.06  # how far ahead of itself the pushing hand aims


@dataclass(frozen=True, kw_only=True)
class Close(Step):
    """Push a moving part until it is shut.

    goal: what the goal says is to be closed. body: the part that moves. at: where the grip site is
    when the hand touches the part, in the body's frame, m. push: which way it pushes there, a unit
    vector in the body's frame; it turns with a door. transit_z: height of the hand on its way, m.
    yaw, tilt: how the hand is turned, as for `turn_toward`, rad.
    """

    goal: str
    body: str
    at: tuple[float, float, float]
    push: tuple[float, float, float]
    transit_z: float
    yaw: float
    tilt: float = 0.0

    def styled(self, style: Style) -> "Close":
        return replace(self, transit_z=self.transit_z + style.rise)

    def is_done(self, sim: LiberoSim) -> bool:
        return holds(sim, self.goal)

    def act(self, sim: LiberoSim, hand: Hand, memory: Memory) -> np.ndarray:
        """Come down before the part, then push it along its way."""
        del memory
        turn = turn_toward(hand.axes, self.yaw, self.tilt)
        body = sim.data.body(self.body)
        axes = body.xmat.reshape(3, 3)
        contact, push = body.xpos + axes @ np.array(self.at), axes @ np.array(self.push)
        offset = hand.position - contact
        along = float(offset @ push)
        beside = along * push - offset
        if -2 * BEFORE < along < BEFORE and np.all(np.abs(beside) < ASIDE):
            action = toward(AHEAD * push + beside, CLOSE)
        else:
            askew = ASKEW_M * float(np.linalg.norm(turn)) / TURN_GAIN
            before = contact - BEFORE * push
            action = hover_down(hand.position, before, self.transit_z, CLOSE, askew=askew)
        action[3:6] = turn
        return action
