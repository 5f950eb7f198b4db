"""Files that are either whole or absent: atomic writes, hashes, JSON."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from invact_vla.errors import UserError
from invact_vla.training.untrusted import parse_json, read_text


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` when the block ends well.

    The temporary name keeps the suffix, since writers choose formats by it. On an exception the
    temporary file is removed and `path` is untouched; a full disk is a UserError.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp{os.getpid()}-{path.name}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.errno == 28:
            raise UserError(
                f"disk full while writing {path}: free some space and run again"
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside `path`; put it in the place of `path` when the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp{os.getpid()}-{path.name}")
    old = path.with_name(f".old{os.getpid()}-{path.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            os.replace(path, old)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def hash_file(path: Path) -> str:
    """SHA-256 of the bytes of a file, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]


def hash_tree(folder: Path) -> str:
    """SHA-256 over the relative names and bytes of all files below a folder, 16 digits.

    But for README.md: a card tells where data lay and changes nothing of what a folder does."""
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
