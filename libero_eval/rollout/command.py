"""`invact libero rollout`: a policy in LIBERO, episode by episode, into a run folder.

    <out>/episodes.jsonl    one row per episode, appended as they end
    <out>/videos/           mp4s: the first episodes of each task, and its first success
    <out>/manifest.json     the environment they ran in
    <out>/early_stop.json   what a rule that may end the run says, if one was given
    <out>/summary.json      counts of each task, and the rate unless an episode ended as an error

A killed run goes on where it was, and repeats episodes that ended as errors.
"""

import logging
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import write_json
from invact_vla.core.limits import inside
from invact_vla.core.run_folder import open_run
from invact_vla.stats.rates import Interval, rate_sequence, wilson
from libero_eval.env.manifest import environment_manifest, manifest_hash
from libero_eval.env.tasks import is_own, task_name
from libero_eval.executors import Executor, JobQueue, by_workers
from libero_eval.executors.child_process import gentle_interrupt
from libero_eval.policies import PolicyConfig, RemoteConfig
from libero_eval.policy_source import REFUSED
from libero_eval.results.rows import (
    EPISODES_FILE,
    ONE_RUN,
    EpisodeLog,
    EpisodeRow,
    by_task,
    is_begun,
)
from libero_eval.results.statistics import RateRefused, rate
from libero_eval.rollout.config import RolloutConfig, jobs_of, protocol_of
from libero_eval.rollout.early_stop import STOP_FILE, Stopper
from libero_eval.rollout.episode import Job, RunLabels
from libero_eval.rollout.episode_video import video_name
from libero_eval.rollout.runner import EpisodeRunnerFactory, OpenLibero
from libero_eval.serving.address import ServerUrl

logger = logging.getLogger(__name__)

STEPS_PER_S = 100  # of one core without a policy, either pack; for the estimate before the start


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
    policy = policy or config.policy.for_protocol(protocol)
    labels = RunLabels(
        policy_name=config.policy_name, seed=config.seed, checkpoint_hash=policy.hash(),
        protocol=protocol, pack=config.assets.name, pack_hash=config.assets.hash(),
        manifest_hash=manifest_hash(manifest),
    )  # fmt: skip
    open_simulator = OpenLibero(protocol, assets, backend, config.perturbations)
    with _served(config, policy) as served:
        factory = EpisodeRunnerFactory(
            served, open_simulator, labels, config.videos, run.folder, config.in_flight
        )
        rows = _run_all(config, factory, jobs, stopper)
    if _errors(rows):
        write_json(run.folder / "summary.json", summary_of(rows))
    interval = wilson if stopper is None else rate_sequence
    total = rate(rows, interval=interval)  # refuses errors: the next run repeats them
    run.finish(summary_of(rows, interval))
    logger.info("%s: %s", config.policy_name, total)
    return run.folder


def summary_of(rows: Sequence[EpisodeRow], interval: Interval = wilson) -> dict[str, object]:
    """Counts in all and per task; the rate with its interval only if there is one."""
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


@contextmanager
def _served(config: RolloutConfig, policy: PolicyConfig) -> Iterator[PolicyConfig]:
    """The policy that workers load: the config's own, or a link to one process that serves it."""
    if config.inference == "worker":
        yield policy
        return
    from libero_eval.rollout.serve import local_server

    most = max(1, config.workers or getattr(config.executor, "workers", 1)) * config.in_flight
    with local_server(policy, max_batch=most) as url:
        yield RemoteConfig(url=ServerUrl(url))


def _run_all(
    config: RolloutConfig, factory: EpisodeRunnerFactory, jobs: list[Job], stopper: Stopper | None
) -> list[EpisodeRow]:
    """Run the jobs, once more those that ended as errors, and film; returns the rows that count."""
    executor = (by_workers(config.workers) if config.workers else config.executor).build()
    rows = roll_out(factory, jobs, executor, config.max_errors, stopper)
    if count := _errors(rows):
        logger.warning("%s: %d episodes ended as errors, repeated once", config.policy_name, count)
        rows = roll_out(factory, jobs, executor, config.max_errors, stopper)
    if stopper is not None:
        verdict = stopper.verdict()
        write_json(factory.folder / STOP_FILE, verdict)
        if verdict["stopped"]:  # else an error may be among those that it does not count
            rows = [row for row in rows if (row.task_id, row.init_index) in verdict["counted"]]
    if config.videos.first_success:
        record_success_videos(factory, rows, executor)
    return rows


