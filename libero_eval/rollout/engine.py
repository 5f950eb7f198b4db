"""The engine of a rollout: jobs through an executor into the log of a run folder, row by row."""

import logging
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing

from tqdm import tqdm

from invact_vla.core.errors import UserError
from libero_eval.env.tasks import task_name
from libero_eval.executors import Executor, JobQueue
from libero_eval.executors.interrupt import gentle_interrupt
from libero_eval.policy_source import REFUSED
from libero_eval.results.rows import EPISODES_FILE, ONE_RUN, EpisodeLog, EpisodeRow, by_task
from libero_eval.rollout.early_stop import Stopper
from libero_eval.rollout.episode import Job, RunLabels
from libero_eval.rollout.runner import EpisodeRunnerFactory, video_name

logger = logging.getLogger(__name__)

STEPS_PER_S = 100  # of one core without a policy, either pack; for the estimate before the start


def roll_out(
    make: EpisodeRunnerFactory,
    jobs: Sequence[Job],
    executor: Executor,
    max_errors: int,
    stopper: Stopper | None = None,
) -> list[EpisodeRow]:
    """Run the jobs that are not done yet, until the stopper has seen enough; returns all rows.

    Stops with UserError when max_errors episodes ended as errors, when the policy cannot be rolled
    out at all (REFUSED), or the disk is full; with
    KeyboardInterrupt when the user asked for it. Everything recorded stays.
    """
    labels = make.labels
    suite = labels.protocol.suite_name
    with EpisodeLog(make.folder / EPISODES_FILE) as log:
        _check_one_run(log, labels)
        todo = [
            j for j in jobs if not log.done((labels.policy_name, suite, j.task_id, j.init_index))
        ]
        if stopper is not None and any([stopper.update(row) for row in log.rows.values()]):
            todo = []
        _announce(labels, len(todo), len(jobs))
        outcomes: Counter[str] = Counter()
        progress = tqdm(total=len(jobs), initial=len(jobs) - len(todo), desc=labels.policy_name)
        # closing: an exception here ends the workers now, not when the generator is collected
        with progress, closing(_rows(make, todo, executor, in_order=stopper is not None)) as ended:
            for row in ended:
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
                        f"{labels.policy_name}: {outcomes['error']} episodes ended as errors, "
                        "the last in "
                        f"task {row.task_id}, init state {row.init_index}: "
                        f"{_first_line(row.reason)}; see {log.path}, fix the cause and run again"
                    )
        return sorted(log.rows.values(), key=lambda row: row.key)


def _check_one_run(log: EpisodeLog, labels: RunLabels) -> None:
    """Refuse to go on with rows that were made with anything else, a newer simulator for one."""
    for row in log.rows.values():
        ours = labels.error_row(row.task_id, row.task, row.init_index, "compared with")
        for name in ONE_RUN:
            before, now = getattr(row, name), getattr(ours, name)
            if before != now:
                raise UserError(
                    f"{log.path} was begun with another {name} ({before}, now {now}): its rows "
                    "cannot be mixed with new ones; give another --out, or --overwrite true"
                )


def _announce(labels: RunLabels, todo: int, total: int) -> None:
    """Say before the start what is ahead; tqdm knows better after the first episodes."""
    steps = todo * labels.protocol.max_steps
    logger.info(
        "%s: %d episodes to run, %d of %d recorded; at most %d steps, %.0f min of one core at %d "
        "steps/s, the policy's time not counted",
        *(
            labels.policy_name,
            todo,
            total - todo,
            total,
            steps,
            steps / STEPS_PER_S / 60,
            STEPS_PER_S,
        ),
    )


def _rows(
    make: EpisodeRunnerFactory, jobs: Sequence[Job], executor: Executor, in_order: bool = False
) -> Generator[EpisodeRow, None, None]:
    """Run the jobs; the first Ctrl-C lets the running ones end and raises KeyboardInterrupt then."""
    labels = make.labels

    def error_row(job: Job, reason: str) -> EpisodeRow:
        name = task_name(labels.protocol.suite, job.task_id)
        reason = f"{reason} ({name}, init state {job.init_index})"
        return labels.error_row(job.task_id, name, job.init_index, reason)

    queue = JobQueue(iter(jobs) if in_order else jobs)
    ended = 0
    with gentle_interrupt(queue.close), closing(executor.run(make, queue, error_row)) as rows:
        for row in rows:
            ended += 1
            yield row
    if ended < len(jobs):
        logger.warning(
            "%s: %d episodes left, all others are recorded", labels.policy_name, len(jobs) - ended
        )
        raise KeyboardInterrupt


def record_success_videos(
    make: EpisodeRunnerFactory, rows: Sequence[EpisodeRow], executor: Executor
) -> None:
    """Play the first success of each task again with a camera, unless it has a video.

    Episodes are deterministic: the film is kept only if the episode ends in the recorded state.
    """
    wanted: dict[tuple[int, int], EpisodeRow] = {}
    for task_rows in by_task(rows).values():
        first = next((row for row in task_rows if row.outcome == "success"), None)
        if first and not (make.folder / video_name(first.task_id, first.init_index)).exists():
            wanted[first.task_id, first.init_index] = first
    jobs = [Job(task_id, init_index, film=True) for task_id, init_index in wanted]
    played = tqdm(
        _rows(make, jobs, executor),
        total=len(jobs),
        desc=f"{make.labels.policy_name} on film",
        disable=not jobs,
    )
    for row in played:
        if row.state_hash != wanted[row.task_id, row.init_index].state_hash:
            (make.folder / video_name(row.task_id, row.init_index)).unlink(missing_ok=True)
            logger.warning(
                "%s task %d, init state %d ended otherwise when played again (%s); not filmed",
                make.labels.policy_name,
                row.task_id,
                row.init_index,
                _first_line(row.reason),
            )


def _first_line(reason: str) -> str:
    return reason.strip().splitlines()[0]
