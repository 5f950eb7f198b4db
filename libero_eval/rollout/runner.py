"""Episodes in one process: one policy source, up to `in_flight` simulators, batched policy calls.

`EpisodeRunnerFactory` is what an executor sends to its processes; `EpisodeRunner` runs them there.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libero_eval.env.protocol import Protocol
from libero_eval.env.sim import LiberoSim
from libero_eval.perturbations import PerturbationsConfig
from libero_eval.policies import PolicyConfig
from libero_eval.results.rows import EpisodeRow
from libero_eval.rollout.episode import Episode, Job, RunLabels
from libero_eval.rollout.episode_video import EpisodeVideo, VideoConfig, video_name

OpenSimulator = Callable[[int], LiberoSim]


@dataclass(frozen=True)
class OpenLibero:
    """Opens the simulator of a task of a protocol; picklable, so that workers can."""

    protocol: Protocol
    assets: Path
    gl_backend: str
    perturbations: PerturbationsConfig

    def __call__(self, task_id: int) -> LiberoSim:
        from libero_eval.env import gl

        gl.use(self.gl_backend)
        from libero_eval.perturbations.perturbed import PerturbedSim

        protocol = self.protocol
        where = (protocol.suite, task_id, self.assets)
        options: dict[str, Any] = {
            "image_size": protocol.render_px,
            "settle_steps": protocol.settle_steps,
            "settle_action": protocol.settle_action,
            "reset_seed": protocol.reset_seed,
            "reseed": protocol.reseed,
        }
        if self.perturbations.label:
            return PerturbedSim(*where, self.perturbations, **options)
        return LiberoSim(*where, **options)


@dataclass(frozen=True)
class EpisodeRunnerFactory:
    """What a process is started with; calling it loads the policy there."""

    policy: PolicyConfig
    open_simulator: OpenSimulator
    labels: RunLabels
    videos: VideoConfig
    folder: Path
    in_flight: int = 1

    def __call__(self) -> "EpisodeRunner":
        return EpisodeRunner(self)


class EpisodeRunner:
    """Runs up to `in_flight` episodes side by side, each in a simulator of its own.

    What an episode does is the same whatever runs beside it, if the policy's responses are.
    """

    def __init__(self, factory: EpisodeRunnerFactory) -> None:
        self.capacity = factory.in_flight
        self._factory = factory
        self._source = factory.policy.load()
        self._new: deque[Job] = deque()
        self._episodes: list[Episode] = []
        self._open: list[LiberoSim] = []  # simulators in memory
        self._idle: list[LiberoSim] = []  # those of them that no episode uses

    def start(self, job: Job) -> None:
        """Take an episode; `advance` begins it."""
        self._new.append(job)

    def advance(self) -> list[tuple[Job, EpisodeRow]]:
        """Begin one new episode, or ask the policy once for all episodes and execute its chunks."""
        if self._new:
            self._episodes.append(self._begin(self._new.popleft()))
        else:
            asking, requests = [], []
            for episode in self._episodes:
                with episode.errors_recorded():
                    requests.append((episode.policy, episode.observe()))
                    asking.append(episode)
            for episode, response in zip(asking, self._source.act_apart(requests), strict=True):
                with episode.errors_recorded():
                    episode.execute(response)
        ended = [episode for episode in self._episodes if episode.is_over]
        for episode in ended:
            self._episodes.remove(episode)
            self._release(episode)
        return [(episode.job, episode.row) for episode in ended]

    def close(self) -> None:
        """Free the simulators and the policy."""
        for sim in self._open:
            sim.close()
        self._open, self._idle, self._episodes = [], [], []
        self._source.close()

    def _begin(self, job: Job) -> Episode:
        factory, video = self._factory, None
        episode = Episode(job, factory.labels, factory.folder)
        if job.film:
            path = factory.folder / video_name(job.task_id, job.init_index)
            video = EpisodeVideo(path, "", factory.videos.stride, factory.videos.size_px)
        with episode.errors_recorded():
            sim = self._simulator(job.task_id)
            try:
                policy = self._source.open(sim)
            except BaseException:
                self._idle.append(sim)
                raise
            episode.reset(sim, policy, video)
        return episode

    def _simulator(self, task_id: int) -> LiberoSim:
        """One of this task that is idle, or a new one in the place of another idle one."""
        for sim in self._idle:
            if sim.task_id == task_id:
                self._idle.remove(sim)
                return sim
        if len(self._open) >= self.capacity:
            self._drop(self._idle.pop(0))
        sim = self._factory.open_simulator(task_id)
        self._open.append(sim)
        return sim

    def _release(self, episode: Episode) -> None:
        if not episode.has_begun:
            return
        self._source.release(episode.policy)
        if episode.row.outcome == "error":
            self._drop(episode.sim)  # it may be in any state
        else:
            self._idle.append(episode.sim)

    def _drop(self, sim: LiberoSim) -> None:
        self._open.remove(sim)
        sim.close()
