"""A scripted policy with privileged state that acts through the same interface as any policy.

It chooses what to do from the physical state alone (where the objects and the hand are, how hard
the fingers press), so that the same state always meets the same action and a small network can
imitate it. What little it remembers is in `steps.Memory`; pace and arcs are its `Style`.
"""

import numpy as np

from invact_vla.core.schema import ActionChunk, Observation
from libero_eval.env.sim import LiberoSim
from libero_eval.expert.hand import OPEN, PLAIN, Style, read_hand, toward
from libero_eval.expert.recipes import recipe
from libero_eval.expert.steps import Memory


class Expert:
    """Policy for the tasks in `recipes.RECIPES`. Reads the simulator, ignores the observation."""

    needs: tuple[str, ...] = ()
    chunk = 1

    def __init__(self, sim: LiberoSim, style: Style = PLAIN) -> None:
        self.sim = sim
        self.style = style
        self.steps = tuple(step.styled(style) for step in recipe(sim.suite, sim.task_id))
        self._memory = Memory()

    def reset(self, seed: int) -> None:
        """Start an episode. The expert has no randomness: the seed is unused."""
        del seed
        self._memory = Memory()

    def act(self, observation: Observation | None = None) -> ActionChunk:
        """One action for the simulator's present state."""
        del observation
        action = np.clip(self.style.paced(self._action()), -1.0, 1.0)
        return ActionChunk(action[None].astype(np.float32))

    def _action(self) -> np.ndarray:
        """That of the first step that is not done, once the hand has left the ones before it."""
        hand = read_hand(self.sim)
        for step in self.steps:
            if not step.is_done(self.sim):
                return step.act(self.sim, hand, self._memory)
            leaving = step.leave(self.sim, hand)
            if leaving is not None:
                return leaving
        return toward(np.array([0.0, 0.0, 0.003]), OPEN)
