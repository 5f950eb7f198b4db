"""What an expert can do, one class a kind of step: carry, insert, close, turn on.

A step is chosen and steered by the physical state alone, so that the same state always meets the same
action.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from invact_vla.core.errors import UserError
from libero_eval.env.sim import LiberoSim
from libero_eval.expert.hand import (
    CLOSE,
    OPEN,
    PLAIN,
    TURN_GAIN,
    Hand,
    Style,
    hover_down,
    lift_over,
    position_of,
    smoothstep,
    toward,
    turn_toward,
    wrap,
    yaw_of,
)

HAND = (0.042, 0.105)  # half widths in x and y of the hand, fingers closing along y, and some air
FINGERS = (0.014, 0.056)  # those of the open fingers near their tips
OFF_CENTER = 0.0165  # fingers 7.6 cm apart still go around a box of 4.2 cm
WIDE_OPEN = 0.07  # opening from which a grasp may be tried
EMPTY = 0.003  # opening of fingers that closed on nothing
NEAR = 0.035  # an object this near to its place in the hand counts as in the hand
LOW = 0.03  # height above the grasp from which the hand slides in beside a neighbor
SLIDE_M = 0.03  # a hand that slides in aims at least this far ahead, not to be held up
LOWERED = 0.01  # a set-down object this near to its place is released
ASKEW_M = 0.1  # a radian of turn still to make counts as this distance
# inserting
AT_GRASP = 0.03  # a hand this near to its grasp is around the object
OUT = 0.06  # a hand that was drawn back this far is free
SWING = (0.06, 0.16)  # distances from the place, along y: straight before it, fully aside
# closing
BEFORE = 0.03  # the hand comes down this far before the surface that it will push
ASIDE = 0.02  # a hand this far from its line or height, or behind the surface, comes again
AHEAD = 0.06  # how far ahead of itself the pushing hand aims
# turning a knob
LEVER = (0.0014, 0.036, 0.033)  # where the fingers reach around the grip, in the knob's frame, m
AROUND = (0.05, 0.025, 0.015)  # this far from there, in the knob's frame, the grip is between them
PUSH_M = 0.045  # how far ahead of itself the pushing hand aims

Point = tuple[float, float, float]
Styled = TypeVar("Styled", bound="Step")


@dataclass
class Memory:
    """All that an expert remembers between two actions."""

    reopening: bool = False  # the fingers open fully, after a missed grasp, before the next try


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """One thing to do."""

    transit_z: float = (
        0.64  # height of the empty hand on its way, above the basket's rim at 0.58, m
    )
    style: Style = PLAIN

    @abstractmethod
    def is_done(self, sim: LiberoSim) -> bool:
        """Whether its result holds now."""

    @abstractmethod
    def act(self, sim: LiberoSim, hand: Hand, memory: Memory) -> np.ndarray:
        """The next action towards it: float64 (7,), clipped to [-1, 1] by the caller."""

    def leave(self, sim: LiberoSim, hand: Hand) -> np.ndarray | None:
        """Once it is done: an action that frees the hand, or None when the hand is free."""
        del sim, hand
        return None

    def styled(self: Styled, style: Style) -> Styled:
        """The same step along the arcs of a style; the expert sees to its speed."""
        return replace(self, style=style, transit_z=self.transit_z + style.rise)


def holds(sim: LiberoSim, item: str) -> bool:
    """Whether the goal predicate about an object holds now."""
    for text, value in sim.predicates():
        if text.split()[1] == item:
            return value
    raise UserError(f"{sim.task}: no goal about {item}")


@dataclass(frozen=True)
class Neighbor:
    """A thing so near to an object that it would stop the hand above the grasp."""

    name: str  # its body
    half: tuple[float, float]  # its half widths in x and y, m
    gives_way: bool  # whether the hand may push it
    part: tuple[float, float] = (
        HAND  # half widths of what it would stop, m: only fingers if it is low
    )
    room: float = OFF_CENTER  # how far off center the object can still be grasped, m

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


@dataclass(frozen=True)
class Facing:
    """How an object is turned."""

    grip: float  # angle from its x axis to the line along which the fingers close, rad
    place: float  # angle of its x axis in the world's x-y plane at release, rad


@dataclass(frozen=True, kw_only=True)
class Carry(Step):
    """Take an object to a target: grasp, lift, bring, set down or drop."""

    item: str
    # from the object's origin to the grip site, m; in the object's axes if the hand must turn
    # (`facing`), else in the world's
    grasp: Point
    slack: Point  # how far the hand may be from there when it closes, m
    target: str  # the body to go to
    place: Point  # from the target's origin to the object's origin at release, m
    drop: bool = False  # let it fall from there, or set it down
    tolerance: float = 0.012  # how far from there, sideways, it may be released, m
    neighbors: tuple[Neighbor, ...] = ()  # what may be in the way of the hand
    clearance: float = 0.03  # height of an object to be set down above what it passes
    funnel: tuple[float, float] = (0.01, 0.04)  # sideways distances: lowered fully, not at all
    facing: Facing | None = None
    tilt: float = 0.0  # of a hand that must turn, as for `turn_toward`, rad

    def grasp_offset(self, sim: LiberoSim) -> np.ndarray:
        """From the object's origin to the grip site, world axes, (3,) m."""
        x, y, z = self.grasp
        if self.facing is None:
            return np.array([x, y, z])
        yaw = yaw_of(sim, self.item)
        c, s = np.cos(yaw), np.sin(yaw)
        return np.array([c * x - s * y, s * x + c * y, z])

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
        goal = position_of(sim, self.target) + np.array(self.place)
        grasp = item + self.grasp_offset(sim)
        grasp[1] += sum(n.dodge(sim, grasp) for n in self.neighbors)
        error = grasp - hand.position
        is_near = float(np.linalg.norm(error)) < NEAR
        is_there = float(np.linalg.norm((goal - item)[:2])) < self.tolerance
        if is_near and is_there and (self.drop or item[2] - goal[2] < LOWERED):
            # open over the target, still drifting towards it
            return toward(np.array([*(goal - item)[:2], 0.0]), OPEN)
        is_held = is_near and hand.is_firm
        turn = 0.0  # for the grasp or, with the object held, for its place, rad
        if self.facing is not None:
            yaw = yaw_of(sim, self.item)
            to_grip = wrap(yaw + self.facing.grip - hand.yaw, np.pi)
            turn = wrap(self.facing.place - yaw) if is_held else to_grip
        if is_held:
            action = self._bring(item, goal, hand, ASKEW_M * abs(turn))
        else:
            action = self._fetch(sim, grasp, error, hand, memory, ASKEW_M * abs(turn))
        if self.facing is not None:
            action[3:6] = turn_toward(hand.axes, hand.yaw + turn, self.tilt)
        return action

    def _bring(self, item: np.ndarray, goal: np.ndarray, hand: Hand, askew: float) -> np.ndarray:
        """Lift the held object, carry it over the target, lower it if it is to be set down."""
        place = goal + (hand.position - item)
        if self.drop:
            return lift_over(hand.position, place, CLOSE)
        return hover_down(
            hand.position, place, place[2] + self.clearance + 0.03, CLOSE,
            inner=self.funnel[0], outer=self.funnel[1], askew=askew,
        )  # fmt: skip

    def _fetch(
        self, sim: LiberoSim, grasp: np.ndarray, error: np.ndarray, hand: Hand, memory: Memory,
        askew: float,
    ) -> np.ndarray:  # fmt: skip
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
            aside = self.style.approach
            return hover_down(hand.position, grasp, self.transit_z, OPEN, askew=askew, aside=aside)
        is_beside = -0.02 < -error[0] * np.sign(side) < abs(side) + 0.02
        if is_beside and abs(error[1]) < 0.02 and -error[2] < LOW:
            return toward(error * max(1.0, SLIDE_M / float(np.linalg.norm(error))), OPEN)
        beside = grasp + np.array([side, 0.0, 0.0])
        return hover_down(hand.position, beside, self.transit_z, OPEN)


