"""Work spread over the actors of a Ray cluster, on this machine or many."""

import importlib
import logging
import math
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    make: Callable[[], Callable[[Job], Result]], jobs: Sequence[Job], workers: int,
    address: str = LOCAL, gpus: float = 0.0,
) -> Iterator[Result]:  # fmt: skip
    """Results of make()(job), in the order of completion; each of `workers` actors calls `make` once.

    address: of a cluster (auto, HOST:6379 or ray://HOST:10001); local starts one here and stops it.
    gpus: that an actor takes. Every node needs this package and the paths in `make` and the jobs.
    UserError without Ray or a cluster, for one raised in an actor, and for an actor that died.
    """
    if not jobs:
        return
    ray = import_ray("--ray", "leave it out")
    with ray_cluster(ray, address, workers, "local"):
        remote: Any = ray.remote(_Actor).options(num_cpus=1, num_gpus=gpus)
        actors = [remote.remote([make]) for _ in range(min(workers, len(jobs)))]
        waiting = list(jobs)[::-1]
        busy = {actor.work.remote(waiting.pop()): actor for actor in actors}
        while busy:
            (done, *_), _ = ray.wait(list(busy), num_returns=1)
            actor, result = busy.pop(done), _result(ray, done)
            if waiting:
                busy[actor.work.remote(waiting.pop())] = actor
            yield result


def _result(ray: Any, call: Any) -> Any:
    try:
        return ray.get(call)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from error
        raise
    except ray.exceptions.RayActorError as error:
        first = str(error).partition("\n")[0][:200]
        raise UserError(
            f"a Ray actor ended ({first}): run again, what is finished is kept"
        ) from error


def import_ray(needed_by: str, instead: str) -> Any:
    """The module, which may be missing: a UserError that says what needs it, and what to do without."""
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise UserError(
            f"{needed_by} needs Ray: pip install 'invact-vla[ray]', or {instead}"
        ) from error


@contextmanager
def ray_cluster(ray: Any, address: str, cpus: float, instead: str) -> Iterator[None]:
    """A connection to the cluster at `address`, ended with the block unless it was there before; local
    starts one with at least `cpus` cores. UserError where none answers, with what to use instead."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"logging_level": logging.WARNING, "log_to_driver": True}
    if address == LOCAL:
        cores = max(os.cpu_count() or 1, math.ceil(cpus))
        options |= {"num_cpus": cores, "include_dashboard": False}
    try:
        if ":" in address:  # Ray itself would wait for minutes
            host, port = address.removeprefix("ray://").rsplit(":", 1)
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"no Ray cluster at {address!r} ({error}): start one with `ray start --head`, or use "
            f"{instead}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
