"""`invact libero rollout`: a policy in LIBERO, episode by episode, into a run folder.

    <out>/episodes.jsonl    one row an episode, appended as they end
    <out>/videos/           mp4s: the first episodes of each task, and its first success
    <out>/manifest.json     the environment they ran in
    <out>/summary.json      counts of each task, and the rate unless an episode ended as an error

A killed run goes on where it was, and repeats episodes that ended as errors.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from invact_vla.errors import UserError
from invact_vla.training.files import write_json
from invact_vla.training.run_folder import open_run
from libero_eval.assets.pack import AssetPack, ProceduralPack
from libero_eval.episode import RunLabels, Simulator, run_episode
from libero_eval.film import Film
from libero_eval.manifest import environment_manifest, manifest_hash
from libero_eval.policies import PolicyConfig
from libero_eval.protocol import DEFAULT_PROTOCOL, Protocol, get_protocol
from libero_eval.results import EPISODES_FILE, EpisodeLog, EpisodeRow, by_task
from libero_eval.stats import RateRefused, rate
from libero_eval.tasks import task_name, task_names
from libero_eval.workers import Job, run_jobs

logger = logging.getLogger(__name__)

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


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """A policy, a protocol, and which of its episodes to run."""

    out: Path  # run folder
    policy: PolicyConfig  # who acts: --policy.type checkpoint --policy.folder DIR
    arm: str = "policy"  # name of this variant in tables
    seed: int = 0  # drives the policy's randomness; layouts come from init states and protocol
    overwrite: bool = False  # replace a run of another config in `out`
    protocol: str = DEFAULT_PROTOCOL  # suite/name, see libero_eval/protocol.py
    assets: AssetPack = field(default_factory=ProceduralPack)  # what the world is drawn with
    tasks: tuple[int, ...] = ()  # places in the suite; none given: all
    first_init: int = 0  # first init state of each task
    episodes: int | None = None  # init states a task; none given: the protocol's trials
    more: dict[int, int] = field(default_factory=dict)  # {task: init states} where not `episodes`
    max_steps: int | None = None  # other horizon than the protocol's; becomes part of its name
    render_px: int | None = None  # other frame size than the protocol's; becomes part of its name
    videos: VideoConfig = field(default_factory=VideoConfig)  # which episodes are filmed
    workers: int = 0  # processes; 0 runs in this one; outcomes do not depend on it
    max_errors: int = 5  # stop the run after this many episodes that ended as errors

    def __post_init__(self) -> None:
        if self.first_init < 0 or (self.episodes is not None and self.episodes < 1):
            raise ValueError("need first_init >= 0 and episodes >= 1")
        if self.workers < 0 or self.max_errors < 1:
            raise ValueError("need workers >= 0 and max_errors >= 1")
        for name in ("max_steps", "render_px"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def protocol_of(config: RolloutConfig) -> Protocol:
    """The named protocol with the config's deviations, which its name then states."""
    protocol = get_protocol(config.protocol)
    for field_name in ("max_steps", "render_px"):
        value = getattr(config, field_name)
        if value is not None and value != getattr(protocol, field_name):
            name = f"{protocol.name}, {field_name} {value}"
            protocol = replace(protocol, name=name, **{field_name: value})
    return protocol


def jobs_of(config: RolloutConfig) -> list[Job]:
    """All episodes of the config, task by task. Raises UserError for an unknown task."""
    protocol = get_protocol(config.protocol)
    tasks = config.tasks or tuple(range(len(task_names(protocol.suite))))
    if len(set(tasks)) != len(tasks):
        raise UserError(f"tasks are listed twice: {tasks}")
    count = protocol.trials if config.episodes is None else config.episodes
    for task in tasks:
        task_name(protocol.suite, task)
    unknown = set(config.more) - set(tasks)
    if unknown:
        raise UserError(f"`more` names tasks {sorted(unknown)} that are not run: {list(tasks)}")
    jobs = []
    for task in tasks:
        inits = range(config.first_init, config.first_init + config.more.get(task, count))
        filmed = set(inits[: config.videos.per_task])
        jobs += [Job(task, init, init in filmed) for init in inits]
    return jobs


