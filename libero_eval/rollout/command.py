"""`invact libero rollout`: a policy in LIBERO, episode by episode, into a run folder.

    <out>/episodes.jsonl    one row an episode, appended as they end
    <out>/videos/           mp4s: the first episodes of each task, and its first success
    <out>/manifest.json     the environment they ran in
    <out>/early_stop.json   what a rule that may end the run says, if one was given
    <out>/summary.json      counts of each task, and the rate unless an episode ended as an error

A killed run goes on where it was, and repeats episodes that ended as errors.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from invact_vla.core.errors import UserError
from invact_vla.core.files import write_json
from invact_vla.core.limits import inside
from invact_vla.core.run_folder import open_run
from invact_vla.stats import Interval, rate_sequence, wilson
from libero_eval.env.assets.pack import AssetPack, ProceduralPack
from libero_eval.env.init_states import check_range, init_states
from libero_eval.env.manifest import environment_manifest, manifest_hash
from libero_eval.env.protocol import DEFAULT_PROTOCOL, Protocol, get_protocol
from libero_eval.env.tasks import is_own, task_names
from libero_eval.executors import Executor, ExecutorConfig, SerialConfig, by_workers
from libero_eval.perturbations import PerturbationsConfig
from libero_eval.policies import PolicyConfig, RemoteConfig
from libero_eval.results.rows import EpisodeRow, by_task, is_begun
from libero_eval.results.shard import Shard
from libero_eval.results.statistics import RateRefused, rate
from libero_eval.rollout.early_stop import STOP_FILE, EarlyStop, Stopper, balanced_order
from libero_eval.rollout.engine import record_success_videos, roll_out
from libero_eval.rollout.episode import Job, RunLabels
from libero_eval.rollout.runner import EpisodeRunnerFactory, OpenLibero, VideoConfig, video_name
from libero_eval.serving.address import ServerUrl

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """A policy, a protocol, and which of its episodes to run."""

    out: Path  # run folder
    policy: PolicyConfig  # who acts: --policy.type checkpoint --policy.folder DIR
    policy_name: str = "policy"  # name of this policy in tables
    seed: int = 0  # drives the policy's randomness; layouts come from init states and protocol
    overwrite: bool = False  # replace a run of another config in `out`
    protocol: str = DEFAULT_PROTOCOL  # suite/name, see libero_eval/env/protocol.py
    suite: str = ""  # a suite of LIBERO or a folder of own tasks, in place of the protocol's
    assets: AssetPack = field(default_factory=ProceduralPack)  # what the world is drawn with
    axes: PerturbationsConfig = field(
        default_factory=PerturbationsConfig
    )  # perturbations; in the protocol's name
    tasks: tuple[int, ...] = ()  # places in the suite; none given: all
    first_init: int = 0  # first init state of each task
    episodes: int | None = None  # init states a task; none given: the protocol's trials
    more: dict[int, int] = field(default_factory=dict)  # {task: init states} where not `episodes`
    max_steps: int | None = None  # other horizon than the protocol's; becomes part of its name
    render_px: int | None = None  # other frame size than the protocol's; becomes part of its name
    videos: VideoConfig = field(default_factory=VideoConfig)  # which episodes are filmed
    early_stop: EarlyStop | None = None  # a rule to end the run by, with an interval that holds
    shard: str = "0/1"  # i/n runs the i-th of n equal parts; `results.merge` puts them together
    executor: ExecutorConfig = field(default_factory=SerialConfig)  # where the episodes run
    workers: int = 0  # short for --executor.type processes --executor.workers N; 0 leaves executor
    in_flight: int = 1  # episodes side by side in a process, their policy calls in one batch
    inference: str = "worker"  # worker: a policy in each process; central: one serves them all
    max_errors: int = 5  # stop the run after this many episodes that ended as errors

    def __post_init__(self) -> None:
        if self.first_init < 0 or (self.episodes is not None and self.episodes < 1):
            raise ValueError("need first_init >= 0 and episodes >= 1")
        if self.workers < 0 or self.max_errors < 1 or self.in_flight < 1:
            raise ValueError("need workers >= 0, max_errors >= 1 and in_flight >= 1")
        if self.inference not in ("worker", "central"):
            raise ValueError(f"inference must be worker or central, got {self.inference!r}")
        if self.workers and not isinstance(self.executor, SerialConfig):
            raise ValueError("give either workers or an executor, not both")
        if Shard.parse(self.shard).of > 1 and self.early_stop is not None:
            raise ValueError("a shard sees a part of the run only: early_stop cannot judge by it")
        for name in ("max_steps", "render_px"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


def protocol_of(config: RolloutConfig) -> Protocol:
    """The named protocol with the config's deviations, which its name then states."""
    protocol = get_protocol(config.protocol, config.suite)
    for field_name in ("max_steps", "render_px"):
        value = getattr(config, field_name)
        if value is not None and value != getattr(protocol, field_name):
            name = f"{protocol.name}, {field_name} {value}"
            protocol = replace(protocol, name=name, **{field_name: value})
    if config.axes.label:
        protocol = replace(protocol, name=f"{protocol.name}, {config.axes.label}")
    return protocol


