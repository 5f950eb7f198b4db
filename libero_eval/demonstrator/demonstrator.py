"""A scripted policy with privileged state that acts through the same interface as any policy.

It chooses what to do from the physical state alone (where the objects and the hand are, how hard
the fingers press), so that the same state always meets the same action and a small network can
imitate it. The one memory is a missed grasp: the fingers open fully before the next try.
"""

import numpy as np

from invact_vla.errors import UserError
from invact_vla.schema import ActionChunk, Observation
from libero_eval.demonstrator.hand import Hand, position_of, read_hand
from libero_eval.demonstrator.recipes import Carry, recipe
from libero_eval.demonstrator.skills import CLOSE, OPEN, hover_down, lift_over, smoothstep, toward
from libero_eval.sim import LiberoSim

WIDE_OPEN = 0.07  # opening from which a grasp may be tried
EMPTY = 0.003  # opening of fingers that closed on nothing
NEAR = 0.035  # an object this near to its place in the hand counts as in the hand
CLEARANCE = 0.03  # height of a carried object above what it passes
HAND_AND_CARTON = (0.068, 0.131)  # half widths of the hand and of a carton in x, y, and some air
OFF_CENTRE = 0.0165  # fingers 7.6 cm apart still go around a box of 4.2 cm
LOW = 0.03  # height above the grasp from which the hand slides in beside a neighbour
LOWERED = 0.01  # a set-down object this near to its place is released


class Demonstrator:
    """Policy for the tasks in `recipes.RECIPES`. Reads the simulator, ignores the observation."""

    needs: tuple[str, ...] = ()
    chunk = 1

    def __init__(self, sim: LiberoSim) -> None:
        self.sim = sim
        self.steps = recipe(sim.suite, sim.task_id)
        self._reopening = False

    def reset(self, seed: int) -> None:
        """Start an episode. The demonstrator has no randomness: the seed is unused."""
        del seed
        self._reopening = False

    def act(self, observation: Observation | None = None) -> ActionChunk:
        """One action for the simulator's present state."""
        del observation
        action = np.clip(self._action(), -1.0, 1.0)
        return ActionChunk(action[None].astype(np.float32))

    def _action(self) -> np.ndarray:
        hand = read_hand(self.sim)
        for index, step in enumerate(self.steps):
            if not self._is_done(step):
                leaving = self._leave(self.steps[:index], hand)
                return self._carry(step, hand) if leaving is None else leaving
        leaving = self._leave(self.steps, hand)
        return toward(np.array([0.0, 0.0, 0.003]), OPEN) if leaving is None else leaving

    def _is_done(self, step: Carry) -> bool:
        """Whether the step's own goal predicate holds."""
        for text, holds in self.sim.predicates():
            if text.split()[1] == step.item:
                return holds
        raise UserError(f"{self.sim.task}: no goal about {step.item}")

    def _leave(self, done: tuple[Carry, ...], hand: Hand) -> np.ndarray | None:
        """Open the fingers and rise straight up out of an object that was set down."""
        for step in done:
            if step.drop:
                continue
            grasp = position_of(self.sim, step.item) + step.grasp_offset
            offset = hand.position - grasp
            if np.linalg.norm(offset[:2]) < NEAR and offset[2] < 0.04:
                rise = 0.003 + 0.06 * smoothstep(hand.opening, 0.025, 0.045)
                return toward(np.array([0.0, 0.0, rise]), OPEN)
        return None

    def _carry(self, step: Carry, hand: Hand) -> np.ndarray:
        """Fetch the step's object, or bring it when it is in the hand."""
        item = position_of(self.sim, step.item)
        goal = position_of(self.sim, step.target) + step.place_offset
        grasp = item + step.grasp_offset
        grasp[1] += self._dodge(step, grasp)
        error = grasp - hand.position
        is_near = float(np.linalg.norm(error)) < NEAR
        is_there = float(np.linalg.norm((goal - item)[:2])) < step.tolerance
        if is_near and is_there and (step.drop or item[2] - goal[2] < LOWERED):
            return self._release(goal - item)
        if is_near and hand.is_firm:
            return self._bring(step, item, goal, hand)
        return self._fetch(step, grasp, error, hand)

    def _release(self, error: np.ndarray) -> np.ndarray:
        """Open over the target, still drifting towards it."""
        error = np.array([error[0], error[1], 0.0])
        return toward(error, OPEN)

    def _bring(self, step: Carry, item: np.ndarray, goal: np.ndarray, hand: Hand) -> np.ndarray:
        """Lift the held object, carry it over the target, lower it if it is to be set down."""
        in_hand = hand.position - item
        if step.drop:
            return lift_over(hand.position, goal + in_hand, CLOSE)
        return hover_down(
            hand.position, goal + in_hand, (goal + in_hand)[2] + CLEARANCE + 0.03, CLOSE,
            inner=0.01, outer=0.04,
        )  # fmt: skip

    def _fetch(self, step: Carry, grasp: np.ndarray, error: np.ndarray, hand: Hand) -> np.ndarray:
        """Go to the grasp with open fingers and close them there."""
        slack = np.array(step.slack)
        if self._reopening or hand.opening < EMPTY:
            self._reopening = hand.opening < WIDE_OPEN
        is_at_grasp = bool(np.all(np.abs(error) < slack))
        is_closing = hand.opening < WIDE_OPEN and bool(np.all(np.abs(error) < 2 * slack))
        if not self._reopening and (is_at_grasp or is_closing):
            return toward(error, CLOSE)
        side = self._side(step, grasp)
        if side == 0.0:
            return hover_down(hand.position, grasp, step.transit_z, OPEN)
        is_beside = -0.02 < -error[0] * np.sign(side) < abs(side) + 0.02
        if is_beside and abs(error[1]) < 0.02 and -error[2] < LOW:
            return toward(error, OPEN)
        beside = grasp + np.array([side, 0.0, 0.0])
        return hover_down(hand.position, beside, step.transit_z, OPEN)

    def _side(self, step: Carry, grasp: np.ndarray) -> float:
        """How far beside the grasp, along x, the hand must come down; 0 if nothing is in its way.

        A tall neighbour would stop the hand. It comes down next to it, then slides in at the
        object's height and gently pushes the neighbour away.
        """
        if step.neighbour is None:
            return 0.0
        offset = position_of(self.sim, step.neighbour) - grasp
        if abs(offset[0]) > HAND_AND_CARTON[0] or abs(offset[1]) > HAND_AND_CARTON[1]:
            return 0.0
        return float(offset[0] + HAND_AND_CARTON[0] * (1 if offset[0] <= 0 else -1))

    def _dodge(self, step: Carry, grasp: np.ndarray) -> float:
        """How far along y to grasp off centre, away from a neighbour that is almost clear."""
        if step.neighbour is None:
            return 0.0
        offset = position_of(self.sim, step.neighbour) - grasp
        overlap = HAND_AND_CARTON[1] - abs(offset[1])
        if abs(offset[0]) > HAND_AND_CARTON[0] or not 0.0 < overlap < OFF_CENTRE:
            return 0.0
        return -float(np.sign(offset[1])) * overlap
