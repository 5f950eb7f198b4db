"""A stage's folder: resolved config, provenance, metrics, and the mark that it is finished.

    <folder>/config.yaml        the resolved config
    <folder>/provenance.json    versions, git commit, machine, devices, seed, inputs with their keys
    <folder>/metrics.jsonl      one row a logged step
    <folder>/done.json          the run's key and summary; present only when the stage is finished
    <folder>/.lock              locked while a process works here, and no longer, however it ends

The key hashes the config (without `NON_HASHED_FIELDS`, which do not change the product)
and the inputs' keys: the same key means the same product, so a finished stage is skipped and a killed
one continues.
"""

import contextlib
import fcntl
import json
import os
import platform
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import draccus
import yaml

from invact_vla.core import files
from invact_vla.core.errors import UserError
from invact_vla.core.machine import git_commit, package_versions

CONFIG, PROVENANCE, DONE = "config.yaml", "provenance.json", "done.json"
NON_HASHED_FIELDS = ("out", "overwrite", "workers", "executor", "in_flight", "max_errors", "device")
_KEY_LENGTH = 64  # at most
LOCK = ".lock"
_held: WeakValueDictionary[Path, "FolderLock"] = WeakValueDictionary()  # of this process
_CLEARED = "cleared"  # in place of a key: what else lies in the folder is being deleted


class FolderLock:
    """Holds a folder until `close`, or until nothing refers to it any more. From `lock_folder`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def take(self) -> bool:
        """Lock the file; False where another process has it."""
        assert self._descriptor is not None
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        return False

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
        try:
            lock = FolderLock(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666))
        except OSError as error:
            raise UserError(
                f"cannot write {path} ({error.strerror}): make the folder writable, or give another "
                "--out"
            ) from error
        if lock.take() and lock.is_on(path):
            _held[path] = lock
            return lock
        if time.monotonic() > deadline:
            raise UserError(
                f"another process is working in {folder}: wait for it, or give another --out"
            )
        time.sleep(0.2)


@dataclass(frozen=True)
class Run:
    """An open run folder. finished: a run with the same key has already ended here. lock: keeps other
    processes out until the run is finished or forgotten; None where it is finished."""

    folder: Path
    key: str
    finished: bool
    lock: FolderLock | None = field(default=None, repr=False, compare=False)

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    def metrics(self, **values: Any) -> None:
        """Append one row to metrics.jsonl."""
        files.append_line(self.metrics_path, json.dumps(values))

    def ran_on(self, device: str) -> None:
        """Note a device that made the product, or a part of it before a kill, in the provenance."""
        path = self.folder / PROVENANCE
        provenance = files.read_json(path)
        devices = provenance.setdefault("devices", [])
        if device not in devices:
            devices.append(device)
            files.write_json(path, provenance)

    def finish(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished, once the disk has all of it, and let other processes in; summary
        is what a report would quote."""
        started = files.read_json(self.folder / PROVENANCE)["started"]
        seconds = round(time.time() - started, 1)
        files.write_json(self.folder / "summary.json", summary)
        files.sync_tree(self.folder)
        files.write_json(self.folder / DONE, {"key": self.key, "seconds": seconds})
        if self.lock is not None:
            self.lock.close()


def open_run(
    folder: Path,
    config: Any,
    inputs: dict[str, Path] | None = None,
    overwrite: bool = False,
    seed: int | None = None,
) -> Run:
    """Open the folder of one stage, new, half finished or finished.

    config: a draccus dataclass. inputs: folders or files that the product is made from. Raises
    UserError when an input is missing or unfinished, when another process works in the folder, or
    when it holds a run with another key and `overwrite` is not set. However suddenly a run ended
    here, the next one with its config goes on.
    """
    folder = Path(folder)
    resolved = draccus.encode(config)
    text = yaml.safe_dump(resolved, sort_keys=False)
    input_keys = {name: artifact_hash(path) for name, path in (inputs or {}).items()}
    key = files.hash_json({"config": _hashed_part(resolved, inputs or {}), "inputs": input_keys})
    if _check(folder, key, text, overwrite) and (folder / DONE).exists():
        return Run(folder, key, True)
    files.make_folder(folder)
    lock = lock_folder(folder)
    files.mend(folder)
    known = _check(folder, key, text, overwrite)  # another process may have been here meanwhile
    if known and (folder / DONE).exists():
        return Run(folder, key, True)
    if not known:
        _clear(folder)
        files.write_json(folder / PROVENANCE, _provenance(key, seed, inputs or {}, input_keys))
    if not (folder / CONFIG).exists():
        with files.atomic_file(folder / CONFIG) as temporary:
            temporary.write_text(text)
    return Run(folder, key, False, lock)


