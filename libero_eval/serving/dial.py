"""Reaching a server that may not be ready, and saying so while waiting."""

import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from invact_vla.core.errors import UserError
from libero_eval.serving.address import ServerUrl

logger = logging.getLogger(__name__)
SAY_EVERY_S = 10.0
RETRY_EVERY_S = 0.5


def dial(url: ServerUrl, timeout_s: float, wait_s: float) -> socket.socket:
    """A connection to the server's port. wait_s: how long somebody who does not listen is waited for.

    Raises UserError if nobody listens by then, and for a URL that names no host.
    """
    address = url.host_and_port()
    deadline = time.monotonic() + wait_s
    with waiting(url, "somebody to listen", wait_s):
        while True:
            try:
                return socket.create_connection(address, timeout_s)
            except OSError as error:
                if time.monotonic() < deadline and isinstance(error, ConnectionError):
                    time.sleep(RETRY_EVERY_S)
                    continue
                raise UserError(
                    f"no policy server at {url} ({str(error) or type(error).__name__}): start one "
                    "with `invact libero serve`, correct --policy.url, or give --policy.wait_s 300 "
                    "if it is about to start"
                ) from error


@contextmanager
def waiting(url: str, what: str, limit_s: float) -> Iterator[None]:
    """Say every SAY_EVERY_S seconds that something has not come yet, as long as the block lasts."""
    started, is_over = time.monotonic(), threading.Event()

    def say() -> None:
        while not is_over.wait(SAY_EVERY_S):
            seconds = time.monotonic() - started
            logger.warning(
                "%s: waiting for %s, %.0f s of at most %g s", url, what, seconds, limit_s
            )

    thread = threading.Thread(target=say, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
