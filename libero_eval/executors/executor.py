"""The interface of executors: where episodes run, in this process, in several, or on many machines.

An executor takes jobs from a `JobQueue`, gives them to runners (one per process, made there by
`make_runner`), and yields one result per job, in the order in which they end. A runner holds up to
`capacity` jobs at a time. What goes wrong inside a job is the runner's to report as a result; what
kills or hangs the process is the executor's: the queue gives such a job one more try, alone in its
process, and then its result is `error_row(job, reason)`. Results never depend on the executor.

    queue = JobQueue(jobs)
    for row in executor.run(make_runner, queue, error_row): ...
"""

from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import draccus

RETRIES = 1  # of a job that was alone in a process that died or hung


class HasTask(Protocol):
    """What an executor knows of a job; it is also hashable and picklable."""

    @property
    def task_id(self) -> int: ...


Job = TypeVar("Job", bound=HasTask)
Result = TypeVar("Result")


class Runner(Protocol):
    """Runs jobs in one process. capacity: how many it holds at a time.

    A UserError that `start` or `advance` raises ends the whole run; any other exception counts as
    the death of the process.
    """

    @property
    def capacity(self) -> int: ...

    def start(self, job: Any) -> None:
        """Take a job; called only while fewer than `capacity` are held."""
        ...

    def advance(self) -> Sequence[tuple[Any, Any]]:
        """Go on a little with the jobs held; returns (job, result) of those that ended."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


MakeRunner = Callable[[], Runner]
ErrorRow = Callable[[Any, str], Any]  # (job, reason) -> its result
Results = Generator[Any, None, None]


class OneByOne(Generic[Job, Result]):
    """A function of a job as a runner."""

    capacity = 1

    def __init__(self, function: Callable[[Job], Result]) -> None:
        self._function = function
        self._jobs: list[Job] = []

    def start(self, job: Job) -> None:
        self._jobs.append(job)

    def advance(self) -> list[tuple[Job, Result]]:
        job = self._jobs.pop()
        return [(job, self._function(job))]

    def close(self) -> None:
        """Nothing to free that the process would not."""


class Executor(Protocol):
    """Runs the jobs of a queue until it is empty or closed."""

    def run(self, make_runner: MakeRunner, queue: "JobQueue[Job]", error_row: ErrorRow) -> Results:
        """Yield the result of every job taken from the queue, as they end.

        make_runner: picklable; called once in every process. error_row: result of a job whose
        process died or hung again on its retry. Closing the generator ends all processes at once.
        Errors: UserError of a runner, or if processes cannot start.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class ExecutorConfig(draccus.ChoiceRegistry):
    """Where the episodes run; results do not depend on it."""

    @abstractmethod
    def build(self) -> Executor:
        """The executor. Raises UserError if what it needs is missing."""


