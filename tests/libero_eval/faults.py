"""Planned faults for the point simulator: each happens once, in whichever process plays the episode.

A plan is a function of its seed. That a fault has happened is a file, made before it does, so that
a killed process leaves the mark and the next attempt meets the next fault of the episode.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.schema import ActionChunk, Observation
from libero_eval.env.init_states import read_init_states
from libero_eval.policies import PolicyConfig
from libero_eval.policy_source import PolicySource, Privileged
from tests.libero_eval.point_sim import PointSim

ALWAYS = 99  # faults of an episode that never ends well


@dataclass(frozen=True)
class Plan:
    """faults: {(task, init state): its faults in order}; init state -1: at opening the simulator.
    folder: where the marks are."""

    faults: dict[tuple[int, int], tuple[str, ...]]
    folder: Path

    def next(self, task_id: int, init_index: int) -> str:
        """The fault that happens in this attempt, "" for none; it counts as happened."""
        for number, fault in enumerate(self.faults.get((task_id, init_index), ())):
            try:
                (self.folder / f"{task_id}_{init_index}_{number}").touch(exist_ok=False)
            except FileExistsError:
                continue
            return fault
        return ""

    def happened(self) -> int:
        """How many faults have happened."""
        return len(list(self.folder.iterdir()))


class FaultySim(PointSim):
    """A point simulator whose episodes meet the faults of a plan."""

    def __init__(self, task_id: int, plan: Plan) -> None:
        super().__init__(task_id)
        self.fault, self._plan = "", plan
        if plan.next(task_id, -1):
            raise RuntimeError("eglInitialize failed")

    def reset(self, init_index: int) -> None:
        super().reset(init_index)
        self.fault = self._plan.next(self.task_id, init_index)
        if self.fault == "init file":
            path = self._plan.folder.parent / "malformed.pruned_init"
            path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
            read_init_states(path)

    def step(self, action: np.ndarray) -> bool:
        if self.fault == "hang":
            time.sleep(600)
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "exit":
            os._exit(3)
        return super().step(action)

    def image(self, camera: str, size: int) -> np.ndarray:
        if self.fault == "gl":
            raise RuntimeError("GL error 0x505 while reading pixels")
        return super().image(camera, size)


BAD_ACTIONS = {
    "nan": np.full((4, 7), np.nan, np.float32),
    "range": np.full((4, 7), 1.5, np.float32),
    "shape": np.zeros((4, 6), np.float32),
    "empty": np.zeros((0, 7), np.float32),
}


class FaultyWalker:
    """Walks at the pace that its seed decides, too slowly in some episodes, unless there is a fault."""

    needs: tuple[str, ...] = ("agentview",)
    chunk = 4

    def __init__(self, sim: FaultySim) -> None:
        self._sim, self._pace, self._calls = sim, 0.0, 0

    def reset(self, seed: int) -> None:
        self._pace = float(np.random.default_rng(seed).uniform(0.7, 1.0))

    def act(self, observation: Observation) -> ActionChunk:
        fault = self._sim.fault
        self._calls += 1
        if self._calls == 2 and fault == "raise":
            raise KeyError("<action>")
        if self._calls == 2 and fault in BAD_ACTIONS:
            return ActionChunk(BAD_ACTIONS[fault])
        if fault == "no chunk":
            return [0.0] * 7  # type: ignore[return-value]
        brightness = float(observation.agentview.mean()) / 255  # reads the picture
        pace = np.float32(self._pace + 0.01 * brightness)
        return ActionChunk(np.full((4, 7), min(pace, np.float32(1)), np.float32))


@PolicyConfig.register_subclass("faulty")
@dataclass(frozen=True, kw_only=True)
class FaultyConfig(PolicyConfig):
    """Acts as `FaultyWalker`."""

    def load(self) -> PolicySource:
        return Privileged(FaultyWalker)


@dataclass(frozen=True)
class OpenFaulty:
    """Opens simulators that meet a plan."""

    plan: Plan

    def __call__(self, task_id: int) -> Any:
        return FaultySim(task_id, self.plan)
