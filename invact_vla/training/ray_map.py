"""Work spread over the actors of a Ray cluster, on this machine or many."""

import importlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from invact_vla.core.errors import UserError

Job = TypeVar("Job")
Result = TypeVar("Result")
LOCAL = "local"


class _Actor:
    """One process: a function that is made for the first job and called for each."""

    def __init__(self, make: Sequence[Callable[[], Callable[[Any], Any]]]) -> None:
        self._make, self._work = make[0], None

    def work(self, job: Any) -> Any:
        self._work = self._work or self._make()
        return self._work(job)


def ray_map(
    make: Callable[[], Callable[[Job], Result]],
    jobs: Sequence[Job],
    workers: int,
    address: str = LOCAL,
    gpus: float = 0.0,
) -> Iterator[Result]:
    """Results of make()(job), in the order of completion; each of `workers` actors calls `make` once.

    address: of a cluster (auto, HOST:6379 or ray://HOST:10001); local starts one here and stops it.
    gpus: that an actor takes. Every node needs this package and the paths in `make` and the jobs.
    UserError without Ray or a cluster, for one raised in an actor, and for an actor that died.
    """
    if not jobs:
        return
    ray = _ray()
    is_ours = not ray.is_initialized()
    if is_ours:
        _connect(ray, address, workers)
    try:
        options = {"num_cpus": 1, "num_gpus": gpus}
        remote: Any = ray.remote(_Actor).options(**options)
        actors = [remote.remote([make]) for _ in range(min(workers, len(jobs)))]
        waiting = list(jobs)[::-1]
        busy = {actor.work.remote(waiting.pop()): actor for actor in actors}
        while busy:
            (done, *_), _ = ray.wait(list(busy), num_returns=1)
            actor = busy.pop(done)
            result = _result(ray, done)
            if waiting:
                busy[actor.work.remote(waiting.pop())] = actor
            yield result
    finally:
        if is_ours:
            ray.shutdown()


def _result(ray: Any, call: Any) -> Any:
    try:
        return ray.get(call)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from error
        raise
    except ray.exceptions.RayActorError as error:
        first = str(error).partition("\n")[0]
        raise UserError(
            f"a Ray actor ended ({first[:200]}): run again, what is finished is kept"
        ) from error


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise UserError(
            "--ray needs Ray: pip install 'invact-vla[ray]', or leave it out"
        ) from error


def _connect(ray: Any, address: str, workers: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": True}
    if address == LOCAL:
        options |= {"num_cpus": max(os.cpu_count() or 1, workers), "include_dashboard": False}
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"no Ray cluster at {address!r} ({error}): start one with `ray start --head`, or use local"
        ) from error