def roll_out(
    factory: EpisodeRunnerFactory,
    jobs: Sequence[Job],
    executor: Executor,
    max_errors: int,
    stopper: Stopper | None = None,
) -> list[EpisodeRow]:
    """Run the jobs that are not done yet, until the stopper has seen enough; returns all rows.

    Stops with UserError when max_errors episodes ended as errors, when the policy cannot be rolled
    out at all (REFUSED), or the disk is full; with KeyboardInterrupt when the user asked for it.
    Everything recorded stays.
    """
    labels = factory.labels
    name, suite = labels.policy_name, labels.protocol.suite_name
    with EpisodeLog(factory.folder / EPISODES_FILE) as log:
        _check_one_run(log, labels)
        todo = [job for job in jobs if not log.done((name, suite, job.task_id, job.init_index))]
        if stopper is not None and any([stopper.update(row) for row in log.rows.values()]):
            todo = []
        _announce(labels, len(todo), len(jobs))
        outcomes: Counter[str] = Counter()
        progress = tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc=name)
        ended = _run_jobs(factory, todo, executor, in_order=stopper is not None)
        # closing: an exception here ends the workers now, not when the generator is collected
        with progress, closing(ended) as rows:
            for row in rows:
                log.append(row)
                outcomes[row.outcome] += 1
                progress.set_postfix(outcomes)
                progress.update()
                if stopper is not None and stopper.update(row):
                    break
                if row.outcome == "error" and row.reason.startswith(REFUSED):
                    raise UserError(_first_line(row.reason))
                if outcomes["error"] >= max_errors:
                    raise UserError(
                        f"{name}: {outcomes['error']} episodes ended as errors, the last in task "
                        f"{row.task_id}, init state {row.init_index}: {_first_line(row.reason)}; "
                        f"see {log.path}, fix the cause and run again"
                    )
        return sorted(log.rows.values(), key=lambda row: row.key)


def record_success_videos(
    factory: EpisodeRunnerFactory, rows: Sequence[EpisodeRow], executor: Executor
) -> None:
    """Run the first success of each task again with a camera, unless it has a video.

    Episodes are deterministic: the video is kept only if the episode ends in the recorded state.
    """
    name, wanted = factory.labels.policy_name, {}
    for task_rows in by_task(rows).values():
        first = next((row for row in task_rows if row.outcome == "success"), None)
        if first and find_video(factory.folder, first) is None:
            wanted[first.task_id, first.init_index] = first
    jobs = [Job(task_id, init_index, film=True) for task_id, init_index in wanted]
    ended = _run_jobs(factory, jobs, executor)
    for row in tqdm(ended, total=len(jobs), desc=f"{name} on film", disable=not jobs):
        if row.state_hash != wanted[row.task_id, row.init_index].state_hash:
            (factory.folder / video_name(row.task_id, row.init_index)).unlink(missing_ok=True)
            logger.warning(
                "%s task %d, init state %d ended otherwise when run again (%s); not filmed",
                *(name, row.task_id, row.init_index, _first_line(row.reason)),
            )


def find_video(folder: Path, row: EpisodeRow) -> Path | None:
    """The video of a row in its run folder, if there is one."""
    path = inside(folder, video_name(row.task_id, row.init_index))
    return path if path.exists() else None


def _run_jobs(
    factory: EpisodeRunnerFactory, jobs: Sequence[Job], executor: Executor, in_order: bool = False
) -> Generator[EpisodeRow, None, None]:
    """Run the jobs; the first Ctrl-C lets the running ones end and raises KeyboardInterrupt then."""
    labels = factory.labels

    def error_row(job: Job, reason: str) -> EpisodeRow:
        task = task_name(labels.protocol.suite, job.task_id)
        reason = f"{reason} ({task}, init state {job.init_index})"
        return labels.row(job.task_id, task, job.init_index, outcome="error", reason=reason)

    queue = JobQueue(iter(jobs) if in_order else jobs)
    left = len(jobs)
    with gentle_interrupt(queue.close), closing(executor.run(factory, queue, error_row)) as rows:
        for row in rows:
            left -= 1
            yield row
    if left:
        logger.warning("%s: %d episodes left, all others are recorded", labels.policy_name, left)
        raise KeyboardInterrupt


def _check_one_run(log: EpisodeLog, labels: RunLabels) -> None:
    """Refuse to go on with rows that were made with anything else, a newer simulator for one."""
    candidate = labels.row(0, "", 0, outcome="error", reason="compared with")
    for row in log.rows.values():
        for name in ONE_RUN:
            before, now = getattr(row, name), getattr(candidate, name)
            if before != now:
                raise UserError(
                    f"{log.path} was begun with another {name} ({before}, now {now}): its rows "
                    "cannot be mixed with new ones; give another --out, or --overwrite true"
                )


def _announce(labels: RunLabels, todo: int, total: int) -> None:
    """Say before the start what is ahead; tqdm knows better after the first episodes."""
    steps = todo * labels.protocol.max_steps
    seconds = steps / STEPS_PER_S
    logger.info(
        "%s: %d episodes to run, %d of %d recorded; at most %d steps, %s of one core at %d steps/s, the "
        "policy's time not counted",
        *(labels.policy_name, todo, total - todo, total, steps),
        f"{max(seconds, 1):.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min",
        STEPS_PER_S,
    )


def _errors(rows: Sequence[EpisodeRow]) -> int:
    return sum(row.outcome == "error" for row in rows)


def _first_line(reason: str) -> str:
    return reason.strip().splitlines()[0]
