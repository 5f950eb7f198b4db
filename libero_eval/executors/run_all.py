"""Jobs that must all end well, by a number of workers: for stages that are no rollouts."""

from collections.abc import Callable, Generator, Iterable

from libero_eval.executors.executor import ExecutorConfig, Job, JobQueue, Result, Runner
from libero_eval.executors.processes import ProcessesConfig
from libero_eval.executors.serial import SerialConfig


class JobLost(RuntimeError):
    """A job ended its process twice; the message names both."""


def by_workers(workers: int) -> ExecutorConfig:
    """0 workers: in this process; else so many processes."""
    return ProcessesConfig(workers=workers) if workers else SerialConfig()


def run_all(
    make_runner: Callable[[], Runner[Job, Result]], jobs: Iterable[Job], workers: int
) -> Generator[Result, None, None]:
    """Yield the result of each job as it ends, see `Executor.run`. Raises JobLost."""

    def lost(job: Job, reason: str) -> Result:
        raise JobLost(f"{job}: {reason}; the messages above say why")

    yield from by_workers(workers).build().run(make_runner, JobQueue(jobs), lost)
