"""What executors with several workers share: who gets which job, and what a death or a hang costs.

A worker is a process with a runner. How one is started and talked to is its executor's affair.
"""

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from invact_vla.core.errors import UserError
from libero_eval.executors.executor import (
    Assignments,
    ErrorRow,
    Job,
    JobQueue,
    MakeRunner,
    Results,
)

logger = logging.getLogger(__name__)

START_ATTEMPTS = 3  # workers in a row that may end before they are ready


class Worker(Generic[Job]):
    """A worker as its parent sees it. last_heartbeat: its last sign of life, s of time.monotonic."""

    def __init__(self) -> None:
        self.assigned: Assignments[Job] | None = None  # none until it is ready
        self.num_jobs = 0  # so far
        self.last_heartbeat = time.monotonic()

    @property
    def jobs(self) -> list[Job]:
        """Those that it has now."""
        return [] if self.assigned is None else self.assigned.jobs


@dataclass(frozen=True)
class Ready:
    """A worker's first message."""

    capacity: int  # of its runner


@dataclass(frozen=True)
class Lost:
    """What a pool says of a worker that died."""

    why: str  # how, after "the last one"


WorkerT = TypeVar("WorkerT", bound=Worker[Any])


class WorkerPool(ABC, Generic[WorkerT]):
    """An executor that keeps workers at work until the queue is empty.

    noun: what a worker is called. start_s: how long one may be silent before it is ready; config:
    `workers`, how many, and `hang_s`, their longest silence after it.
    """

    noun: str
    start_s: float
    recycle: float = math.inf  # jobs after which a worker is replaced

    def __init__(self, config: Any) -> None:
        self.config = config
        self.workers: list[WorkerT] = []

    @abstractmethod
    def launch(self, make_runner: MakeRunner) -> WorkerT:
        """Start a worker; its first message is `Ready`, or a UserError."""

    @abstractmethod
    def send(self, worker: WorkerT, job: Any) -> bool:
        """Give a worker a job; False if it is dead."""

    @abstractmethod
    def receive(self, timeout_s: float) -> Iterable[tuple[WorkerT, object]]:
        """What workers say by then, at least one of them unless the time is over: Ready, Lost, a
        UserError, or the (job, result) of jobs that ended, none of them as a sign of life."""

    @abstractmethod
    def stop(self, worker: WorkerT) -> None:
        """Make a worker end, by itself if it is idle, else by force; does not wait for it."""

    def join(self, worker: WorkerT) -> None:
        """Wait for the end of a worker that was stopped."""

    @abstractmethod
    def cannot_start(self, count: int, why: str) -> str:
        """The message when `count` workers in a row were never ready."""

    def run(self, make_runner: MakeRunner, queue: JobQueue[Job], error_row: ErrorRow) -> Results:
        """See `Executor.run`."""
        self.workers, self._failed_starts = [], 0
        self._queue, self._error_row = queue, error_row
        try:
            while any(worker.jobs for worker in self.workers) or not queue.is_empty():
                unused = sum(not worker.jobs for worker in self.workers)
                places = self.config.workers - len(self.workers)
                for _ in range(min(places, queue.useful_processes(unused + places) - unused)):
                    self.workers.append(self.launch(make_runner))
                while any([self._assign(worker) for worker in list(self.workers)]):
                    pass
                yield from self._wait()
        finally:
            for worker in self.workers:
                self.stop(worker)
            for worker in self.workers:
                self.join(worker)

    def _assign(self, worker: WorkerT) -> bool:
        """Give a worker one job if it can take one; returns whether it got one."""
        if worker.assigned is None:
            return False
        if worker.num_jobs >= self.recycle:
            if not worker.jobs:
                self._remove(worker)
            return False
        job = worker.assigned.take()
        if job is None:
            return False
        if not self.send(worker, job):
            worker.assigned.give_back(job)  # it died while idle
            return False
        worker.num_jobs += 1
        worker.last_heartbeat = time.monotonic()
        return True

    def _patience_s(self, worker: WorkerT) -> float:
        """Seconds from now until a worker counts as hung."""
        if worker.assigned is not None and not worker.jobs:
            return math.inf
        limit = self.start_s if worker.assigned is None else self.config.hang_s
        return worker.last_heartbeat + limit - time.monotonic()

    def _wait(self) -> Iterator[Any]:
        """Attend to workers that sent something, died or hang; blocks until one does."""
        patience_s = min(map(self._patience_s, self.workers), default=0.0)
        for worker, message in self.receive(max(0.0, patience_s)):
            yield from self._attend(worker, message)
        for worker in list(self.workers):
            if self._patience_s(worker) <= 0:
                silent_s = round(time.monotonic() - worker.last_heartbeat)
                why = f"showed no sign of life for {silent_s} s"
                yield from self._handle_worker_death(worker, why, has_hung=True)

    def _attend(self, worker: WorkerT, message: Any) -> Iterator[Any]:
        if isinstance(message, UserError):
            raise message
        if isinstance(message, Lost):
            yield from self._handle_worker_death(worker, message.why)
            return
        worker.last_heartbeat = time.monotonic()
        if isinstance(message, Ready):
            worker.assigned = Assignments(self._queue, message.capacity)
            self._failed_starts = 0
            return
        assert worker.assigned is not None
        for job, result in message:
            worker.assigned.done(job)
            yield result

    def _handle_worker_death(
        self, worker: WorkerT, why: str, has_hung: bool = False
    ) -> Iterator[Any]:
        self._remove(worker)
        if worker.assigned is None:
            self._failed_starts += 1
            if has_hung or self._failed_starts >= START_ATTEMPTS:
                raise UserError(self.cannot_start(self._failed_starts, why))
            return
        logger.warning("a %s %s, holding %s", self.noun, why, worker.jobs or "nothing")
        for job in self._queue.lost(worker.jobs):
            yield self._error_row(job, f"its {self.noun} was lost twice; the last one {why}")

    def _remove(self, worker: WorkerT) -> None:
        self.stop(worker)
        self.join(worker)
        self.workers.remove(worker)
