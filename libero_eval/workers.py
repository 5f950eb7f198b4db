"""Episodes on several processes: same outcomes as on one, and no episode lost or doubled.

Each worker is a spawned process (its GL context is made after the fork that never happens) with one
torch thread, holding one policy and one simulator at a time. The parent hands out one episode at a
time, preferring the task a worker already has in memory. A worker that dies costs its episode one
retry, then an error row. Ctrl-C stops the workers; what was handed back stays handed back.
"""

import logging
import multiprocessing
import os
import signal
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from invact_vla.errors import UserError
from libero_eval.results import EpisodeRow

logger = logging.getLogger(__name__)

RETRIES = 1  # of an episode whose worker died
START_ATTEMPTS = 3  # workers in a row that may die before they are ready
# LP: llvmpipe, which renders on the CPU
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "LP_NUM_THREADS",
)


@dataclass(frozen=True)
class Job:
    """One episode to run. film: keep a video of it."""

    task_id: int
    init_index: int
    film: bool = False


class Runner(Protocol):
    """Runs episodes in one process; what goes wrong inside one becomes an error row."""

    def __call__(self, job: Job) -> EpisodeRow: ...

    def close(self) -> None: ...


MakeRunner = Callable[[], Runner]
ErrorRow = Callable[[Job, str], EpisodeRow]


def run_jobs(
    make_runner: MakeRunner, jobs: Iterable[Job], error_row: ErrorRow, workers: int
) -> Generator[EpisodeRow, None, None]:
    """Yield one row per job, in the order in which they end.

    make_runner: called once in each process; must be picklable if workers > 0. error_row: makes the
    row of an episode that killed its worker twice. workers: processes; 0 runs in this process.
    Raises UserError if a worker cannot start.
    """
    if workers == 0:
        yield from _run_here(make_runner, jobs)
        return
    pool = _Pool(make_runner, list(jobs), error_row, workers)
    try:
        yield from pool.rows()
    finally:
        pool.stop()


def _run_here(make_runner: MakeRunner, jobs: Iterable[Job]) -> Iterator[EpisodeRow]:
    runner = make_runner()
    try:
        for job in jobs:
            yield runner(job)
    finally:
        runner.close()


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    is_ready: bool = False
    task_id: int | None = None
    job: Job | None = None


class _Pool:
    """The parent's side: which worker runs what, and what is still to do."""

    def __init__(
        self, make_runner: MakeRunner, jobs: list[Job], error_row: ErrorRow, workers: int
    ) -> None:
        self._make_runner, self._error_row, self._size = make_runner, error_row, workers
        self._pending: dict[int, deque[Job]] = {}
        for job in jobs:
            self._pending.setdefault(job.task_id, deque()).append(job)
        self._workers: list[_Worker] = []
        self._deaths: Counter[Job] = Counter()
        self._failed_starts = 0
        self._context = multiprocessing.get_context("spawn")

    def rows(self) -> Iterator[EpisodeRow]:
        """Run everything; see `run_jobs`."""
        while True:
            waiting = sum(map(len, self._pending.values()))
            busy = sum(worker.job is not None for worker in self._workers)
            if not waiting and not busy:
                return
            while len(self._workers) < min(self._size, waiting + busy):
                self._workers.append(self._start())
            for worker in self._workers:
                if worker.is_ready and worker.job is None:
                    self._hand_out(worker)
            yield from self._wait()

    def stop(self) -> None:
        """End all workers: idle ones by themselves, busy ones by force."""
        for worker in self._workers:
            if worker.job is None and worker.is_ready:
                _send(worker.pipe, None)
            else:
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=10)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers.clear()

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_serve, args=(theirs, self._make_runner), daemon=True
        )
        with _one_thread():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _wait(self) -> Iterator[EpisodeRow]:
        ready = set(
            wait([w.pipe for w in self._workers] + [w.process.sentinel for w in self._workers])
        )
        for worker in list(self._workers):
            if worker.pipe in ready or worker.process.sentinel in ready:
                yield from self._attend(worker)

    def _attend(self, worker: _Worker) -> Iterator[EpisodeRow]:
        """Take the message of a worker that has one, or bury it."""
        try:
            message = worker.pipe.recv() if worker.pipe.poll() else None
        except (EOFError, ConnectionResetError):
            message = None
        if message is None:
            yield from self._bury(worker)
            return
        if isinstance(message, UserError):
            raise message
        worker.is_ready, self._failed_starts = True, 0
        if isinstance(message, EpisodeRow):
            worker.job = None
            yield message

    def _hand_out(self, worker: _Worker) -> None:
        job = self._next_job(worker.task_id)
        if job is not None and _send(worker.pipe, job):
            worker.job, worker.task_id = job, job.task_id
        elif job is not None:
            self._pending.setdefault(job.task_id, deque()).appendleft(job)

    def _next_job(self, task_id: int | None) -> Job | None:
        """From the same task if possible, else from the one with most left per worker on it."""
        waiting = {task: jobs for task, jobs in self._pending.items() if jobs}
        if not waiting:
            return None
        if task_id not in waiting:
            there = Counter(worker.task_id for worker in self._workers if worker.job is not None)
            task_id = max(waiting, key=lambda task: len(waiting[task]) / (1 + there[task]))
        return waiting[task_id].popleft()

    def _bury(self, worker: _Worker) -> Iterator[EpisodeRow]:
        worker.process.join()
        worker.pipe.close()
        self._workers.remove(worker)
        code = worker.process.exitcode
        if not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise UserError(
                    f"{START_ATTEMPTS} worker processes in a row ended before they were ready, the "
                    f"last with exit code {code}: see their messages above; --workers 0 runs in "
                    "this process"
                )
            return
        if worker.job is None:
            return
        job = worker.job
        self._deaths[job] += 1
        logger.warning("worker died (exit code %s) in %s", code, job)
        if self._deaths[job] <= RETRIES:
            self._pending.setdefault(job.task_id, deque()).appendleft(job)
        else:
            yield self._error_row(job, f"the worker process died twice, last with exit code {code}")


def _serve(pipe: Connection, make_runner: MakeRunner) -> None:
    """A worker's life: make the runner, say so, run jobs until None comes or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which stops us
    try:
        runner = make_runner()
    except UserError as error:
        _send(pipe, error)
        return
    _send(pipe, "ready")
    try:
        while (job := pipe.recv()) is not None:
            try:
                answer: EpisodeRow | UserError = runner(job)
            except UserError as error:
                answer = error
            if not _send(pipe, answer):
                break
    except EOFError:
        logger.debug("the parent is gone")
    finally:
        runner.close()


def _send(pipe: Connection, message: object) -> bool:
    try:
        pipe.send(message)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


@contextmanager
def _one_thread() -> Iterator[None]:
    """Children started inside use one thread a library, whatever the parent does."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
