"""Waiting work of many clients, a piece of each in turn."""

from collections import deque
from typing import Generic, TypeVar

Work = TypeVar("Work")


class Turns(Generic[Work]):
    """A queue in which a client with much work does not keep those with little waiting."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[Work]] = {}  # in the order of their next turns
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, client: str, work: Work) -> None:
        """Add work of a client behind the rest of its own."""
        self._waiting.setdefault(client, deque()).append(work)
        self._count += 1

    def take(self) -> Work:
        """The oldest work of the client whose turn it is; for a queue that is not empty."""
        client = next(iter(self._waiting))
        queue = self._waiting.pop(client)
        work = queue.popleft()
        self._count -= 1
        if queue:
            self._waiting[client] = queue
        return work
