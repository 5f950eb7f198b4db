"""The interface of a step: fetch this, turn that, close the other."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from invact_vla.core.errors import UserError
from libero_eval.env.sim import LiberoSim
from libero_eval.expert.hand import Hand
from libero_eval.expert.style import Style


@dataclass
class Memory:
    """All that an expert remembers between two actions.

    reopening: the fingers open fully, after a missed grasp, before the next try.
    """

    reopening: bool = False


class Step(ABC):
    """One thing to do, chosen and steered by the physical state alone, so that the same state
    always meets the same action."""

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

    def styled(self, style: Style) -> "Step":
        """The same step along the arcs of a style; the expert sees to its speed."""
        del style
        return self


def holds(sim: LiberoSim, item: str) -> bool:
    """Whether the goal predicate about an object holds now."""
    for text, value in sim.predicates():
        if text.split()[1] == item:
            return value
    raise UserError(f"{sim.task}: no goal about {item}")
