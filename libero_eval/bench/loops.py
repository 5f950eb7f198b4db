"""The loops that `bench` times, one a process: `python -m libero_eval.bench.loops '{"loop": ...}'`.

Protocol: after the set-up, and before every phase, a process prints `bench ready` and waits for a
line, so that several start together; after a phase it prints `bench ` and a JSON of what it took.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from libero_eval.env import gl
from libero_eval.env.protocol import SETTLE_ACTION, get_protocol

MARK = "bench "
FRAMES_TIMED = 5  # of robosuite's renderer, alone
SETTLE_STEPS = 10
OUTPUT = sys.stdout


@dataclass(frozen=True, kw_only=True)
class BenchJob:
    """What a process measures."""

    loop: str  # public or ours
    protocol: str
    task: int
    assets: str
    first: int  # its first init state
    episodes: int
    steps: int
    chunks: list[int]  # a phase each; steps between two frames, 0 for no frames (ours only)


@dataclass
class Phase:
    """Times of one phase, in seconds, an entry an episode (of frames: a frame)."""

    resets: list[float] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)  # reset and settle
    frames: list[float] = field(default_factory=list)
    stepping: list[float] = field(default_factory=list)  # all steps
    cpu: list[float] = field(default_factory=list)  # processor time of these, all threads together
    steps: int = 0


def actions(count: int) -> np.ndarray:
    """The policy that costs nothing: the same small random motions in every loop, (count, 7)."""
    moves = np.random.default_rng(0).normal(size=(count, 7)) * 0.3
    moves[:, 6] = -1
    return np.clip(moves, -1, 1)


def timed(times: list[float], call: Callable[[], Any]) -> Any:
    """Call, and append the seconds it took."""
    began = time.perf_counter()
    result = call()
    times.append(time.perf_counter() - began)
    return result


class PublicLoop:
    """OpenVLA's evaluation of LIBERO, run_libero_eval.py: OffScreenRenderEnv as hf-libero has it."""

    def __init__(self, job: BenchJob) -> None:
        from libero_eval.env import libero_home
        from libero_eval.env.init_states import init_states
        from libero_eval.env.tasks import bddl_file, task_name

        protocol = get_protocol(job.protocol)
        libero_home.prepare(Path(job.assets))
        from libero.libero.envs import OffScreenRenderEnv

        bddl = bddl_file(protocol.suite, task_name(protocol.suite, job.task))
        self._size = size = protocol.render_px
        self._env = OffScreenRenderEnv(
            bddl_file_name=str(bddl), camera_heights=size, camera_widths=size
        )
        self._env.seed(protocol.reset_seed)
        states = init_states(protocol.suite, job.task)
        if states is None:
            raise UserError(f"{protocol.key} has no init states: the public loop needs them")
        self._states = states

    def reset(self, episode: int) -> None:
        """Rebuild the model, then set the init state."""
        self._env.reset()
        self._env.set_init_state(self._states[episode])

    def step(self, action: np.ndarray) -> Any:
        """What both cameras see, at every step."""
        return self._env.step(action.tolist())[0]

    def play(self, steps: int, chunk: int, frames: list[float]) -> None:
        """Whatever the chunk."""
        for action in actions(steps):
            np.ascontiguousarray(self.step(action)["agentview_image"][::-1, ::-1])

    def finish(self, frames: list[float]) -> None:
        """Time frames of robosuite's renderer alone."""
        size, sim = self._size, self._env.env.sim
        for _ in range(FRAMES_TIMED):
            timed(frames, lambda: sim.render(width=size, height=size, camera_name="agentview"))


class OwnLoop:
    """LiberoSim as the rollout uses it."""

    def __init__(self, job: BenchJob) -> None:
        from libero_eval.env.sim import LiberoSim

        protocol = get_protocol(job.protocol)
        self._sim = LiberoSim(
            protocol.suite, job.task, Path(job.assets), image_size=protocol.render_px,
            reset_seed=protocol.reset_seed,
        )  # fmt: skip
        self._sim.reset(job.first, settle=False)
        self._sim.observation()

    def reset(self, episode: int) -> None:
        """Restore the model, then set the init state."""
        self._sim.reset(episode, settle=False)

    def step(self, action: np.ndarray) -> Any:
        """Nothing is rendered."""
        return self._sim.step(action)

    def play(self, steps: int, chunk: int, frames: list[float]) -> None:
        """agentview every `chunk` steps."""
        for index, action in enumerate(actions(steps)):
            if chunk and index % chunk == 0:
                timed(frames, self._sim.observation)
            self.step(action)

    def finish(self, frames: list[float]) -> None:
        """Every frame has been timed."""


def run(loop: PublicLoop | OwnLoop, job: BenchJob, chunk: int) -> Phase:
    """All episodes of a phase."""
    phase = Phase()
    for episode in range(job.first, job.first + job.episodes):
        began = time.perf_counter()
        timed(phase.resets, partial(loop.reset, episode))
        for _ in range(SETTLE_STEPS):
            loop.step(np.array(SETTLE_ACTION))
        phase.starts.append(time.perf_counter() - began)
        busy = time.process_time()
        timed(phase.stepping, partial(loop.play, job.steps, chunk, phase.frames))
        phase.cpu.append(time.process_time() - busy)
        phase.steps += job.steps
    loop.finish(phase.frames)
    return phase


def main(words: list[str]) -> None:
    """Set up, then a phase whenever a line comes in."""
    job = BenchJob(**json.loads(words[0]))
    gl.probe()
    loop = PublicLoop(job) if job.loop == "public" else OwnLoop(job)
    for chunk in job.chunks:
        print(f"{MARK}ready", file=OUTPUT, flush=True)
        sys.stdin.readline()
        print(MARK + json.dumps(asdict(run(loop, job, chunk))), file=OUTPUT, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
