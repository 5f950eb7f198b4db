"""Recorded demonstrations as a policy: does the harness count what is known to succeed?"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.run_folder import artifact_hash
from invact_vla.core.schema import ActionChunk, Observation
from invact_vla.data.hdf5_file import read_array
from invact_vla.data.readers.libero_hdf5 import natural_order, opened
from libero_eval.policies.config import PolicyConfig
from libero_eval.policies.controls import NOOP_ACTION
from libero_eval.policy_source import PolicySource, Privileged

logger = logging.getLogger(__name__)
TOLERANCE = 1e-5  # m and rad: two init states of a task lie much further apart


@PolicyConfig.register_subclass("replay")
@dataclass(frozen=True, kw_only=True)
class ReplayConfig(PolicyConfig):
    """The actions of demonstrations that began in the episode's init state."""

    folder: Path  # holds <task name>_demo.hdf5 in LIBERO's layout, one file per task
    chunk: int = 8  # actions per call

    def __post_init__(self) -> None:
        if self.chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {self.chunk}")

    def load(self) -> PolicySource:
        if not self.folder.is_dir():
            raise UserError(
                f"no folder of demonstrations {self.folder}: make some with `invact libero demos`"
            )
        files: dict[tuple[str, int], dict[int, str]] = {}  # read once per task

        def make(sim: Any) -> "ReplayPolicy":
            path = self.folder / f"{sim.task}_demo.hdf5"
            task = (sim.suite, sim.task_id)
            if task not in files:
                files[task] = demos_by_init(path, sim.suite, sim.task_id)
            return ReplayPolicy(sim, path, files[task], self.chunk)

        return Privileged(make)

    def parents(self) -> dict[str, Path]:
        return {"demos": self.folder}

    def hash(self) -> str:
        """That of the demonstrations: how they are cut into chunks changes no outcome."""
        return artifact_hash(self.folder)


class ReplayPolicy:
    """The actions of one demonstration, then holding still with the gripper as it was."""

    needs: tuple[str, ...] = ()

    def __init__(self, sim: Any, path: Path, demos: dict[int, str], chunk: int) -> None:
        """demos: {init state: name of the demonstration in the file}."""
        self.chunk = chunk
        self._sim, self._path, self._demos = sim, path, demos
        self._actions, self._next = np.zeros((0, 7), np.float32), 0

    def reset(self, seed: int) -> None:
        """Find the demonstration of the simulator's init state; UserError if there is none."""
        index = self._sim.init_index
        if index not in self._demos:
            raise UserError(
                f"{self._path} has no demonstration from init state {index} of {self._sim.task}: "
                f"it has those of {sorted(self._demos) or 'none'}; `invact libero demos --init "
                "init_states` records from them"
            )
        self._actions, self._next = read_actions(self._path, self._demos[index]), 0

    def act(self, observation: Observation) -> ActionChunk:
        values = self._actions[self._next : self._next + self.chunk]
        self._next += self.chunk
        still = np.array(NOOP_ACTION, np.float32)
        still[6] = self._actions[-1, 6]
        return ActionChunk(np.concatenate([values, np.tile(still, (self.chunk - len(values), 1))]))


def demos_by_init(path: Path, suite: str, task_id: int) -> dict[int, str]:
    """{init state: the first demonstration that begins there} of a file in LIBERO's layout.

    By the attribute `init_index`, as `invact libero demos` writes it; else by comparing joints and
    poses of the attribute `init_state` (or the first of `states`) with the suite's init states.
    """
    from libero_eval.env.init_states import init_states

    found: dict[int, str] = {}
    with opened(path) as data:
        for name in sorted(data, key=natural_order):
            attributes = data[name].attrs
            index = attributes.get("init_index")
            if index is None and "layout_seed" not in attributes:
                start = attributes.get("init_state")
                if start is None:
                    start = read_array(data[name]["states"], slice(0, 1))[0]
                index = _nearest(np.asarray(start, np.float64), init_states(suite, task_id))
            if index is not None:
                found.setdefault(int(index), name)
    logger.info("%s: demonstrations of %d init states", path.name, len(found))
    return found


def read_actions(path: Path, name: str) -> np.ndarray:
    """`actions` of one demonstration, float32 (T, 7) in LIBERO's env convention."""
    with opened(path) as data:
        if "actions" not in data[name]:
            raise UserError(f"{path}: {name} has no actions")
        values = read_array(data[name]["actions"]).astype(np.float32)
    if values.ndim != 2 or values.shape[1] != 7 or not len(values):
        raise UserError(f"{path}: {name}: expected actions (T, 7), got {values.shape}")
    return values


def _nearest(start: np.ndarray, states: np.ndarray | None) -> int | None:
    """Which init state equals `start` in all but the time, if any."""
    if states is None or start.shape != states.shape[1:]:
        return None
    distances = np.abs(states[:, 1:] - start[1:]).max(1)
    return int(distances.argmin()) if distances.min() <= TOLERANCE else None
