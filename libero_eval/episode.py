"""One episode: reset, act, step, until success or the last step; and what is recorded of it."""

import time
import traceback
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol as Interface

import numpy as np

from invact_vla.errors import UserError
from invact_vla.schema import Observation, Policy
from libero_eval.film import Film
from libero_eval.protocol import Protocol
from libero_eval.results import EpisodeRow, Outcome


class ProgressLike(Interface):
    """How near an episode came: goal predicates true now, most at once, all; metres."""

    @property
    def satisfied(self) -> int: ...

    @property
    def best(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def closest_m(self) -> float: ...


class Simulator(Interface):
    """What an episode needs of `libero_eval.sim.LiberoSim`."""

    task_id: int
    task: str
    instruction: str

    def reset(self, init_index: int) -> None: ...

    def step(self, action: np.ndarray) -> bool: ...

    def observation(self, cameras: Sequence[str]) -> Observation: ...

    def image(self, camera: str, size: int) -> np.ndarray: ...

    def progress(self) -> ProgressLike: ...

    def state_hash(self) -> str: ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class RunLabels:
    """What all rows of a run have in common."""

    arm: str
    seed: int
    checkpoint_hash: str
    protocol: Protocol
    pack: str
    pack_hash: str
    manifest_hash: str

    def error_row(self, task_id: int, task: str, init_index: int, reason: str) -> EpisodeRow:
        """The row of an episode that ended as an error."""
        return self.row(task_id, task, init_index, outcome="error", reason=reason)

    def row(
        self,
        task_id: int,
        task: str,
        init_index: int,
        *,
        outcome: Outcome,
        reason: str,
        steps: int = 0,
        progress: ProgressLike | None = None,
        state_hash: str = "",
        video: str | None = None,
        wall_s: float = 0.0,
    ) -> EpisodeRow:
        """A row of this run."""
        return EpisodeRow(
            arm=self.arm,
            suite=self.protocol.suite,
            task_id=task_id,
            task=task,
            init_index=init_index,
            seed=self.seed,
            outcome=outcome,
            reason=reason,
            steps=steps,
            goals_met=progress.satisfied if progress else 0,
            goals_total=progress.total if progress else 0,
            goals_best=progress.best if progress else 0,
            closest_m=_metres(progress),
            checkpoint_hash=self.checkpoint_hash,
            protocol=self.protocol.key,
            protocol_hash=self.protocol.hash,
            pack=self.pack,
            pack_hash=self.pack_hash,
            manifest_hash=self.manifest_hash,
            state_hash=state_hash,
            video=video,
            wall_s=round(wall_s, 3),
        )


def episode_seed(seed: int, task_id: int, init_index: int) -> int:
    """The policy's seed for one episode, the same in every arm and order."""
    return int(np.random.default_rng([seed, task_id, init_index]).integers(2**31))


def run_episode(
    sim: Simulator,
    policy: Policy,
    init_index: int,
    labels: RunLabels,
    *,
    film: Film | None = None,
    video_root: Path | None = None,
) -> EpisodeRow:
    """Run one episode of at most `labels.protocol.max_steps` policy steps and return its row.

    Chunks are executed open loop. Frames are rendered when the policy reads them or the film keeps
    them. The row names the video relative to video_root. Whatever goes wrong inside becomes the
    outcome "error", with the traceback as reason; nothing else in the package catches everything.
    """
    started = time.perf_counter()
    try:
        row = _play(sim, policy, init_index, labels, film)
        if film is not None:
            film.save(row.outcome)
    except Exception as error:  # noqa: BLE001
        reason = str(error) if isinstance(error, UserError) else traceback.format_exc()
        return labels.error_row(sim.task_id, sim.task, init_index, reason or repr(error))
    video = None
    if film is not None:
        video = str(film.path.relative_to(video_root) if video_root else film.path)
    return replace(row, video=video, wall_s=round(time.perf_counter() - started, 3))


def _play(
    sim: Simulator, policy: Policy, init_index: int, labels: RunLabels, film: Film | None
) -> EpisodeRow:
    limit = labels.protocol.max_steps
    sim.reset(init_index)
    policy.reset(episode_seed(labels.seed, sim.task_id, init_index))
    queue: deque[np.ndarray] = deque()
    outcome: Outcome
    outcome, reason, steps = "failure", f"goal not reached in {limit} steps", limit
    for step in range(limit):
        seen = None
        if not queue:
            observation = sim.observation(policy.needs)
            queue.extend(policy.act(observation).values)
            seen = observation.agentview if "agentview" in policy.needs else None
        if film is not None and film.wants(step):
            film.add(step, sim.image("agentview", film.size_px) if seen is None else seen)
        if sim.step(queue.popleft()):
            outcome, reason, steps = "success", "goal reached", step + 1
            break
    if film is not None:
        film.add(steps, sim.image("agentview", film.size_px))
    return labels.row(
        sim.task_id,
        sim.task,
        init_index,
        outcome=outcome,
        reason=reason,
        steps=steps,
        progress=sim.progress(),
        state_hash=sim.state_hash(),
    )


def _metres(progress: ProgressLike | None) -> float | None:
    if progress is None or not np.isfinite(progress.closest_m):
        return None
    return round(float(progress.closest_m), 6)
