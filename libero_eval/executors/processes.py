"""Executor `processes`: spawned workers, one torch thread and one GL context each.

The context is made in the worker, after its start. The parent gives a worker jobs of the task it has
in memory. A worker that dies, or shows no sign of life for `hang_s`, costs its episode one retry and
then an error row; a worker ends at once when its parent does, however that ends.
"""

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic

from invact_vla.core.errors import UserError
from libero_eval.executors.child_process import end_with_parent, one_thread
from libero_eval.executors.executor import (
    Executor,
    ExecutorConfig,
    Job,
    JobQueue,
    Result,
    Runner,
)

logger = logging.getLogger(__name__)

START_ATTEMPTS = 3  # workers in a row that may end before they are ready
START_S = 1800.0  # a worker that is not ready by then hangs; large checkpoints load for minutes
HEARTBEAT_S = 1.0  # how often a working worker says that it lives


@ExecutorConfig.register_subclass("processes")
@dataclass(frozen=True, kw_only=True)
class ProcessesConfig(ExecutorConfig):
    """Worker processes on this machine, each with its own copy of the policy."""

    workers: int = 2  # processes; simulators are bound by the CPU: about one a core
    hang_s: float = 300.0  # a worker that shows no sign of life this long is killed
    recycle: int = 500  # episodes after which a worker is replaced: native libraries leak

    def __post_init__(self) -> None:
        if self.workers < 1 or self.hang_s <= HEARTBEAT_S or self.recycle < 1:
            raise ValueError(f"need workers >= 1, hang_s > {HEARTBEAT_S} and recycle >= 1")

    def build(self) -> Executor:
        return Processes(self)


class Processes:
    """See `ProcessesConfig`."""

    def __init__(self, config: ProcessesConfig) -> None:
        self._config = config

    def run(
        self,
        make_runner: Callable[[], Runner[Job, Result]],
        queue: JobQueue[Job],
        error_row: Callable[[Job, str], Result],
    ) -> Generator[Result, None, None]:
        """See `Executor.run`."""
        pool = _Pool(self._config, make_runner, queue, error_row)
        try:
            yield from pool.results()
        finally:
            pool.stop()


@dataclass(frozen=True)
class _Ready:
    room: int


@dataclass
class _Worker(Generic[Job]):
    process: BaseProcess
    pipe: Connection
    heard: float  # when it last showed a sign of life, seconds of time.monotonic
    is_ready: bool = False
    free: list[int | None] = field(default_factory=list)  # tasks in memory that no job uses
    held: list[Job] = field(default_factory=list)
    given: int = 0  # jobs so far

    def patience(self, hang_s: float) -> float:
        """Seconds from now until it counts as hung."""
        if self.is_ready and not self.held:
            return float("inf")
        return self.heard + (hang_s if self.is_ready else START_S) - time.monotonic()