@dataclass(frozen=True)
class OpenLibero:
    """Opens LiberoSim for a task of a protocol; picklable, so that workers can."""

    protocol: Protocol
    assets: Path
    gl_backend: str

    def __call__(self, task_id: int) -> Simulator:
        from libero_eval import gl

        gl.use(self.gl_backend)
        from libero_eval.sim import LiberoSim

        return LiberoSim(
            self.protocol.suite,
            task_id,
            self.assets,
            image_size=self.protocol.render_px,
            settle_steps=self.protocol.settle_steps,
            settle_action=self.protocol.settle_action,
            reset_seed=self.protocol.reset_seed,
        )


@dataclass(frozen=True)
class MakeEpisodeRunner:
    """What a worker process is started with; calling it loads the policy there."""

    policy: PolicyConfig
    open_simulator: OpenSimulator
    labels: RunLabels
    videos: VideoConfig
    folder: Path

    def __call__(self) -> "EpisodeRunner":
        return EpisodeRunner(self)


class EpisodeRunner:
    """Runs episodes in one process with one policy and one simulator at a time."""

    def __init__(self, make: MakeEpisodeRunner) -> None:
        self._make = make
        self._source = make.policy.load()
        self._sim: Simulator | None = None

    def __call__(self, job: Job) -> EpisodeRow:
        make = self._make
        try:
            sim = self._simulator(job.task_id)
        except UserError as error:
            name = task_name(make.labels.protocol.suite, job.task_id)
            return make.labels.error_row(job.task_id, name, job.init_index, str(error))
        film = None
        if job.film:
            path = make.folder / video_name(job.task_id, job.init_index)
            film = Film(path, sim.instruction, make.videos.stride, make.videos.size_px)
        policy = self._source.for_simulator(sim)
        row = run_episode(
            sim, policy, job.init_index, make.labels, film=film, video_root=make.folder
        )
        if row.outcome == "error":
            self.close()  # the simulator may be in any state
        return row

    def close(self) -> None:
        """Free the simulator."""
        if self._sim is not None:
            self._sim.close()
        self._sim = None

    def _simulator(self, task_id: int) -> Simulator:
        if self._sim is None or self._sim.task_id != task_id:
            self.close()
            self._sim = self._make.open_simulator(task_id)
        return self._sim


def video_name(task_id: int, init_index: int) -> str:
    """Where the video of an episode lies inside the run folder."""
    return f"videos/task{task_id:02d}_init{init_index:03d}.mp4"


def roll_out(
    make: MakeEpisodeRunner, jobs: Sequence[Job], workers: int, max_errors: int
) -> list[EpisodeRow]:
    """Run the jobs that are not done yet and return the rows of all.

    Stops with UserError when max_errors episodes ended as errors. Everything recorded stays.
    """
    labels = make.labels
    suite = labels.protocol.suite

    def error_row(job: Job, reason: str) -> EpisodeRow:
        return labels.error_row(job.task_id, task_name(suite, job.task_id), job.init_index, reason)

    with EpisodeLog(make.folder / EPISODES_FILE) as log:
        todo = [j for j in jobs if not log.done((labels.arm, suite, j.task_id, j.init_index))]
        outcomes: Counter[str] = Counter()
        progress = tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc=labels.arm)
        # closing: on Ctrl-C the workers end now, not when the generator is collected
        with progress, closing(run_jobs(make, todo, error_row, workers)) as ended:
            for row in ended:
                log.append(row)
                outcomes[row.outcome] += 1
                progress.set_postfix(outcomes)
                progress.update()
                if outcomes["error"] >= max_errors:
                    raise UserError(
                        f"{labels.arm}: {outcomes['error']} episodes ended as errors, the last in "
                        f"task {row.task_id}, init state {row.init_index}: "
                        f"{_last_line(row.reason)}; see {log.path}, fix the cause and run again"
                    )
        return sorted(log.rows.values(), key=lambda row: row.key)


