"""Take an object somewhere: grasp, lift, bring, set down or drop."""

from dataclasses import dataclass, replace

import numpy as np

from libero_eval.env.sim import LiberoSim
from libero_eval.expert.hand import Hand, position_of, yaw_of
from libero_eval.expert.skills import (
    CLOSE,
    OPEN,
    hover_down,
    lift_over,
    smoothstep,
    toward,
    turn_toward,
    wrap,
)
from libero_eval.expert.steps.neighbor import Neighbor
from libero_eval.expert.steps.step import Memory, Step, holds
from libero_eval.expert.style import PLAIN, Style

WIDE_OPEN = 0.07  # opening from which a grasp may be tried
EMPTY = 0.003  # opening of fingers that closed on nothing
NEAR = 0.035  # an object this near to its place in the hand counts as in the hand
LOW = 0.03  # height above the grasp from which the hand slides in beside a neighbor
PUSH_M = 0.03  # a hand that slides in aims at least this far ahead, not to be held up
LOWERED = 0.01  # a set-down object this near to its place is released
ASKEW_M = 0.1  # a radian of turn still to make counts as this distance


@dataclass(frozen=True)
class Facing:
    """How an object is turned. grip: angle from its x axis to the line along which the fingers
    close, rad. place: angle of its x axis in the world's x-y plane at release, rad."""

    grip: float
    place: float


