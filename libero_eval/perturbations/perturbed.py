"""LiberoSim with perturbations: same interface, same order-free episodes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from libero_eval.env import tasks
from libero_eval.env.sim import LiberoSim
from libero_eval.perturbations.changes import (
    LOOK_FIELDS,
    add_distractors,
    change_light,
    change_textures,
    move_camera,
    move_robot,
    place_distractors,
)
from libero_eval.perturbations.config import WORDINGS, PerturbationsConfig

Apply = Callable[[Any, np.random.Generator, Any], None]
# field of PerturbationsConfig -> what it does to the simulator, in this order, before the scene settles
AXES: dict[str, Apply] = {
    "robot_pose": move_robot,
    "distractors": place_distractors,
    "camera": move_camera,
    "light": change_light,
    "textures": change_textures,
}


class PerturbedSim(LiberoSim):
    """One task with perturbed episodes. Episode i is a function of the config, the task and i."""

    def __init__(
        self, suite: str, task_id: int, assets: Path, axes: PerturbationsConfig, **options: Any
    ) -> None:
        """options: those of LiberoSim."""
        edit = add_distractors if axes.distractors else None
        super().__init__(suite, task_id, assets, edit_model=edit, **options)
        self._axes = axes
        self._untouched: dict[str, np.ndarray] = {}

    def reset(self, init_index: int, settle: bool = True) -> None:
        """Start the perturbed episode of an init state (of its number, where layouts are random)."""
        for name in LOOK_FIELDS:  # undo what the last episode changed in the model
            values = getattr(self.model, name)
            values[:] = self._untouched.setdefault(name, values.copy())
        if self._axes.layout == "random":
            self.check_index(init_index)
            self.reset_random(int(self._rng("layout", init_index).integers(2**31)), settle=False)
        else:
            super().reset(init_index, settle=False)
        for name, apply in AXES.items():
            if strength := getattr(self._axes, name):
                apply(self, self._rng(name, init_index), strength)
        say = WORDINGS[self._axes.wording]
        text = tasks.task_instruction(self.suite, self.task_id)
        self.instruction = say(self.suite, text, self._rng("wording", init_index))
        if settle:
            self.settle()

    def _rng(self, axis: str, init_index: int) -> np.random.Generator:
        """A stream of its own for each axis, so that one does not change another."""
        return np.random.default_rng([self._axes.seed, self.task_id, init_index, *axis.encode()])