def film_successes(make: MakeEpisodeRunner, rows: Sequence[EpisodeRow], workers: int) -> None:
    """Play the first success of each task again with a camera, unless it has a video.

    Episodes are deterministic: the film is kept only if the episode ends in the recorded state.
    """
    wanted: dict[Job, EpisodeRow] = {}
    for task_rows in by_task(rows).values():
        first = next((row for row in task_rows if row.outcome == "success"), None)
        if first and not (make.folder / video_name(first.task_id, first.init_index)).exists():
            wanted[Job(first.task_id, first.init_index, film=True)] = first

    def error_row(job: Job, reason: str) -> EpisodeRow:
        row = wanted[job]
        return make.labels.error_row(row.task_id, row.task, row.init_index, reason)

    recorded = {row.episode: row for row in wanted.values()}
    for row in tqdm(
        run_jobs(make, wanted, error_row, workers),
        total=len(wanted),
        desc=f"{make.labels.arm} on film",
        disable=not wanted,
    ):
        if row.state_hash != recorded[row.episode].state_hash:
            (make.folder / video_name(row.task_id, row.init_index)).unlink(missing_ok=True)
            logger.warning(
                "%s task %d, init state %d ended otherwise when played again (%s); not filmed",
                make.labels.arm,
                row.task_id,
                row.init_index,
                _last_line(row.reason),
            )


def summary_of(rows: Sequence[EpisodeRow]) -> dict[str, object]:
    """Counts in all and a task; the rate only if there is one."""
    tasks = {
        task_id: dict(Counter(row.outcome for row in group))
        for (_, task_id), group in by_task(rows).items()
    }
    try:
        total = rate(rows)
    except RateRefused as refused:
        return {"episodes": len(rows), "tasks": tasks, "rate": None, "why": str(refused)}
    interval = [total.low, total.high]
    counts = {"k": total.k, "n": total.n, "rate": total.value, "interval": interval}
    return {"episodes": len(rows), "tasks": tasks, **counts}


def main(config: RolloutConfig) -> Path:
    """Run the episodes of the config; returns the run folder.

    Episodes that ended as errors are repeated once. If some still do, RateRefused (a UserError) is
    raised and the run is not finished: the next one repeats those.
    """
    jobs, protocol = jobs_of(config), protocol_of(config)
    assets = config.assets.build()
    parents = {"assets": assets, **config.policy.parents()}
    run = open_run(config.out, config, parents, config.overwrite, config.seed)
    if run.finished:
        return run.folder
    from libero_eval import gl

    backend = gl.probe()
    manifest = environment_manifest(backend)
    write_json(run.folder / "manifest.json", manifest)
    labels = RunLabels(
        arm=config.arm,
        seed=config.seed,
        checkpoint_hash=config.policy.hash(),
        protocol=protocol,
        pack=config.assets.name,
        pack_hash=config.assets.hash(),
        manifest_hash=manifest_hash(manifest),
    )
    make = MakeEpisodeRunner(
        config.policy, OpenLibero(protocol, assets, backend), labels, config.videos, run.folder
    )
    rows = roll_out(make, jobs, config.workers, config.max_errors)
    if _errors(rows):
        logger.warning("%s: %d episodes ended as errors, repeated once", config.arm, _errors(rows))
        rows = roll_out(make, jobs, config.workers, config.max_errors)
    if config.videos.first_success:
        film_successes(make, rows, config.workers)
    if _errors(rows):
        write_json(run.folder / "summary.json", summary_of(rows))
    total = rate(rows)  # refuses errors: the run stays unfinished, the next one repeats them
    run.finish(summary_of(rows))
    logger.info("%s: %s", config.arm, total)
    return run.folder


def _errors(rows: Sequence[EpisodeRow]) -> int:
    return sum(row.outcome == "error" for row in rows)


def find_video(folder: Path, row: EpisodeRow) -> Path | None:
    """The video of a row in its run folder, if there is one."""
    path = folder / video_name(row.task_id, row.init_index)
    return path if path.exists() else None


def _last_line(reason: str) -> str:
    return reason.strip().splitlines()[-1]