class JobQueue(Generic[Job]):
    """The jobs that wait, and what is known of those that are out. For the parent process only.

    jobs: a sequence is known whole, so that a process can be given jobs of the task it has in
    memory; anything else is pulled one by one, so that the caller may stop producing.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        is_known = isinstance(jobs, Sequence)
        self._waiting: dict[int, deque[Job]] = {}
        self._more = iter(() if is_known else jobs)
        self._is_ended = is_known
        self._jobs_to_isolate: deque[Job] = deque()  # were in a process that died: run alone
        self._isolated: set[Job] = set()
        self._failures: Counter[Job] = Counter()
        self._out: Counter[int] = Counter()
        self.is_closed = False
        for job in jobs if is_known else ():
            self._put(job)

    def close(self) -> None:
        """Hand out nothing more; jobs that are out may end."""
        self.is_closed = True

    def is_empty(self) -> bool:
        """Whether nothing is left to hand out now; a lost job may come back."""
        if not self.is_closed and not self._num_waiting():
            self._pull()
        return self.is_closed or not self._num_waiting()

    def useful_processes(self, most: int) -> int:
        """How many processes more the waiting jobs can use, at most `most`."""
        if self.is_closed:
            return 0
        return min(most, self._num_waiting()) if self._is_ended else most

    def take(self, last_task: int | None, assigned: Sequence[Job]) -> Job | None:
        """The next job for a process, or None if there is none for it now.

        last_task: the task that the process has in memory and could go on with. assigned: its jobs.
        """
        if self.is_closed or any(job in self._isolated for job in assigned):
            return None
        if self._jobs_to_isolate and not assigned:
            job = self._jobs_to_isolate.popleft()
        else:
            if not any(self._waiting.values()):
                self._pull()
            tasks = [task for task, jobs in self._waiting.items() if jobs]
            if not tasks:
                return None
            if last_task not in tasks:  # the task with most left per process that is on it
                last_task = max(tasks, key=lambda t: len(self._waiting[t]) / (1 + self._out[t]))
            job = self._waiting[last_task].popleft()
        self._out[job.task_id] += 1
        return job

    def done(self, job: Job) -> None:
        """A job that was out has a result."""
        self._out[job.task_id] -= 1

    def lost(self, jobs: Sequence[Job]) -> list[Job]:
        """Take back the jobs of a process that died or hung; returns those that had their retry.

        Only a job that was alone is surely the cause; those that had company are tried alone first.
        """
        given_up = []
        for job in jobs:
            self._out[job.task_id] -= 1
            self._isolated.add(job)
            self._failures[job] += len(jobs) == 1
            (given_up if self._failures[job] > RETRIES else self._jobs_to_isolate).append(job)
        return given_up

    def give_back(self, job: Job) -> None:
        """Return a job that was taken and never begun."""
        self._out[job.task_id] -= 1
        self._waiting.setdefault(job.task_id, deque()).appendleft(job)

    def _num_waiting(self) -> int:
        return len(self._jobs_to_isolate) + sum(map(len, self._waiting.values()))

    def _put(self, job: Job) -> None:
        self._waiting.setdefault(job.task_id, deque()).append(job)

    def _pull(self) -> None:
        for job in self._more:
            self._put(job)
            return
        self._is_ended = True


class Assignments(Generic[Job]):
    """The jobs of one runner, and the tasks that it has in memory for its next ones."""

    def __init__(self, queue: JobQueue[Job], capacity: int) -> None:
        self.jobs: list[Job] = []
        self._queue = queue
        self._idle_tasks: list[int | None] = [None] * capacity

    def take(self) -> Job | None:
        """One more job from the queue, if the runner has room and there is one for it."""
        job = self._queue.take(self._idle_tasks[-1], self.jobs) if self._idle_tasks else None
        if job is not None:
            self._idle_tasks.pop()
            self.jobs.append(job)
        return job

    def give_back(self, job: Job) -> None:
        """A job that was taken could not be begun: the runner is gone."""
        self.jobs.remove(job)
        self._queue.give_back(job)

    def done(self, job: Job) -> None:
        """One of the jobs has a result."""
        self.jobs.remove(job)
        self._idle_tasks.append(job.task_id)
        self._queue.done(job)


@ExecutorConfig.register_subclass("serial")
@dataclass(frozen=True, kw_only=True)
class SerialConfig(ExecutorConfig):
    """In this process. A crash of a native library ends the run, which then goes on when repeated."""

    def build(self) -> Executor:
        return Serial()


class Serial:
    """See `SerialConfig`. An exception that the runner does not report leaves the command."""

    def run(self, make_runner: MakeRunner, queue: JobQueue[Job], error_row: ErrorRow) -> Results:
        """See `Executor.run`."""
        if queue.is_empty():
            return
        runner = make_runner()
        assigned = Assignments(queue, runner.capacity)
        try:
            while True:
                while (job := assigned.take()) is not None:
                    runner.start(job)
                if not assigned.jobs:
                    return
                for job, result in runner.advance():
                    assigned.done(job)
                    yield result
        finally:
            runner.close()
