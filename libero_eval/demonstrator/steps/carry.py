"""Take an object somewhere: grasp, lift, bring, set down or drop."""

from dataclasses import dataclass, replace

import numpy as np

from libero_eval.demonstrator.hand import Hand, position_of
from libero_eval.demonstrator.skills import CLOSE, OPEN, hover_down, lift_over, smoothstep, toward
from libero_eval.demonstrator.steps.step import Memory, Step, holds
from libero_eval.sim import LiberoSim

WIDE_OPEN = 0.07  # opening from which a grasp may be tried
EMPTY = 0.003  # opening of fingers that closed on nothing
NEAR = 0.035  # an object this near to its place in the hand counts as in the hand
CLEARANCE = 0.03  # height of a carried object above what it passes
HAND_AND_CARTON = (0.068, 0.131)  # half widths of the hand and of a carton in x, y, and some air
OFF_CENTRE = 0.0165  # fingers 7.6 cm apart still go around a box of 4.2 cm
LOW = 0.03  # height above the grasp from which the hand slides in beside a neighbour
LOWERED = 0.01  # a set-down object this near to its place is released


@dataclass(frozen=True, kw_only=True)
class Carry(Step):
    """Take an object to a target.

    grasp: from the object's origin to the grip site, m. slack: how far the hand may be from there
    when it closes, (3,) m. target: the body to go to. place: from the target's origin to the
    object's origin at release, m. drop: let it fall from there, or set it down. tolerance: how far
    from there, sideways, it may be released, m. neighbour: a tall object that may be in the way.
    """

    item: str
    grasp: tuple[float, float, float]
    slack: tuple[float, float, float]
    target: str
    place: tuple[float, float, float]
    drop: bool
    tolerance: float
    neighbour: str | None = None
    transit_z: float = 0.64  # height of the empty hand on its way, above the basket's rim at 0.58

    @property
    def grasp_offset(self) -> np.ndarray:
        return np.array(self.grasp)

    @property
    def place_offset(self) -> np.ndarray:
        return np.array(self.place)

    def is_done(self, sim: LiberoSim) -> bool:
        return holds(sim, self.item)

    def leave(self, sim: LiberoSim, hand: Hand) -> np.ndarray | None:
        """Open the fingers and rise straight up out of an object that was set down."""
        if self.drop:
            return None
        offset = hand.position - position_of(sim, self.item) - self.grasp_offset
        if np.linalg.norm(offset[:2]) >= NEAR or offset[2] >= 0.04:
            return None
        rise = 0.003 + 0.06 * smoothstep(hand.opening, 0.025, 0.045)
        return toward(np.array([0.0, 0.0, rise]), OPEN)

    def act(self, sim: LiberoSim, hand: Hand, memory: Memory) -> np.ndarray:
        """Fetch the object, or bring it when it is in the hand."""
        item = position_of(sim, self.item)
        goal = position_of(sim, self.target) + self.place_offset
        grasp = item + self.grasp_offset
        grasp[1] += self._dodge(sim, grasp)
        error = grasp - hand.position
        is_near = float(np.linalg.norm(error)) < NEAR
        is_there = float(np.linalg.norm((goal - item)[:2])) < self.tolerance
        if is_near and is_there and (self.drop or item[2] - goal[2] < LOWERED):
            return self._release(goal - item)
        if is_near and hand.is_firm:
            return self._bring(item, goal, hand)
        return self._fetch(sim, grasp, error, hand, memory)

    def _release(self, error: np.ndarray) -> np.ndarray:
        """Open over the target, still drifting towards it."""
        error = np.array([error[0], error[1], 0.0])
        return toward(error, OPEN)

    def _bring(self, item: np.ndarray, goal: np.ndarray, hand: Hand) -> np.ndarray:
        """Lift the held object, carry it over the target, lower it if it is to be set down."""
        in_hand = hand.position - item
        if self.drop:
            return lift_over(hand.position, goal + in_hand, CLOSE)
        return hover_down(
            hand.position, goal + in_hand, (goal + in_hand)[2] + CLEARANCE + 0.03, CLOSE,
            inner=0.01, outer=0.04,
        )  # fmt: skip

    def _fetch(
        self, sim: LiberoSim, grasp: np.ndarray, error: np.ndarray, hand: Hand, memory: Memory
    ) -> np.ndarray:
        """Go to the grasp with open fingers and close them there."""
        slack = np.array(self.slack)
        if memory.reopening or hand.opening < EMPTY:
            memory.reopening = hand.opening < WIDE_OPEN
        is_at_grasp = bool(np.all(np.abs(error) < slack))
        is_closing = hand.opening < WIDE_OPEN and bool(np.all(np.abs(error) < 2 * slack))
        if not memory.reopening and (is_at_grasp or is_closing):
            return toward(error, CLOSE)
        side = self._side(sim, grasp)
        if side == 0.0:
            return hover_down(hand.position, grasp, self.transit_z, OPEN)
        is_beside = -0.02 < -error[0] * np.sign(side) < abs(side) + 0.02
        if is_beside and abs(error[1]) < 0.02 and -error[2] < LOW:
            return toward(error, OPEN)
        beside = grasp + np.array([side, 0.0, 0.0])
        return hover_down(hand.position, beside, self.transit_z, OPEN)

    def _side(self, sim: LiberoSim, grasp: np.ndarray) -> float:
        """How far beside the grasp, along x, the hand must come down; 0 if nothing is in its way.

        A tall neighbour would stop the hand. It comes down next to it, then slides in at the
        object's height and gently pushes the neighbour away.
        """
        if self.neighbour is None:
            return 0.0
        offset = position_of(sim, self.neighbour) - grasp
        if abs(offset[0]) > HAND_AND_CARTON[0] or abs(offset[1]) > HAND_AND_CARTON[1]:
            return 0.0
        return float(offset[0] + HAND_AND_CARTON[0] * (1 if offset[0] <= 0 else -1))

    def _dodge(self, sim: LiberoSim, grasp: np.ndarray) -> float:
        """How far along y to grasp off centre, away from a neighbour that is almost clear."""
        if self.neighbour is None:
            return 0.0
        offset = position_of(sim, self.neighbour) - grasp
        overlap = HAND_AND_CARTON[1] - abs(offset[1])
        if abs(offset[0]) > HAND_AND_CARTON[0] or not 0.0 < overlap < OFF_CENTRE:
            return 0.0
        return -float(np.sign(offset[1])) * overlap


# On the way to a later object the hand travels higher, so that its height alone tells which object is
# next: a policy that must read it off small images otherwise turns back to the first one.
LATER_RISE = 0.10


def rising(*steps: Carry) -> tuple[Carry, ...]:
    """The steps, each travelled to higher than the one before."""
    return tuple(replace(s, transit_z=s.transit_z + LATER_RISE * i) for i, s in enumerate(steps))
