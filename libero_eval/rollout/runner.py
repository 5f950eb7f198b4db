"""Episodes in one process: one policy source, up to `in_flight` simulators, batched questions.

`EpisodeRunnerFactory` is what an executor sends to its processes; `EpisodeRunner` is what plays there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libero_eval.env.protocol import Protocol
from libero_eval.perturbations import PerturbationsConfig
from libero_eval.policies import PolicyConfig
from libero_eval.policy_source import Request
from libero_eval.results.rows import EpisodeRow
from libero_eval.rollout.episode import Answer, Job, RunLabels, Simulator, Stage, play
from libero_eval.rollout.episode_video import EpisodeVideo

OpenSimulator = Callable[[int], Simulator]


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Which episodes are filmed, and how. Filming changes no outcome."""

    per_task: int = 1  # the first episodes of each task; 0 films none of them
    first_success: bool = True  # and the first success of each task (that episode is played again)
    stride: int = 2  # film every n-th step; the video plays n times as fast as the robot moved
    size_px: int = 160  # width and height of the picture

    def __post_init__(self) -> None:
        if self.per_task < 0 or self.stride < 1 or self.size_px < 32 or self.size_px % 2:
            raise ValueError("videos: need per_task >= 0, stride >= 1, an even size_px >= 32")


@dataclass(frozen=True)
class OpenLibero:
    """Opens the simulator of a task of a protocol; picklable, so that workers can."""

    protocol: Protocol
    assets: Path
    gl_backend: str
    axes: PerturbationsConfig

    def __call__(self, task_id: int) -> Simulator:
        from libero_eval.env import gl

        gl.use(self.gl_backend)
        from libero_eval.env.sim import LiberoSim
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
        if self.axes.label:
            return PerturbedSim(*where, self.axes, **options)
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


class _ActiveEpisode:
    """One episode under way: what it asks, what it is told, and what it holds."""

    def __init__(self, job: Job, runner: "EpisodeRunner") -> None:
        make = runner.make
        self.job = job
        self.stage: Stage | None = None
        self.request: Request | None = None
        self.row: EpisodeRow | None = None
        self._runner = runner
        self._game = play(job, make.labels, self._set_stage, make.folder)

    def resume_episode(self, answer: Answer | None) -> None:
        """Play until the next question, or to the end."""
        try:
            self.request = self._game.send(answer)
        except StopIteration as end:
            self.request, self.row = None, end.value

    def _set_stage(self) -> Stage:
        self.stage = self._runner.stage(self.job)
        return self.stage


class EpisodeRunner:
    """Plays up to `in_flight` episodes side by side, each in a simulator of its own.

    What an episode does is the same whatever plays beside it, if the policy's answers are.
    """

    def __init__(self, make: EpisodeRunnerFactory) -> None:
        self.make = make
        self.room = make.in_flight
        self._source = make.policy.load()
        self._flights: list[_ActiveEpisode] = []
        self._open: list[Simulator] = []  # simulators in memory
        self._idle: list[Simulator] = []  # those of them that no episode uses

    def start(self, job: Job) -> None:
        """Take an episode; `advance` begins it."""
        self._flights.append(_ActiveEpisode(job, self))

    def advance(self) -> list[tuple[Job, EpisodeRow]]:
        """Begin one new episode, or ask the policy once for all that wait and play their chunks."""
        new = next((flight for flight in self._flights if flight.request is None), None)
        if new is not None:
            new.resume_episode(None)
        else:
            requests = [flight.request for flight in self._flights if flight.request is not None]
            answers = self._source.act_apart(requests)
            for flight, answer in zip(self._flights, answers, strict=True):
                flight.resume_episode(answer)
        ended = [(flight, flight.row) for flight in self._flights if flight.row is not None]
        for flight, row in ended:
            self._flights.remove(flight)
            self._release(flight, row.outcome == "error")
        return [(flight.job, row) for flight, row in ended]

    def close(self) -> None:
        """Free the simulators and the policy."""
        for sim in self._open:
            sim.close()
        self._open, self._idle, self._flights = [], [], []
        self._source.close()

    def stage(self, job: Job) -> Stage:
        """A simulator and a policy for one episode. Errors: as those two raise them."""
        sim = self._simulator(job.task_id)
        film = None
        if job.film:
            path = self.make.folder / video_name(job.task_id, job.init_index)
            videos = self.make.videos
            film = EpisodeVideo(path, sim.instruction, videos.stride, videos.size_px)
        try:
            return Stage(sim, self._source.open(sim), film)
        except BaseException:
            self._idle.append(sim)
            raise

    def _simulator(self, task_id: int) -> Simulator:
        """One of this task that is idle, or a new one in the place of another idle one."""
        for sim in self._idle:
            if sim.task_id == task_id:
                self._idle.remove(sim)
                return sim
        if len(self._open) >= self.room:
            self._drop(self._idle.pop(0))
        sim = self.make.open_simulator(task_id)
        self._open.append(sim)
        return sim

    def _release(self, flight: _ActiveEpisode, is_broken: bool) -> None:
        if flight.stage is None:
            return
        self._source.release(flight.stage.policy)
        if is_broken:
            self._drop(flight.stage.sim)  # it may be in any state
        else:
            self._idle.append(flight.stage.sim)

    def _drop(self, sim: Simulator) -> None:
        self._open.remove(sim)
        sim.close()


def video_name(task_id: int, init_index: int) -> str:
    """Where the video of an episode lies inside the run folder."""
    return f"videos/task{task_id:02d}_init{init_index:03d}.mp4"