class _Pool(Generic[Job, Result]):
    """The parent's side: which worker runs what."""

    def __init__(
        self,
        config: ProcessesConfig,
        make_runner: Callable[[], Runner[Job, Result]],
        queue: JobQueue[Job],
        error_row: Callable[[Job, str], Result],
    ) -> None:
        self._config, self._make_runner = config, make_runner
        self._queue, self._error_row = queue, error_row
        self._workers: list[_Worker[Job]] = []
        self._failed_starts = 0
        self._context = multiprocessing.get_context("spawn")

    def results(self) -> Iterator[Result]:
        """Run everything; see `Executor.run`."""
        while any(worker.held for worker in self._workers) or not self._queue.is_empty():
            self._start_workers()
            while any([self._hand_out(worker) for worker in list(self._workers)]):
                pass
            yield from self._wait()

    def stop(self) -> None:
        """End all workers: idle ones by themselves, busy ones by force."""
        for worker in self._workers:
            if worker.is_ready and not worker.held:
                _send(worker.pipe, None)
            else:
                worker.process.terminate()
        while self._workers:
            self._remove(self._workers[0])

    def _start_workers(self) -> None:
        unused = sum(not worker.held for worker in self._workers)
        places = self._config.workers - len(self._workers)
        for _ in range(min(places, self._queue.useful_processes(unused + places) - unused)):
            ours, theirs = self._context.Pipe()
            process = self._context.Process(
                target=_serve, args=(theirs, self._make_runner), daemon=True
            )
            with one_thread(), _interrupts_held():
                process.start()
            theirs.close()
            self._workers.append(_Worker(process, ours, time.monotonic()))

    def _hand_out(self, worker: _Worker[Job]) -> bool:
        """Give a worker one job if it can take one; returns whether it got one."""
        if not worker.is_ready or not worker.free:
            return False
        if worker.given >= self._config.recycle:
            if not worker.held:
                _send(worker.pipe, None)
                self._remove(worker)
            return False
        job = self._queue.take(worker.free[-1], worker.held)
        if job is None:
            return False
        if not _send(worker.pipe, job):
            self._queue.give_back(job)  # it died while idle
            return False
        worker.free.pop()
        worker.held.append(job)
        worker.given += 1
        worker.heard = time.monotonic()
        return True

    def _wait(self) -> Iterator[Result]:
        """Attend to workers that sent something, died or hang; blocks until one does."""
        handles = [w.pipe for w in self._workers] + [w.process.sentinel for w in self._workers]
        if not handles:
            return
        patience = min(worker.patience(self._config.hang_s) for worker in self._workers)
        ready = set(wait(handles, None if patience == float("inf") else max(0.0, patience)))
        for worker in list(self._workers):
            if worker.pipe in ready or worker.process.sentinel in ready:
                yield from self._attend(worker)
            elif worker.patience(self._config.hang_s) <= 0:
                worker.process.kill()
                silent_s = round(time.monotonic() - worker.heard)
                yield from self._handle_worker_death(
                    worker, f"showed no sign of life for {silent_s} s"
                )

    def _attend(self, worker: _Worker[Job]) -> Iterator[Result]:
        """Take the message of a worker that has one, or bury it."""
        try:
            message = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, OSError):  # OSError: it died in the middle of a message
            message = None
        if message is None:
            yield from self._handle_worker_death(worker, None)
            return
        if isinstance(message, UserError):
            raise message
        worker.heard = time.monotonic()
        if isinstance(message, _Ready):
            worker.is_ready, worker.free = True, [None] * message.room
            self._failed_starts = 0
            return
        for job, result in message:
            worker.held.remove(job)
            worker.free.append(job.task_id)
            self._queue.done(job)
            yield result

    def _handle_worker_death(self, worker: _Worker[Job], why: str | None) -> Iterator[Result]:
        code = self._remove(worker)
        why = why or f"died with {_exit_code(code)}"
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise UserError(
                    f"{START_ATTEMPTS} worker processes in a row ended before they were ready, the "
                    f"last one {why}: see their messages above; --workers 0 runs in this process"
                )
            return
        logger.warning("a worker %s, holding %s", why, worker.held or "nothing")
        for job in self._queue.lost(worker.held):
            yield self._error_row(job, f"its worker process was lost twice; the last one {why}")

    def _remove(self, worker: _Worker[Job]) -> int | None:
        """Wait for its end, which was asked for or has come; returns the exit code."""
        worker.process.join(timeout=10)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        return worker.process.exitcode


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """A child begun inside never dies of a Ctrl-C, not even before `_serve` ignores it."""
    resource_tracker.ensure_running()  # its start would let interrupts through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_code(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    hint = ", as when memory runs out" if -code == signal.SIGKILL else ""
    return f"exit code {code} ({signal.Signals(-code).name}{hint})"


def _serve(pipe: Connection, make_runner: Callable[[], Runner[Any, Any]]) -> None:
    """A worker's life: make the runner, say so, run jobs until None comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us
    threading.Thread(target=end_with_parent, daemon=True).start()
    runner: Runner[Any, Any] | None = None
    try:
        runner = make_runner()
        pipe.send(_Ready(runner.room))
        _work(pipe, runner)
    except UserError as error:
        _send(pipe, error)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        logger.debug("the parent is gone")
    finally:
        if runner is not None:
            runner.close()


def _work(pipe: Connection, runner: Runner[Any, Any]) -> None:
    held, told = 0, time.monotonic()
    while True:
        while not held or pipe.poll():
            job = pipe.recv()
            if job is None:
                return
            runner.start(job)
            held += 1
        ended: Sequence[tuple[Any, Any]] = runner.advance()
        held -= len(ended)
        if ended or time.monotonic() - told > HEARTBEAT_S:
            pipe.send(ended)
            told = time.monotonic()


def _send(pipe: Connection, message: object) -> bool:
    try:
        pipe.send(message)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True
