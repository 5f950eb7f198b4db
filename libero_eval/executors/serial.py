"""Executor `here`: everything in this process, nothing to start."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

from libero_eval.executors.executor import (
    Executor,
    ExecutorConfig,
    Job,
    JobQueue,
    Result,
    Runner,
)


@ExecutorConfig.register_subclass("here")
@dataclass(frozen=True, kw_only=True)
class SerialConfig(ExecutorConfig):
    """In this process. A crash of a native library ends the run, which then goes on when repeated."""

    def build(self) -> Executor:
        return Here()


class Here:
    """See `SerialConfig`. An exception that the runner does not report leaves the command."""

    def run(
        self,
        make_runner: Callable[[], Runner[Job, Result]],
        queue: JobQueue[Job],
        error_row: Callable[[Job, str], Result],
    ) -> Generator[Result, None, None]:
        """See `Executor.run`."""
        if queue.is_empty():
            return
        runner = make_runner()
        held: list[Job] = []
        free: list[int | None] = [None] * runner.room  # the tasks in memory that no job uses
        try:
            while True:
                while free and (job := queue.take(free[-1], held)) is not None:
                    free.pop()
                    held.append(job)
                    runner.start(job)
                if not held:
                    return
                for job, result in runner.advance():
                    held.remove(job)
                    free.append(job.task_id)
                    queue.done(job)
                    yield result
        finally:
            runner.close()
