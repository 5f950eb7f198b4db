"""Run deterministic jobs in spawned processes: results as they come, one thread a process.

Smaller than `workers`, for jobs whose failure stops the command. A job must be a pure function, so
that the number of workers changes nothing but the time.
"""

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from invact_vla.errors import UserError

Runner = Callable[[Any], Any]
# llvmpipe (rendering on the CPU) and the numeric libraries each start a thread a core otherwise
ONE_THREAD = {
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "LP_NUM_THREADS": "1",
}  # fmt: skip


class WorkerDied(RuntimeError):
    """A worker process ended without an answer, or its job raised; the message says why."""


def run_jobs(
    make_runner: Callable[[], Runner], jobs: Iterator[Any], workers: int
) -> Iterator[tuple[Any, Any]]:
    """Yield (job, result) in the order of completion.

    make_runner: picklable; called once in every process. jobs: pulled one by one when a process is
    free, so that the caller may stop producing them. workers: processes; 0 runs in this one.
    Errors: a UserError of a job is raised here; any other exception becomes WorkerDied.
    """
    if workers == 0:
        runner = make_runner()
        for job in jobs:
            yield job, runner(job)
        return
    processes = []
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        for _ in range(workers):
            processes.append(_start(make_runner))
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    try:
        yield from _feed([pipe for _, pipe in processes], jobs)
    finally:
        for process, pipe in processes:
            pipe.close()
            process.join(timeout=5)
            if process.is_alive():
                process.kill()


def _start(make_runner: Callable[[], Runner]) -> tuple[Any, Connection]:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, make_runner), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _feed(pipes: list[Connection], jobs: Iterator[Any]) -> Iterator[tuple[Any, Any]]:
    """Keep every process busy with the next job until there is none."""
    running: dict[Connection, Any] = {}

    def hand_out(pipe: Connection) -> None:
        for job in jobs:
            running[pipe] = job
            pipe.send(job)
            return

    for pipe in pipes:
        hand_out(pipe)
    while running:
        for ready in wait(list(running)):
            assert isinstance(ready, Connection)
            job = running.pop(ready)
            yield job, _answer(ready, job)
            hand_out(ready)


def _answer(pipe: Connection, job: Any) -> Any:
    try:
        kind, value = pipe.recv()
    except (EOFError, ConnectionResetError) as error:
        raise WorkerDied(f"the process that ran {job} died without a word") from error
    if kind == "user error":
        raise UserError(value)
    if kind == "exception":
        raise WorkerDied(f"{job} failed:\n{value}")
    return value


def _serve(pipe: Connection, make_runner: Callable[[], Runner]) -> None:
    """A worker's life: answer jobs until the parent closes the pipe or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    runner: Runner | None = None
    try:
        while True:
            job = pipe.recv()
            try:
                runner = runner or make_runner()
                pipe.send(("result", runner(job)))
            except UserError as error:
                pipe.send(("user error", str(error)))
            except Exception:  # noqa: BLE001 - handed to the parent, which raises it
                pipe.send(("exception", traceback.format_exc()))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
