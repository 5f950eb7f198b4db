"""Ends as sudden as a kill -9 or a power failure, at a chosen point or at a random time."""

import itertools
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "fcntl.flock")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def killed_at(point: int, action: Callable[[], object]) -> bool:
    """Call `action` in a child process that SIGKILL ends before its `point`-th (1, 2, ...) system call
    that changes a file or waits for the disk; whether it came to that. What a file has not yet given
    to the disk loses its last byte. Any other bad end of the child is an error."""

    def child() -> None:
        steps, written = itertools.count(1), {}  # path -> bytes that the disk has

        def sync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            size = os.fstat(descriptor).st_size
            if next(steps) == point:
                if size > written.get(path, size):
                    os.truncate(path, size - 1)
                os.kill(os.getpid(), signal.SIGKILL)
            written[path] = size

        def hook(event: str, arguments: tuple[Any, ...]) -> None:
            if event == "open" and _is_writing(arguments):
                path = os.path.realpath(arguments[0])
                written.setdefault(path, os.path.getsize(path) if os.path.exists(path) else 0)
            elif event not in _CHANGES:
                return
            if next(steps) == point:
                os.kill(os.getpid(), signal.SIGKILL)

        os.fsync = sync  # type: ignore[assignment]
        sys.addaudithook(hook)
        action()

    return _outcome(_fork(child))


def killed_after(seconds: float, action: Callable[[], object]) -> bool:
    """Call `action` in a child process that SIGKILL ends after a time; whether it came to that."""
    process = _fork(action)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(min(0.001, seconds))
    else:
        os.kill(process, signal.SIGKILL)
    return _outcome(process)


def _fork(action: Callable[[], object]) -> int:
    process = os.fork()
    if process:
        return process
    code = 1
    tqdm.set_lock(threading.RLock())  # its own is shared with forks, and one was killed holding it
    try:
        action()
        code = 0
    except BaseException:  # noqa: BLE001  the child must not go on as a test run
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _outcome(process: int) -> bool:
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code in (0, -signal.SIGKILL), f"the child ended with {code}"
    return code != 0


def _is_writing(arguments: tuple[Any, ...]) -> bool:
    path, _, flags = arguments
    return not isinstance(path, int) and isinstance(flags, int) and bool(flags & _WRITING)
