"""One episode: reset, let the scene settle, then act and step until success or the last step.

`run_episode` is the definition. `runner.EpisodeRunner` is the same loop over several episodes of one
process, with one policy call for all of them.
"""

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.schema import Observation, Policy
from libero_eval.env.protocol import Protocol
from libero_eval.env.sim import LiberoSim, Progress
from libero_eval.env.tasks import task_name
from libero_eval.policy_source import PolicyResponse
from libero_eval.results.rows import EpisodeRow, Outcome
from libero_eval.rollout.episode_video import EpisodeVideo

LONGEST_LINE = 300  # characters of the first line of an error's reason
NO_PROGRESS = Progress(0, 0, 0, float("inf"))


@dataclass(frozen=True)
class Job:
    """One episode to run. film: keep a video of it."""

    task_id: int
    init_index: int
    film: bool = False


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

    def row(
        self,
        task_id: int,
        task: str,
        init_index: int,
        *,
        outcome: Outcome,
        reason: str,
        steps: int = 0,
        progress: Progress = NO_PROGRESS,
        state_hash: str = "",
        video: str | None = None,
        wall_s: float = 0.0,
    ) -> EpisodeRow:
        """A row of this run."""
        closest_m = round(progress.closest_m, 6) if np.isfinite(progress.closest_m) else None
        return EpisodeRow(
            policy_name=self.policy_name, suite=self.protocol.suite_name, task_id=task_id, task=task,
            init_index=init_index, seed=self.seed, outcome=outcome, reason=reason, steps=steps,
            goals_satisfied=progress.satisfied, goals_total=progress.total,
            goals_best=progress.best, closest_m=closest_m, checkpoint_hash=self.checkpoint_hash,
            protocol=self.protocol.key, protocol_hash=self.protocol.hash, pack=self.pack,
            pack_hash=self.pack_hash, manifest_hash=self.manifest_hash, state_hash=state_hash,
            video=video, wall_s=round(wall_s, 3),
        )  # fmt: skip


def episode_seed(seed: int, task_id: int, init_index: int) -> int:
    """The policy's seed for one episode, the same in every policy and order."""
    return int(np.random.default_rng([seed, task_id, init_index]).integers(2**31))


def run_episode(
    sim: LiberoSim,
    policy: Policy,
    init_index: int,
    labels: RunLabels,
    video: EpisodeVideo | None = None,
) -> EpisodeRow:
    """Run one episode of at most `labels.protocol.max_steps` steps.

    Chunks are executed open loop. Whatever goes wrong becomes the outcome "error", with the
    episode, the step and the traceback as reason.
    """
    episode = Episode(Job(sim.task_id, init_index), labels)
    with episode.errors_recorded():
        episode.reset(sim, policy, video)
        while not episode.is_over:
            episode.execute(policy.act(episode.observe()))
    return episode.row


class Episode:
    """One episode under way.

    sim, policy: what it runs with, once it `has_begun`. row: what is recorded, once it `is_over`.
    """

    sim: LiberoSim
    policy: Policy
    row: EpisodeRow

    def __init__(self, job: Job, labels: RunLabels, folder: Path | None = None) -> None:
        """folder: of the run; the row names the video relative to it."""
        self.job = job
        self.has_begun = self.is_over = False
        self._labels, self._folder = labels, folder
        self._video: EpisodeVideo | None = None
        self._seen: np.ndarray | None = None  # the frame that the policy read before this step
        self._steps, self._started = 0, time.perf_counter()

    def reset(self, sim: LiberoSim, policy: Policy, video: EpisodeVideo | None = None) -> None:
        """Begin: the simulator in its init state and at rest, the policy with the episode's seed."""
        self.sim, self.policy, self._video, self.has_begun = sim, policy, video, True
        self._labels.protocol.check_cameras(policy.needs)
        sim.reset(self.job.init_index)
        if video is not None:
            video.instruction = sim.instruction  # a perturbation may have changed the words
        policy.reset(episode_seed(self._labels.seed, self.job.task_id, self.job.init_index))

    def observe(self) -> Observation:
        """What the policy sees now; no other frames are rendered, but for a video."""
        observation = self.sim.observation(self.policy.needs)
        self._seen = observation.agentview if "agentview" in self.policy.needs else None
        return observation

    def execute(self, response: PolicyResponse) -> None:
        """Step through a chunk, up to success or the last step. Raises what the policy raised."""
        if isinstance(response, Exception):
            raise response
        for action in response.values:
            self._film()
            has_succeeded = self.sim.step(action)
            self._steps += 1
            if has_succeeded or self._steps == self._labels.protocol.max_steps:
                self._end("success" if has_succeeded else "failure")
                return

    @contextmanager
    def errors_recorded(self) -> Iterator[None]:
        """An exception inside ends the episode as an error; the row says why."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            task = task_name(self._labels.protocol.suite, self.job.task_id)
            where = f"{task}, init state {self.job.init_index}, step {self._steps}"
            reason, episode = _reason(error, where), (self.job.task_id, task, self.job.init_index)
            self.row = self._labels.row(*episode, outcome="error", reason=reason)
            self.is_over = True

    def _film(self, is_last: bool = False) -> None:
        """Give the video the frame before this step, if it wants one: the policy's, if it read one."""
        video, seen, self._seen = self._video, self._seen, None
        if video is not None and (is_last or video.wants(self._steps)):
            frame = self.sim.image("agentview", video.size_px) if seen is None else seen
            video.add(self._steps, frame)

    def _end(self, outcome: Outcome) -> None:
        self._film(is_last=True)
        sim, path = self.sim, None
        if self._video is not None:
            self._video.save(outcome)
            path = self._video.path
            path = str(path.relative_to(self._folder) if self._folder else path)
        reason = f"goal not reached in {self._steps} steps"
        self.row = self._labels.row(
            sim.task_id, sim.task, self.job.init_index, outcome=outcome,
            reason="goal reached" if outcome == "success" else reason, steps=self._steps,
            progress=sim.progress(), state_hash=sim.state_hash(), video=path,
            wall_s=time.perf_counter() - self._started,
        )  # fmt: skip
        self.is_over = True


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
