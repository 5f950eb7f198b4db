"""A simulator of a dozen lines: a point on a line must reach +1. Same interface as LiberoSim."""

import hashlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.schema import ActionChunk, Observation
from libero_eval.env.protocol import Protocol
from libero_eval.env.sim import Progress
from libero_eval.policies import PolicyConfig
from libero_eval.policy_source import EachEpisode, PolicySource
from libero_eval.rollout.episode import RunLabels
from libero_eval.rollout.episode_video import VideoConfig
from libero_eval.rollout.runner import EpisodeRunnerFactory

PROTOCOL = Protocol(
    suite="libero_10", name="point", max_steps=12, settle_steps=0, settle_action=(0.0,) * 7,
    trials=4, render_px=32, rotate=True, jpeg=False, resize_px=32, center_crop=1.0,
    cameras=("agentview",), reset_seed=0, source="tests",
)  # fmt: skip
LABELS = RunLabels(
    policy_name="point", seed=3, checkpoint_hash="c", protocol=PROTOCOL, pack="none", pack_hash="p",
    manifest_hash="m",
)  # fmt: skip


class PointSim:
    """Starts at init_index / 100; step adds 0.1 times the first action; succeeds at 1."""

    def __init__(self, task_id: int) -> None:
        self.task_id, self.task, self.instruction = task_id, f"task_{task_id}", "reach <the> end"
        self.rendered = 0
        self._x, self._closest = 0.0, 1.0

    def reset(self, init_index: int) -> None:
        self._x, self._closest = init_index / 100, 1.0

    def step(self, action: np.ndarray) -> bool:
        self._x += 0.1 * float(action[0])
        self._closest = min(self._closest, abs(1 - self._x))
        return self._x >= 1

    def observation(self, cameras: Sequence[str]) -> Observation:
        frame = self.image("agentview", 32) if cameras else np.zeros((32, 32, 3), np.uint8)
        state = np.zeros(8, np.float32)
        state[0] = self._x
        return Observation(frame, None, state, self.instruction)

    def image(self, camera: str, size: int) -> np.ndarray:
        self.rendered += 1
        frame = np.full((size, size, 3), 200, np.uint8)
        x = int(np.clip(self._x, 0, 1) * (size - 4))
        frame[size // 2 - 2 : size // 2 + 2, x : x + 4] = (200, 40, 30)
        return frame

    def progress(self) -> Progress:
        done = int(self._x >= 1)
        return Progress(done, 1, done, self._closest)

    def state_hash(self) -> str:
        return hashlib.sha256(np.float64(self._x).tobytes()).hexdigest()[:16]

    def close(self) -> None:
        pass


def open_point_sim(task_id: int) -> Any:
    return PointSim(task_id)


class Walker:
    """Walks with a random pace that its seed decides; may fail in the ways that policies do."""

    needs: tuple[str, ...] = ("agentview",)

    def __init__(self, fault: str, chunk: int = 4, pause_s: float = 0.0) -> None:
        self.chunk, self.calls, self._pause_s = chunk, 0, pause_s
        self._fault, self._pace = fault, 1.0

    def reset(self, seed: int) -> None:
        self._pace = float(np.random.default_rng(seed).uniform(0.87, 1.0))

    def act(self, observation: Observation) -> ActionChunk:
        self.calls += 1
        time.sleep(self._pause_s)
        x = float(observation.state[0])
        if self._fault == "raise" and 0.015 < x < 0.025:
            raise RuntimeError("lost <the> way")
        if self._fault == "nan":
            return ActionChunk(np.full((self.chunk, 7), np.nan, np.float32))
        if self._fault == "die" and 0.015 < x < 0.025:
            os.kill(os.getpid(), signal.SIGKILL)
        return ActionChunk(np.full((self.chunk, 7), self._pace, np.float32))


@PolicyConfig.register_subclass("walker")
@dataclass(frozen=True, kw_only=True)
class WalkerConfig(PolicyConfig):
    """A policy for tests."""

    fault: str = ""  # raise, nan, die, start, or none
    marker: Path | None = None  # file whose presence ends the fault
    pause_s: float = 0.0  # of each call

    def load(self) -> PolicySource:
        if self.fault == "start":
            os._exit(7)
        fault = self.fault
        if self.marker is not None:
            fault = "" if self.marker.exists() else fault
            if self.fault == "die":
                self.marker.touch()
        return EachEpisode(lambda: Walker(fault, pause_s=self.pause_s))


def make_runner(
    folder: Path,
    policy: PolicyConfig | None = None,
    videos: VideoConfig | None = None,
    in_flight: int = 1,
) -> EpisodeRunnerFactory:
    videos = videos or VideoConfig(per_task=0)
    policy = policy or WalkerConfig()
    return EpisodeRunnerFactory(policy, open_point_sim, LABELS, videos, folder, in_flight)
