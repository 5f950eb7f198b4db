"""The one thread that policies run in, and what they raise there."""

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any

logger = logging.getLogger(__name__)


class PolicyRaised(Exception):
    """A policy raised something. error: what, of any kind; StopIteration cannot pass a coroutine."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class PolicyThread:
    """Calls functions one after the other, since policies are not thread-safe.

    The thread is a daemon: a policy that never returns does not keep the process from its end.
    """

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="policy", daemon=True)
        self._thread.start()

    async def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """What the function returns. Raises PolicyRaised for whatever it raises."""
        loop = asyncio.get_running_loop()
        returned: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()

        def work() -> None:
            outcome = _outcome(function, arguments)
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(_settle, returned, outcome)

        self._calls.put(work)
        value, error = await returned
        if error is not None:
            raise PolicyRaised(error)
        return value

    def close(self, patience_s: float) -> None:
        """Let the call that runs end, and the thread; one that takes longer is left behind."""
        self._calls.put(None)
        self._thread.join(patience_s)
        if self._thread.is_alive():
            logger.warning("the policy is in a call that does not end: it is left behind")

    def _work(self) -> None:
        while (work := self._calls.get()) is not None:
            work()


def _outcome(
    function: Callable[..., Any], arguments: tuple[object, ...]
) -> tuple[Any, BaseException | None]:
    try:
        return function(*arguments), None
    except BaseException as error:  # noqa: BLE001 - its caller raises it
        return None, error


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if not future.done():
        future.set_result(outcome)
