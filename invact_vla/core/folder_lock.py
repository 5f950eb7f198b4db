"""One process at a time in a folder: a lock that ends with the process, however that ends."""

import fcntl
import os
import time
from pathlib import Path
from weakref import WeakValueDictionary

from invact_vla.core.errors import UserError

LOCK = ".lock"
_held: WeakValueDictionary[Path, "FolderLock"] = WeakValueDictionary()  # of this process


class FolderLock:
    """Holds a folder until `close`, or until nothing refers to it any more. From `lock_folder`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def is_on(self, path: Path) -> bool:
        """Whether it is this file that is locked, and not one that has since been removed."""
        if self._descriptor is None or not path.exists():
            return False
        return os.path.samestat(os.fstat(self._descriptor), path.stat())

    def close(self) -> None:
        """Let go. A child that was forked meanwhile keeps the folder until it ends as well."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __del__(self) -> None:
        self.close()

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(None), ()  # of another process there is nothing to hold


def lock_folder(folder: Path, patience_s: float = 10.0) -> FolderLock:
    """Keep other processes out of a folder; within one process the same lock is given again.

    Waits for another holder (workers of a killed run end soon); UserError if it does not let go, or
    if the folder may not be written.
    """
    path = folder.resolve() / LOCK
    held = _held.get(path)
    if held is not None and held.is_on(path):
        return held
    deadline = time.monotonic() + patience_s
    while True:
        lock = _try(path)
        if lock is not None:
            _held[path] = lock
            return lock
        if time.monotonic() > deadline:
            raise UserError(
                f"another process is working in {folder}: wait for it, or give another --out"
            )
        time.sleep(0.2)


def _try(path: Path) -> FolderLock | None:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}): make the folder writable, or give another --out"
        ) from error
    lock = FolderLock(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    return lock if lock.is_on(path) else None
