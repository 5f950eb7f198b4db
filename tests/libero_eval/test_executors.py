"""Executors give every job one result, whatever becomes of their processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from libero_eval.executors import (
    ExecutorConfig,
    JobLost,
    JobQueue,
    OneByOne,
    ProcessesConfig,
    SerialConfig,
    run_all,
)
from libero_eval.rollout.episode import Job
from tests.paths import REPOSITORY

JOBS = [Job(task, init) for task in (0, 1) for init in range(5)]
Answer = tuple[Job, int, str]  # job, process, ""; or the reason of an error


@dataclass(frozen=True)
class ToyFactory:
    """killer: the init state of task 0 that kills its process. sleep_s: duration of each job."""

    capacity: int = 1
    killer: int | None = None
    sleep_s: float = 0.0

    def __call__(self) -> "Toy":
        return Toy(self)


class Toy:
    def __init__(self, make: ToyFactory) -> None:
        self.capacity, self._make = make.capacity, make
        self.assigned: list[Job] = []

    def start(self, job: Job) -> None:
        assert len(self.assigned) < self.capacity
        self.assigned.append(job)

    def advance(self) -> list[tuple[Job, Answer]]:
        time.sleep(self._make.sleep_s)
        if len(self.assigned) == self.capacity and any(self._kills(job) for job in self.assigned):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(self._kills(job) for job in self.assigned) and self.capacity > 1:
            os._exit(5)
        job = self.assigned.pop(0)
        return [(job, (job, os.getpid(), ""))]

    def _kills(self, job: Job) -> bool:
        return job == Job(0, -1 if self._make.killer is None else self._make.killer)

    def close(self) -> None:
        pass


def failed(job: Job, reason: str) -> Answer:
    return job, 0, reason


def answers(config: ExecutorConfig, make: ToyFactory, queue: JobQueue[Job]) -> list[Answer]:
    return sorted(config.build().run(make, queue, failed), key=lambda answer: str(answer[0]))


@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.parametrize("config", [SerialConfig(), ProcessesConfig(workers=2)])
def test_every_job_has_one_result(config: ExecutorConfig, capacity: int) -> None:
    for jobs in (JOBS, iter(JOBS)):
        assert [a[0] for a in answers(config, ToyFactory(capacity), JobQueue(jobs))] == JOBS
    assert answers(config, ToyFactory(capacity), JobQueue([])) == []


def test_workers_are_replaced_before_they_leak() -> None:
    config = ProcessesConfig(workers=1, recycle=4)
    assert len({a[1] for a in answers(config, ToyFactory(), JobQueue(JOBS))}) == 3


@pytest.mark.parametrize("capacity", [1, 3])
def test_only_the_job_that_kills_is_given_up(capacity: int) -> None:
    config = ProcessesConfig(workers=2)
    reasons = {a[0]: a[2] for a in answers(config, ToyFactory(capacity, killer=2), JobQueue(JOBS))}
    assert [job for job in JOBS if reasons[job]] == [Job(0, 2)]
    assert "lost twice" in reasons[Job(0, 2)]


def test_a_process_goes_on_with_the_task_in_memory_and_tasks_are_spread() -> None:
    queue = JobQueue(JOBS)
    first, second = queue.take(None, []), queue.take(None, [])
    assert {first, second} == {Job(0, 0), Job(1, 0)}
    assert queue.take(1, []) == Job(1, 1) and queue.take(0, []) == Job(0, 1)


def test_a_lost_job_runs_alone_and_only_then_counts() -> None:
    queue = JobQueue(JOBS[:4])
    out = [queue.take(0, []) for _ in range(3)]
    lost = [job for job in out if job is not None]
    assert queue.lost(lost) == []
    assert queue.take(0, [JOBS[3]]) == JOBS[3] and queue.take(0, [JOBS[3]]) is None
    for _ in range(2):
        again = queue.take(0, [])
        assert again is not None and queue.take(0, [again]) is None
    assert queue.lost([lost[0]]) == [] and queue.take(0, []) == lost[2]
    assert queue.take(0, []) == lost[0] and queue.lost([lost[0]]) == [lost[0]]


def test_jobs_of_an_iterator_are_made_when_they_are_needed() -> None:
    made: list[Job] = []

    def produce() -> Iterator[Job]:
        for job in JOBS:
            made.append(job)
            yield job

    for number, (job, _, _) in enumerate(run_all(ToyFactory(), produce(), 0)):
        assert job == JOBS[number] and len(made) == number + 1


def test_a_closed_queue_lets_running_jobs_end() -> None:
    queue = JobQueue(JOBS)
    ended = []
    for answer in ProcessesConfig(workers=2).build().run(ToyFactory(), queue, failed):
        queue.close()
        ended.append(answer)
    assert 1 <= len(ended) <= 3


def explode(job: Job) -> int:
    raise ZeroDivisionError(job)


def make_exploding() -> OneByOne[Job, int]:
    return OneByOne(explode)


def test_a_lost_job_of_a_stage_is_an_exception(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_all(make_exploding, JOBS, 0))
    with pytest.raises(JobLost, match=r"init_index=0.*exit code 1"):
        list(run_all(make_exploding, JOBS[:1], 1))
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_config_is_checked() -> None:
    for bad in ({"workers": 0}, {"hang_s": 0.5}, {"recycle": 0}):
        with pytest.raises(ValueError, match="need workers"):
            ProcessesConfig(**bad)  # type: ignore[arg-type]


ORPHANS = """
import sys
from libero_eval.executors import JobQueue, ProcessesConfig
from tests.libero_eval.test_executors import JOBS, ToyFactory, failed
for job, process, _ in ProcessesConfig(workers=1).build().run(
    ToyFactory(sleep_s=float(sys.argv[1])), JobQueue(JOBS), failed
):
    print(process, flush=True)
"""


def test_workers_end_with_their_parent_in_the_middle_of_a_job() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHANS, "1.5"], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = Path(f"/proc/{int(parent.stdout.readline())}")
    assert worker.exists()
    parent.kill()  # a job of 1.5 s has just begun
    parent.wait()
    parent.stdout.close()
    until = time.monotonic() + 1.0
    while _is_running(worker):
        assert time.monotonic() < until
        time.sleep(0.02)


def _is_running(process: Path) -> bool:
    try:
        return process.joinpath("stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
