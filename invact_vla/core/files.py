"""Files that are either whole or absent: atomic writes, hashes, JSON.

A writer may be killed, or the power may fail, between any two steps. What it wrote is on the disk
(fsync) before it gets its name, so a name always means whole content. A folder cannot be exchanged in
one step: the old one waits as `.old-<name>` meanwhile, and `restore` puts it back if need be.
"""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.limits import parse_json, read_text

_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_SPACE = os.strerror(errno.ENOSPC)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    The temporary name keeps the suffix, since writers choose formats by it. On an exception the
    temporary file is removed and `path` is untouched; a full disk is a UserError.
    """
    with _beside(path) as temporary:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; put it in the place of `path` when the block ends well.

    On an exception `path` is untouched; a full disk is a UserError. After a sudden end `path` may lie
    aside: whoever reads it calls `restore` first, or `mend` on a folder above.
    """
    restore(path)
    try:
        with _beside(path) as temporary:
            temporary.mkdir()
            yield temporary
            sync_tree(temporary)
            if os.path.lexists(path):
                os.replace(path, path.with_name(f".old-{path.name}"))
            os.replace(temporary, path)
    finally:
        restore(path)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Other processes that ask for the same path wait until the block ends, by a file beside it that is
    locked meanwhile; they do not where no file may be written."""
    lock = path.with_name(f".{path.name}.lock")
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _locked(lock)
    try:
        yield
    finally:
        if descriptor is not None:
            lock.unlink(missing_ok=True)
            fcntl.flock(
                descriptor, fcntl.LOCK_UN
            )  # children that were forked meanwhile have it too
            os.close(descriptor)


def _locked(path: Path) -> int | None:
    """A descriptor of the file, made and locked; None where it cannot be made."""
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666)
        except OSError:
            return None
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with suppress(OSError):  # the one who had it has removed it
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A name beside `path` for what shall take its place; what is left there in the end is removed."""
    make_folder(path.parent)
    temporary = path.with_name(f".tmp{secrets.token_hex(4)}-{path.name}")
    try:
        with _full_disk_named(path):
            yield temporary
            _sync(path.parent)
    finally:
        remove(temporary)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it, where it is not there; UserError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{path} is no folder, or below a file: give another") from error
    except OSError as error:
        raise UserError(f"cannot make {path} ({error.strerror}): give another folder") from error


def restore(path: Path) -> None:
    """Undo a replacement of a folder that ended half way: the old one comes back where no new one
    is, else it goes."""
    old = path.with_name(f".old-{path.name}")
    if not os.path.lexists(old):
        return
    if os.path.lexists(path):
        remove(old)
    else:
        os.replace(old, path)


def mend(folder: Path) -> None:
    """Put right what killed writers left below a folder that nobody writes into now."""
    for old in list(folder.rglob(".old*-*")):
        path = old.with_name(old.name.partition("-")[2])
        if not os.path.lexists(path):
            os.replace(old, path)
    for torn in [*folder.rglob(".old*-*"), *folder.rglob(".tmp*-*")]:
        remove(torn)


def remove(path: Path) -> None:
    """Delete a file, a link (not what it leads to) or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Wait until the disk has all files of a folder; links are not followed."""
    for place, _, names in os.walk(folder):
        for path in (Path(place, name) for name in names):
            if path.is_file() and not path.is_symlink():
                _sync(path)
        _sync(Path(place))
    _sync(folder.parent)


def append_line(path: Path, line: str) -> None:
    """Add a line to a text file and wait until the disk has it; UserError if the file is a link,
    since what a link leads to is not ours to write."""
    try:
        descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UserError(f"{path} is a link, expected a file: remove it") from error
    with os.fdopen(descriptor, "a") as file, _full_disk_named(path):
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    """Wait until the disk has a file or the entries of a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # safetensors and torch have errors of their own for it
        if getattr(error, "errno", None) not in _FULL and _NO_SPACE not in str(error):
            raise
        raise UserError(f"disk full while writing {path}: free some space and run again") from error


def hash_file(path: Path) -> str:
    """SHA-256 of the bytes of a file, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def hash_tree(folder: Path) -> str:
    """SHA-256 over the relative names and bytes of all files below a folder, 16 digits.

    But for README.md: a card changes nothing of what a folder does."""
    digest = hashlib.sha256()
    kept = (p for p in Path(folder).rglob("*") if p.is_file() and p.name != "README.md")
    for path in sorted(kept):
        digest.update(f"{path.relative_to(folder).as_posix()} {hash_file(path)}\n".encode())
    return digest.hexdigest()[:16]


def hash_json(value: Any) -> str:
    """SHA-256 of a JSON-able value with sorted keys, 16 digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; a missing or malformed file is a UserError that names it."""
    return parse_json(read_text(path), str(path))


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; anything else is a UserError that names it."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected an object, got {type(value).__name__}")
    return value