def save_result(
    folder: Path, config: Any, name: str, result: Any, inputs: dict[str, Path] | None = None
) -> Path:
    """A run folder of one JSON file `name`, for commands that measure: measured again with the same
    config it is replaced, with another it is refused as by open_run. Returns the file's path."""
    run = open_run(folder, config, inputs)
    files.write_json(run.folder / name, result)
    run.finish({})
    return run.folder / name


def _check(folder: Path, key: str, config: str, overwrite: bool) -> bool:
    """Whether the run of `key` was begun here; UserError if what lies here must not be replaced."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, not a folder: give another --out")
    if (folder / PROVENANCE).exists():
        known = _key_in(folder / PROVENANCE)
        if known not in (key, _CLEARED) and not overwrite and not _is_bare(folder):
            hint = ", or --overwrite true to replace it" if "\noverwrite: " in config else ""
            raise UserError(
                f"{folder} holds a run with another config or other inputs (key {known}, now {key}): "
                f"give another --out{hint}"
            )
        return known == key
    if folder.exists() and not _is_torn_start(folder, config):
        raise UserError(f"{folder} is not empty and is not a run folder: give another --out")
    return False


def _is_bare(folder: Path) -> bool:
    """Whether a run ended before it made anything, as one with a mistake in its config does."""
    own = {CONFIG, PROVENANCE, LOCK}
    return all(
        p.name in own or p.name.startswith(".tmp") or (p.is_dir() and not any(p.iterdir()))
        for p in folder.iterdir()
    )


def _is_torn_start(folder: Path, config: str) -> bool:
    """Whether a folder without provenance is empty, or what a run left that was killed in its first
    moments; a config.yaml alone may be the user's, and is left alone unless it is the same."""
    if (folder / LOCK).exists():
        return _is_bare(folder)
    names = {path.name for path in folder.iterdir()}
    return not names or (names == {CONFIG} and (folder / CONFIG).read_text() == config)


def _clear(folder: Path) -> None:
    """Delete all but the lock. Ended half way, the folder is one that any run may replace."""
    if (folder / PROVENANCE).exists():
        files.remove(folder / DONE)
        files.write_json(folder / PROVENANCE, {"key": _CLEARED})
    for path in folder.iterdir():
        if path.name not in (PROVENANCE, LOCK):
            files.remove(path)


def _key_in(path: Path) -> str:
    """The key that a provenance.json or done.json holds; UserError if there is none."""
    key = files.read_object(path).get("key")
    if not isinstance(key, str) or len(key) > _KEY_LENGTH:
        raise UserError(f"{path} holds no key of a run: it is damaged; give another folder")
    return key


def run_of(path: Path) -> Path:
    """The run folder that a product lies in, or the product itself where no stage made it."""
    return path.parent if (path.parent / PROVENANCE).exists() else path


def artifact_hash(path: Path) -> str:
    """The key of a finished run, or the content hash of a plain file or folder."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"missing input {path}: run the stage that makes it, or correct the path")
    if (path / PROVENANCE).exists():
        if not (path / DONE).exists():
            raise UserError(f"{path} is unfinished: run the stage that makes it to its end first")
        return _key_in(path / DONE)
    return files.hash_tree(path) if path.is_dir() else files.hash_file(path)


def _hashed_part(value: Any, inputs: dict[str, Path]) -> Any:
    """The config without NON_HASHED_FIELDS, paths of inputs replaced by the inputs' names."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in NON_HASHED_FIELDS}
        return {k: _hashed_part(v, inputs) for k, v in kept.items()}
    if isinstance(value, list):
        return [_hashed_part(v, inputs) for v in value]
    if isinstance(value, str):
        for name, path in inputs.items():
            if value == str(path) or value.startswith(f"{path}/"):
                return f"<{name}>{value[len(str(path)) :]}"
    return value


def _provenance(
    key: str, seed: int | None, inputs: dict[str, Path], input_keys: dict[str, str]
) -> dict[str, Any]:
    return {
        "key": key, "seed": seed, "started": time.time(),
        "inputs": {n: {"path": str(p), "key": input_keys[n]} for n, p in inputs.items()},
        "commit": git_commit(), "packages": package_versions(),
        "python": platform.python_version(), "machine": platform.platform(),
    }  # fmt: skip
