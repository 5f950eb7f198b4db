"""Ctrl-C in two steps: the first lets running episodes end, the second stops at once."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)


@contextmanager
def gentle_interrupt(stop: Callable[[], None]) -> Iterator[None]:
    """Inside, the first Ctrl-C calls `stop` and the second raises KeyboardInterrupt.

    Without effect outside the main thread, which is the only one that signals reach.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def first(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logger.warning("interrupted: waiting for the running episodes, Ctrl-C again stops at once")
        stop()

    signal.signal(signal.SIGINT, first)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
