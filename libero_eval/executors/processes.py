"""Executor `processes`: spawned workers, one torch thread and one GL context each.

The context is made in the worker, after its start. The parent gives a worker jobs of the task it has
in memory. A worker that dies, or shows no sign of life for `hang_s`, costs its episode one retry and
then an error row; a worker ends at once when its parent does, however that ends.
"""

import logging
import math
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from invact_vla.core.errors import UserError
from libero_eval.executors.child_process import begin_child, end_child, start_child
from libero_eval.executors.executor import (
    Executor,
    ExecutorConfig,
    Job,
    JobQueue,
    MakeRunner,
    Results,
    Runner,
    SerialConfig,
)
from libero_eval.executors.worker_pool import Lost, Ready, Worker, WorkerPool

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0  # how often a working worker says that it lives


@ExecutorConfig.register_subclass("processes")
@dataclass(frozen=True, kw_only=True)
class ProcessesConfig(ExecutorConfig):
    """Worker processes on this machine, each with its own copy of the policy."""

    workers: int = 2  # processes; simulators are bound by the CPU: about one per core
    hang_s: float = 300.0  # a worker that shows no sign of life this long is killed
    recycle: int = 500  # episodes after which a worker is replaced: native libraries leak

    def __post_init__(self) -> None:
        if self.workers < 1 or self.hang_s <= HEARTBEAT_S or self.recycle < 1:
            raise ValueError(f"need workers >= 1, hang_s > {HEARTBEAT_S} and recycle >= 1")

    def build(self) -> Executor:
        return _ProcessPool(self)


class JobLost(RuntimeError):
    """A job ended its process twice; the message names both."""


def by_workers(workers: int) -> ExecutorConfig:
    """0 workers: in this process; else so many processes."""
    return ProcessesConfig(workers=workers) if workers else SerialConfig()


def run_all(make_runner: MakeRunner, jobs: Iterable[Job], workers: int) -> Results:
    """Yield the result of each job as it ends, for stages that are no rollouts. Raises JobLost."""

    def lost(job: Job, reason: str) -> Any:
        raise JobLost(f"{job}: {reason}; the messages above say why")

    yield from by_workers(workers).build().run(make_runner, JobQueue(jobs), lost)


class _Process(Worker[Any]):
    def __init__(self, process: BaseProcess, pipe: Connection) -> None:
        super().__init__()
        self.process, self.pipe = process, pipe


class _ProcessPool(WorkerPool[_Process]):
    noun = "worker process"
    start_s = 1800.0  # large checkpoints load for minutes

    def __init__(self, config: ProcessesConfig) -> None:
        super().__init__(config)
        self.recycle = config.recycle

    def launch(self, make_runner: MakeRunner) -> _Process:
        return _Process(*start_child(_serve, make_runner))

    def send(self, worker: _Process, job: Any) -> bool:
        return _send(worker.pipe, job)

    def receive(self, timeout_s: float) -> Iterator[tuple[_Process, object]]:
        workers = list(self.workers)
        handles = [w.pipe for w in workers] + [w.process.sentinel for w in workers]
        ready = set(wait(handles, None if timeout_s == math.inf else timeout_s))
        for worker in workers:
            if worker.pipe in ready or worker.process.sentinel in ready:
                yield worker, _message(worker)

    def stop(self, worker: _Process) -> None:
        if worker.assigned is None or worker.jobs:
            worker.process.terminate()
        else:
            _send(worker.pipe, None)

    def join(self, worker: _Process) -> None:
        end_child(worker.process, worker.pipe)

    def cannot_start(self, count: int, why: str) -> str:
        return (
            f"{count} worker processes in a row ended before they were ready, the last one {why}: "
            "see their messages above; --workers 0 runs in this process"
        )


def _message(worker: _Process) -> object:
    try:
        if worker.pipe.poll():
            return worker.pipe.recv()
    except (EOFError, OSError):  # OSError: it died in the middle of a message
        logger.debug("a worker is gone")
    end_child(worker.process, worker.pipe)
    code = worker.process.exitcode
    if code is None or code >= 0:
        return Lost(f"died with exit code {code}")
    hint = ", as when memory runs out" if -code == signal.SIGKILL else ""
    return Lost(f"died with exit code {code} ({signal.Signals(-code).name}{hint})")


def _serve(pipe: Connection, make_runner: MakeRunner) -> None:
    """A worker's life: make the runner, say so, run jobs until None comes."""
    begin_child()
    runner: Runner | None = None
    try:
        runner = make_runner()
        pipe.send(Ready(runner.capacity))
        _work(pipe, runner)
    except UserError as error:
        _send(pipe, error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        logger.debug("the parent is gone")
    finally:
        if runner is not None:
            runner.close()


def _work(pipe: Connection, runner: Runner) -> None:
    num_jobs, last_heartbeat = 0, time.monotonic()
    while True:
        while not num_jobs or pipe.poll():
            job = pipe.recv()
            if job is None:
                return
            runner.start(job)
            num_jobs += 1
        ended = runner.advance()
        num_jobs -= len(ended)
        if ended or time.monotonic() - last_heartbeat > HEARTBEAT_S:
            pipe.send(ended)
            last_heartbeat = time.monotonic()


def _send(pipe: Connection, message: object) -> bool:
    try:
        pipe.send(message)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True