@dataclass(frozen=True, kw_only=True)
class Insert(Carry):
    """Take an object along y into its target, through an opening that faces -y.

    clearance: height above its place on the way in, m. The hand leaves the way it came.
    """

    gate: (
        float  # how far before its place, along y, the object waits until height and x are right, m
    )
    swing: float  # how far to the side, along x, it is carried past an open door, m

    def is_done(self, sim: LiberoSim) -> bool:
        """Whether it is in there and stands."""
        above = position_of(sim, self.item) - position_of(sim, self.target) - np.array(self.place)
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


@dataclass(frozen=True, kw_only=True)
class Close(Step):
    """Push a drawer or a door until it is shut."""

    goal: str  # what the goal says is to be closed
    body: str  # the part that moves
    at: Point  # where the grip site is when the hand touches the part, in the body's frame, m
    push: (
        Point  # which way it pushes there, a unit vector in the body's frame; it turns with a door
    )
    yaw: float  # how the hand is turned, as for `turn_toward`, rad
    tilt: float = 0.0

    def is_done(self, sim: LiberoSim) -> bool:
        return holds(sim, self.goal)

    def act(self, sim: LiberoSim, hand: Hand, memory: Memory) -> np.ndarray:
        """Come down before the part, then push it along its way."""
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


@dataclass(frozen=True, kw_only=True)
class Turn(Step):
    """Turn a stove's knob on: reach around its grip with open fingers and push it sideways.

    The fingers close along y, across the grip of a knob that is off. They stay open: the one behind
    the grip pushes it, and the hand follows the grip's end around its axis without turning. A slow
    push turns the knob too.
    """

    stove: str  # the fixture

    def is_done(self, sim: LiberoSim) -> bool:
        return holds(sim, self.stove)

    def act(self, sim: LiberoSim, hand: Hand, memory: Memory) -> np.ndarray:
        """Come down around the grip, then push its end along the circle it moves on."""
        knob = sim.data.body(f"{self.stove}_button")
        axes = knob.xmat.reshape(3, 3)
        lever = knob.xpos + axes @ np.array(LEVER)
        offset = axes.T @ (hand.position - lever)
        if np.any(np.abs(offset) > AROUND):
            aside = self.style.approach
            return hover_down(hand.position, lever, self.transit_z, OPEN, aside=aside)
        return toward(axes @ np.array([-PUSH_M, -offset[1], -offset[2]]), OPEN)
