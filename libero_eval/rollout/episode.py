"""One episode: reset, act, step, until success or the last step; and what is recorded of it.

An episode is a generator: it yields what its policy is to be asked, and is sent the answer. So one
process can hold several, and ask their policy for all of them in one batched call.
"""

import time
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol as Interface

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation, Policy
from libero_eval.env.protocol import Protocol
from libero_eval.env.tasks import task_name
from libero_eval.policy_source import EachEpisode, Request
from libero_eval.results.rows import EpisodeRow, Outcome
from libero_eval.rollout.episode_video import EpisodeVideo

LONGEST_LINE = 300  # characters of the first line of an error's reason

Answer = ActionChunk | Exception  # of a policy; an exception ends the episode as an error
EpisodeCoroutine = Generator[
    Request, Answer | None, EpisodeRow
]  # a running episode; first sent None


@dataclass(frozen=True)
class Job:
    """One episode to run. film: keep a video of it."""

    task_id: int
    init_index: int
    film: bool = False


class ProgressLike(Interface):
    """How near an episode came: goal predicates true now, most at once, all; meters."""

    @property
    def satisfied(self) -> int: ...

    @property
    def best(self) -> int: ...

    @property
    def total(self) -> int: ...

    @property
    def closest_m(self) -> float: ...


class Simulator(Interface):
    """What an episode needs of `libero_eval.env.sim.LiberoSim`."""

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


@dataclass(frozen=True)
class Stage:
    """What one episode is played with."""

    sim: Simulator
    policy: Policy
    film: EpisodeVideo | None = None


@dataclass(frozen=True, kw_only=True)
class RunLabels:
    """What all rows of a run have in common."""

    policy_name: str
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
            policy_name=self.policy_name,
            suite=self.protocol.suite_name,
            task_id=task_id,
            task=task,
            init_index=init_index,
            seed=self.seed,
            outcome=outcome,
            reason=reason,
            steps=steps,
            goals_satisfied=progress.satisfied if progress else 0,
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
    """The policy's seed for one episode, the same in every policy and order."""
    return int(np.random.default_rng([seed, task_id, init_index]).integers(2**31))


def play(
    job: Job, labels: RunLabels, set_phase: Callable[[], Stage], video_root: Path | None = None
) -> EpisodeCoroutine:
    """Play one episode of at most `labels.protocol.max_steps` policy steps; returns its row.

    Yields (policy, observation) whenever the policy must be asked. Chunks are executed open loop.
    Frames are rendered when the policy reads them or the film keeps them. The row names the video
    relative to video_root. Whatever goes wrong, in setting the stage too, becomes the outcome
    "error", with the episode, the step and the traceback as reason.
    """
    started = time.perf_counter()
    task = task_name(labels.protocol.suite, job.task_id)
    count = _Count()
    video = None
    try:
        stage = set_phase()
        row = yield from _steps(job, labels, stage, count)
        if stage.film is not None:
            stage.film.save(row.outcome)
            path = stage.film.path
            video = str(path.relative_to(video_root) if video_root else path)
    except Exception as error:  # noqa: BLE001
        reason = _reason(error, f"{task}, init state {job.init_index}, step {count.steps}")
        return labels.error_row(job.task_id, task, job.init_index, reason)
    return replace(row, video=video, wall_s=round(time.perf_counter() - started, 3))


def run_episode(
    sim: Simulator,
    policy: Policy,
    init_index: int,
    labels: RunLabels,
    *,
    film: EpisodeVideo | None = None,
    video_root: Path | None = None,
) -> EpisodeRow:
    """Play one episode alone, see `play`."""
    job = Job(sim.task_id, init_index)
    game = play(job, labels, lambda: Stage(sim, policy, film), video_root)
    source = EachEpisode(lambda: policy)
    answer: Answer | None = None
    while True:
        try:
            request = game.send(answer)
        except StopIteration as end:
            return end.value
        [answer] = source.act_apart([request])


@dataclass
class _Count:
    steps: int = 0


def _steps(job: Job, labels: RunLabels, stage: Stage, count: _Count) -> EpisodeCoroutine:
    sim, policy, film = stage.sim, stage.policy, stage.film
    limit = labels.protocol.max_steps
    labels.protocol.check_cameras(policy.needs)
    sim.reset(job.init_index)
    if film is not None:
        film.instruction = sim.instruction  # an axis may have changed the words
    policy.reset(episode_seed(labels.seed, job.task_id, job.init_index))
    queue: deque[np.ndarray] = deque()
    outcome: Outcome
    outcome, reason = "failure", f"goal not reached in {limit} steps"
    while count.steps < limit and outcome == "failure":
        seen = None
        if not queue:
            observation = sim.observation(policy.needs)
            queue.extend(_actions((yield policy, observation)))
            seen = observation.agentview if "agentview" in policy.needs else None
        if film is not None and film.wants(count.steps):
            film.add(count.steps, sim.image("agentview", film.size_px) if seen is None else seen)
        if sim.step(queue.popleft()):
            outcome, reason = "success", "goal reached"
        count.steps += 1
    if film is not None:
        film.add(count.steps, sim.image("agentview", film.size_px))
    return labels.row(
        sim.task_id,
        sim.task,
        job.init_index,
        outcome=outcome,
        reason=reason,
        steps=count.steps,
        progress=sim.progress(),
        state_hash=sim.state_hash(),
    )


def _actions(answer: Answer | None) -> np.ndarray:
    """(N, 7) of an answer; a chunk was checked when it was made."""
    if isinstance(answer, Exception):
        raise answer
    assert answer is not None
    return answer.values


def _reason(error: Exception, where: str) -> str:
    """A line of at most LONGEST_LINE characters, the cause first and the episode after it; below it,
    unless the mistake is a user's, the traceback."""
    is_users = isinstance(error, UserError)
    what = " ".join((str(error) if is_users else f"{type(error).__name__}: {error}").split())
    room = LONGEST_LINE - len(where) - len(" ()")
    line = f"{what if len(what) <= room else what[: room - 3] + '...'} ({where})"
    if is_users:
        return line
    return line + "\n" + "".join(traceback.format_exception(error)).strip()


def _metres(progress: ProgressLike | None) -> float | None:
    if progress is None or not np.isfinite(progress.closest_m):
        return None
    return round(float(progress.closest_m), 6)