def jobs_of(config: RolloutConfig) -> list[Job]:
    """The shard's episodes, task by task, or in the rounds of early_stop.

    Raises UserError for an unknown task, and for init states that it does not have.
    """
    protocol = get_protocol(config.protocol, config.suite)
    tasks = config.tasks or tuple(range(len(task_names(protocol.suite))))
    if len(set(tasks)) != len(tasks):
        raise UserError(f"tasks are listed twice: {tasks}")
    unknown = set(config.more) - set(tasks)
    if unknown:
        raise UserError(f"`more` names tasks {sorted(unknown)} that are not run: {list(tasks)}")
    jobs = []
    for task in tasks:
        count = config.more.get(task, config.episodes or _trials(protocol, task, config.first_init))
        check_range(protocol.suite, task, config.first_init, count)
        inits = range(config.first_init, config.first_init + count)
        filmed = set(inits[: config.videos.per_task])
        jobs += [Job(task, init, init in filmed) for init in inits]
    if config.early_stop is not None:
        return balanced_order(jobs, config.early_stop.per_round)
    part = Shard.parse(config.shard).part(jobs)
    if not part:
        raise UserError(f"shard {config.shard} of {len(jobs)} episodes is empty: make fewer shards")
    return part


def _trials(protocol: Protocol, task: int, first: int) -> int:
    """Episodes of a task where none are asked for: the protocol's, or as many as an own task has."""
    states = init_states(protocol.suite, task)
    if states is None or not is_own(protocol.suite):
        return protocol.trials
    return max(1, min(protocol.trials, len(states) - first))


def executor_of(config: RolloutConfig) -> Executor:
    """Where the config's episodes run."""
    return (by_workers(config.workers) if config.workers else config.executor).build()


def summary_of(rows: Sequence[EpisodeRow], interval: Interval = wilson) -> dict[str, object]:
    """Counts in all and a task; the rate with its interval only if there is one."""
    tasks = {
        task_id: dict(Counter(row.outcome for row in group))
        for (_, task_id), group in by_task(rows).items()
    }
    try:
        total = rate(rows, interval=interval)
    except RateRefused as refused:
        return {"episodes": len(rows), "tasks": tasks, "rate": None, "why": str(refused)}
    counts = {"k": total.k, "n": total.n, "rate": total.value, "interval": [total.low, total.high]}
    return {"episodes": len(rows), "tasks": tasks, **counts}


