"""The interface of executors: where episodes run, one process, several, or many machines.

An executor pulls jobs from a `JobQueue`, gives them to runners (one in each process, made there by
`make_runner`), and yields one result a job, in the order in which they end. A runner holds up to
`room` jobs at a time. What goes wrong inside a job is the runner's to report as a result; what kills
or hangs the process is the executor's: the queue gives such a job one more try, alone in its
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
JobIn_contra = TypeVar("JobIn_contra", bound=HasTask, contravariant=True)
Result = TypeVar("Result")
ResultOut_co = TypeVar("ResultOut_co", covariant=True)


class Runner(Protocol[JobIn_contra, ResultOut_co]):
    """Runs jobs in one process. room: how many it holds at a time.

    A UserError that `start` or `advance` raises ends the whole run; any other exception counts as
    the death of the process.
    """

    @property
    def room(self) -> int: ...

    def start(self, job: JobIn_contra) -> None:
        """Take a job; called only while fewer than `room` are held."""
        ...

    def advance(self) -> Sequence[tuple[Any, ResultOut_co]]:
        """Go on a little with the jobs held; returns (job, result) of those that ended."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class OneByOne(Generic[Job, Result]):
    """A function of a job as a runner."""

    room = 1

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

    def run(
        self,
        make_runner: Callable[[], Runner[Job, Result]],
        queue: "JobQueue[Job]",
        error_row: Callable[[Job, str], Result],
    ) -> Generator[Result, None, None]:
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
        self._suspects: deque[Job] = deque()  # were in a process that died: run alone
        self._retry_alone: set[Job] = set()
        self._deaths: Counter[Job] = Counter()
        self._out: Counter[int] = Counter()
        self.is_closed = False
        for job in jobs if is_known else ():
            self._put(job)

    def close(self) -> None:
        """Hand out nothing more; jobs that are out may end."""
        self.is_closed = True

    def is_empty(self) -> bool:
        """Whether nothing is left to hand out now; a lost job may come back."""
        if self.is_closed:
            return True
        if not self._known():
            self._pull()
        return not self._known()

    def useful_processes(self, most: int) -> int:
        """How many processes more the waiting jobs can use, at most `most`."""
        if self.is_closed:
            return 0
        return min(most, self._known()) if self._is_ended else most

    def take(self, last_task: int | None, held: Sequence[Job]) -> Job | None:
        """The next job for a process, or None if there is none for it now.

        last_task: the task that the process has in memory and could go on with. held: its jobs.
        """
        if self.is_closed or any(job in self._retry_alone for job in held):
            return None
        if self._suspects and not held:
            return self._gone_out(self._suspects.popleft())
        if not any(self._waiting.values()):
            self._pull()
        tasks = [task for task, jobs in self._waiting.items() if jobs]
        if not tasks:
            return None
        if last_task not in tasks:  # the task with most left for each process that is on it
            last_task = max(tasks, key=lambda t: len(self._waiting[t]) / (1 + self._out[t]))
        return self._gone_out(self._waiting[last_task].popleft())

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
            self._retry_alone.add(job)
            self._deaths[job] += len(jobs) == 1
            if self._deaths[job] > RETRIES:
                given_up.append(job)
            else:
                self._suspects.append(job)
        return given_up

    def give_back(self, job: Job) -> None:
        """Return a job that was taken and never begun."""
        self._out[job.task_id] -= 1
        self._waiting.setdefault(job.task_id, deque()).appendleft(job)

    def _known(self) -> int:
        return len(self._suspects) + sum(map(len, self._waiting.values()))

    def _put(self, job: Job) -> None:
        self._waiting.setdefault(job.task_id, deque()).append(job)

    def _pull(self) -> None:
        for job in self._more:
            self._put(job)
            return
        self._is_ended = True

    def _gone_out(self, job: Job) -> Job:
        self._out[job.task_id] += 1
        return job
