"""What every process that we start for simulators and policies shares, and how Ctrl-C reaches it."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

logger = logging.getLogger(__name__)

# LP: llvmpipe, which renders on the CPU; 0 makes it draw in the thread that calls it
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LP_NUM_THREADS": "0",
}


def start_child(target: Callable[..., None], *arguments: object) -> tuple[BaseProcess, Connection]:
    """Spawn target(pipe, *arguments), which begins with `begin_child`; returns our end of its pipe.

    It uses one thread per library, whatever this process does, and no Ctrl-C ends it.
    """
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=target, args=(child_end, *arguments), daemon=True)
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    resource_tracker.ensure_running()  # its start would let interrupts through again
    # a child begun here never dies of a Ctrl-C, not even before `begin_child` ignores it
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value
    child_end.close()
    return process, parent_end


def begin_child() -> None:
    """In the child: leave Ctrl-C to the parent, and end at once when that does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def end_child(process: BaseProcess, pipe: Connection) -> None:
    """Wait for the end of a child, which was asked for or has come; by force after 10 s."""
    process.join(timeout=10)
    if process.is_alive():
        process.kill()
        process.join()
    pipe.close()


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


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