def main(config: RolloutConfig) -> Path:
    """Run the episodes of the config; returns the run folder.

    Episodes that ended as errors are repeated once. If some still do, RateRefused (a UserError) is
    raised and the run is not finished: the next one repeats those.
    """
    jobs, protocol = jobs_of(config), protocol_of(config)
    policy = None  # a finished run needs no policy, nor a server that has gone meanwhile
    if not (config.out / "done.json").exists():
        policy = config.policy.for_protocol(protocol)
    assets = config.assets.build()
    parents = {"assets": assets, **config.policy.parents()}
    if is_own(protocol.suite):
        parents["suite"] = Path(protocol.suite)
    if config.early_stop is not None and config.early_stop.baseline is not None:
        parents["baseline"] = config.early_stop.baseline
    run = open_run(config.out, config, parents, config.overwrite, config.seed)
    if run.finished:
        return run.folder
    device = config.policy.runs_on()
    if device is not None:
        run.ran_on(device)
    from libero_eval.env import gl

    backend = gl.probe()
    manifest = environment_manifest(backend)
    if not is_begun(run.folder):  # what the rows say stays; others are refused
        write_json(run.folder / "manifest.json", manifest)
    stopper = None if config.early_stop is None else Stopper(config.early_stop, jobs)
    config = replace(config, policy=policy or config.policy.for_protocol(protocol))
    with serving(config) as served:
        make = EpisodeRunnerFactory(
            served,
            OpenLibero(protocol, assets, backend, config.axes),
            _labels(config, protocol, manifest_hash(manifest)),
            config.videos,
            run.folder,
            config.in_flight,
        )
        rows = _run_all(config, make, jobs, stopper)
    if _errors(rows):
        write_json(run.folder / "summary.json", summary_of(rows))
    interval = wilson if stopper is None else rate_sequence
    total = rate(rows, interval=interval)  # refuses errors: the next run repeats them
    run.finish(summary_of(rows, interval))
    logger.info("%s: %s", config.policy_name, total)
    return run.folder


@contextmanager
def serving(config: RolloutConfig) -> Iterator[PolicyConfig]:
    """The policy that workers load: the config's own, or a link to one process that serves it."""
    if config.inference == "worker":
        yield config.policy
        return
    from libero_eval.rollout.local_server import local_server

    most = max(1, config.workers or getattr(config.executor, "workers", 1)) * config.in_flight
    with local_server(config.policy, max_batch=most) as url:
        yield RemoteConfig(url=ServerUrl(url))


def _run_all(
    config: RolloutConfig, make: EpisodeRunnerFactory, jobs: list[Job], stopper: Stopper | None
) -> list[EpisodeRow]:
    """Run the jobs, once more those that ended as errors, and film; returns the rows that count."""
    executor = executor_of(config)
    rows = roll_out(make, jobs, executor, config.max_errors, stopper)
    if _errors(rows):
        logger.warning(
            "%s: %d episodes ended as errors, repeated once", config.policy_name, _errors(rows)
        )
        rows = roll_out(make, jobs, executor, config.max_errors, stopper)
    if stopper is not None:
        verdict = stopper.verdict()
        write_json(make.folder / STOP_FILE, verdict)
        if verdict["stopped"]:  # else an error may be among those that it does not count
            rows = [row for row in rows if (row.task_id, row.init_index) in verdict["counted"]]
    if config.videos.first_success:
        record_success_videos(make, rows, executor)
    return rows


def _labels(config: RolloutConfig, protocol: Protocol, manifest: str) -> RunLabels:
    return RunLabels(
        policy_name=config.policy_name,
        seed=config.seed,
        checkpoint_hash=config.policy.hash(),
        protocol=protocol,
        pack=config.assets.name,
        pack_hash=config.assets.hash(),
        manifest_hash=manifest,
    )


def _errors(rows: Sequence[EpisodeRow]) -> int:
    return sum(row.outcome == "error" for row in rows)


def find_video(folder: Path, row: EpisodeRow) -> Path | None:
    """The video of a row in its run folder, if there is one."""
    path = inside(folder, video_name(row.task_id, row.init_index))
    return path if path.exists() else None