@dataclass(frozen=True, kw_only=True)
class Carry(Step):
    """Take an object to a target.

    grasp: from the object's origin to the grip site, m. slack: how far the hand may be from there
    when it closes, (3,) m. target: the body to go to. place: from the target's origin to the
    object's origin at release, m. drop: let it fall from there, or set it down. tolerance: how far
    from there, sideways, it may be released, m. neighbors: what may be in the way of the hand.
    facing: given if the hand must turn; `grasp` is then in the object's axes, else in the world's.
    """

    item: str
    grasp: tuple[float, float, float]
    slack: tuple[float, float, float]
    target: str
    place: tuple[float, float, float]
    drop: bool
    tolerance: float
    neighbors: tuple[Neighbor, ...] = ()
    transit_z: float = 0.64  # height of the empty hand on its way, above the basket's rim at 0.58
    clearance: float = 0.03  # height of an object to be set down above what it passes
    funnel: tuple[float, float] = (0.01, 0.04)  # sideways distances: lowered fully, not at all
    facing: Facing | None = None
    tilt: float = 0.0  # of a hand that must turn, as for `turn_toward`, rad
    style: Style = PLAIN

    def grasp_offset(self, sim: LiberoSim) -> np.ndarray:
        """From the object's origin to the grip site, world axes, (3,) m."""
        x, y, z = self.grasp
        if self.facing is None:
            return np.array([x, y, z])
        yaw = yaw_of(sim, self.item)
        c, s = np.cos(yaw), np.sin(yaw)
        return np.array([c * x - s * y, s * x + c * y, z])

    @property
    def place_offset(self) -> np.ndarray:
        return np.array(self.place)

    def styled(self, style: Style) -> "Carry":
        return replace(self, style=style, transit_z=self.transit_z + style.rise)

    def is_done(self, sim: LiberoSim) -> bool:
        return holds(sim, self.item)

    def leave(self, sim: LiberoSim, hand: Hand) -> np.ndarray | None:
        """Open the fingers and rise straight up out of an object that was set down."""
        if self.drop:
            return None
        offset = hand.position - position_of(sim, self.item) - self.grasp_offset(sim)
        if np.linalg.norm(offset[:2]) >= NEAR or offset[2] >= 0.04:
            return None
        rise = 0.003 + 0.06 * smoothstep(hand.opening, 0.025, 0.045)
        return toward(np.array([0.0, 0.0, rise]), OPEN)

    def act(self, sim: LiberoSim, hand: Hand, memory: Memory) -> np.ndarray:
        """Fetch the object, or bring it when it is in the hand."""
        item = position_of(sim, self.item)
        goal = position_of(sim, self.target) + self.place_offset
        grasp = item + self.grasp_offset(sim)
        grasp[1] += sum(n.dodge(sim, grasp) for n in self.neighbors)
        error = grasp - hand.position
        is_near = float(np.linalg.norm(error)) < NEAR
        is_there = float(np.linalg.norm((goal - item)[:2])) < self.tolerance
        if is_near and is_there and (self.drop or item[2] - goal[2] < LOWERED):
            return self._release(goal - item)
        is_held = is_near and hand.is_firm
        turn = self._turn(sim, hand, is_held)
        if is_held:
            action = self._bring(item, goal, hand, ASKEW_M * abs(turn))
        else:
            action = self._fetch(sim, grasp, error, hand, memory, ASKEW_M * abs(turn))
        if self.facing is not None:
            action[3:6] = turn_toward(hand.axes, hand.yaw + turn, self.tilt)
        return action

    def _turn(self, sim: LiberoSim, hand: Hand, is_held: bool) -> float:
        """How far the hand must turn for the grasp or, with the object held, for its place, rad."""
        if self.facing is None:
            return 0.0
        yaw = yaw_of(sim, self.item)
        if is_held:
            return wrap(self.facing.place - yaw)
        return wrap(yaw + self.facing.grip - hand.yaw, np.pi)

    def _release(self, error: np.ndarray) -> np.ndarray:
        """Open over the target, still drifting towards it."""
        error = np.array([error[0], error[1], 0.0])
        return toward(error, OPEN)

    def _bring(self, item: np.ndarray, goal: np.ndarray, hand: Hand, askew: float) -> np.ndarray:
        """Lift the held object, carry it over the target, lower it if it is to be set down."""
        in_hand = hand.position - item
        if self.drop:
            return lift_over(hand.position, goal + in_hand, CLOSE)
        return hover_down(
            hand.position, goal + in_hand, (goal + in_hand)[2] + self.clearance + 0.03, CLOSE,
            inner=self.funnel[0], outer=self.funnel[1], askew=askew,
        )  # fmt: skip

    def _fetch(
        self,
        sim: LiberoSim,
        grasp: np.ndarray,
        error: np.ndarray,
        hand: Hand,
        memory: Memory,
        askew: float,
    ) -> np.ndarray:
        """Go to the grasp with open fingers and close them there."""
        slack = np.array(self.slack)
        if memory.reopening or hand.opening < EMPTY:
            memory.reopening = hand.opening < WIDE_OPEN
        is_at_grasp = bool(np.all(np.abs(error) < slack))
        is_closing = hand.opening < WIDE_OPEN and bool(np.all(np.abs(error) < 2 * slack))
        if not memory.reopening and (is_at_grasp or is_closing):
            return toward(error, CLOSE)
        memory.reopening |= hand.opening < WIDE_OPEN
        side = sum(n.side(sim, grasp) for n in self.neighbors)
        if side == 0.0:
            return hover_down(
                hand.position, grasp, self.transit_z, OPEN,
                askew=askew, aside=self.style.approach,
            )  # fmt: skip
        is_beside = -0.02 < -error[0] * np.sign(side) < abs(side) + 0.02
        if is_beside and abs(error[1]) < 0.02 and -error[2] < LOW:
            return toward(error * max(1.0, PUSH_M / float(np.linalg.norm(error))), OPEN)
        beside = grasp + np.array([side, 0.0, 0.0])
        return hover_down(hand.position, beside, self.transit_z, OPEN)


# On the way to a later object the hand travels higher, so that its height alone tells which object is
# next: a policy that must read it off small images otherwise turns back to the first one.
LATER_RISE = 0.10


def rising(*steps: Carry) -> tuple[Carry, ...]:
    """The steps, each traveled to higher than the one before."""
    return tuple(replace(s, transit_z=s.transit_z + LATER_RISE * i) for i, s in enumerate(steps))
