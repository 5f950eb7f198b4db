"""A stage's folder: resolved config, provenance, metrics, and the mark that it is finished.

    <folder>/config.yaml        the resolved config
    <folder>/provenance.json    versions, git commit, machine, devices, seed, parents with their keys
    <folder>/metrics.jsonl      one row a logged step
    <folder>/done.json          the run's key and summary; present only when the stage is finished

The key hashes the config (without `PRODUCT_NEUTRAL`, which do not change the product)
and the parents' keys: the same key means the same product, so a finished stage is skipped and a killed
one continues.
"""

import fcntl
import json
import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import draccus
import yaml

from invact_vla.errors import UserError
from invact_vla.training.files import (
    atomic_file,
    hash_file,
    hash_json,
    hash_tree,
    read_json,
    write_json,
)

PRODUCT_NEUTRAL = ("out", "overwrite", "workers", "executor", "in_flight", "max_errors", "device")
RECORDED_PACKAGES = (
    "torch", "transformers", "timm", "accelerate", "numpy", "mujoco", "robosuite", "hf-libero",
)  # fmt: skip


@dataclass(frozen=True)
class Run:
    """An open run folder. finished: a run with the same key has already ended here."""

    folder: Path
    key: str
    finished: bool

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    def metrics(self, **values: Any) -> None:
        """Append one row to metrics.jsonl."""
        with open(self.metrics_path, "a") as file:
            file.write(json.dumps(values) + "\n")

    def ran_on(self, device: str) -> None:
        """Note a device that made the product, or a part of it before a kill, in the provenance."""
        path = self.folder / "provenance.json"
        provenance = read_json(path)
        devices = provenance.setdefault("devices", [])
        if device not in devices:
            devices.append(device)
            write_json(path, provenance)

    def finish(self, summary: dict[str, Any]) -> None:
        """Mark the run as finished; summary is what a report would quote."""
        started = read_json(self.folder / "provenance.json")["started"]
        seconds = round(time.time() - started, 1)
        write_json(self.folder / "summary.json", summary)
        write_json(self.folder / "done.json", {"key": self.key, "seconds": seconds})


def open_run(
    folder: Path,
    config: Any,
    parents: dict[str, Path] | None = None,
    overwrite: bool = False,
    seed: int | None = None,
) -> Run:
    """Open the folder of one stage, new, half finished or finished.

    config: a draccus dataclass. parents: folders or files that the product is made from. Raises
    UserError when a parent is missing or unfinished, or when the folder holds a run with another key
    and `overwrite` is not set.
    """
    folder = Path(folder)
    resolved = draccus.encode(config)
    parent_keys = {name: product_key(path) for name, path in (parents or {}).items()}
    key = hash_json({"config": _product_part(resolved, parents or {}), "parents": parent_keys})
    provenance = folder / "provenance.json"
    if provenance.exists():
        known = read_json(provenance)["key"]
        if known == key:
            return _continued(folder, key)
        if not (overwrite or _is_bare(folder)):
            raise UserError(
                f"{folder} holds a run with another config or other inputs (key {known}, now {key}): "
                "give another --out, or --overwrite true to replace it"
            )
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and is not a run folder: give another --out")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "config.yaml") as temporary:
        temporary.write_text(yaml.safe_dump(resolved, sort_keys=False))
    _lock(folder)
    write_json(provenance, _provenance(key, seed, parents or {}, parent_keys))
    return Run(folder, key, False)


def _is_bare(folder: Path) -> bool:
    """Whether a run ended before it made anything, as one with a mistake in its config does."""
    own = {"config.yaml", "provenance.json", ".lock"}
    return {path.name for path in folder.iterdir()} <= own


def _continued(folder: Path, key: str) -> Run:
    """A run that is finished, or one to go on with: torn temporary files of a killed one are removed."""
    if (folder / "done.json").exists():
        return Run(folder, key, True)
    _lock(folder)
    for path in list(folder.rglob(".tmp*-*")) + list(folder.rglob(".old*-*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return Run(folder, key, False)


_held: dict[Path, int] = {}  # locks of this process; released when it ends


def _lock(folder: Path, patience_s: float = 10.0) -> int:
    """Keep a second process out of a run folder; workers of a killed one are waited for."""
    path = folder.resolve() / ".lock"
    if path in _held and path.exists():
        return _held[path]
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    for _ in range(int(patience_s / 0.2)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _held[path] = descriptor
            return descriptor
        except BlockingIOError:
            time.sleep(0.2)
    raise UserError(f"another process is working in {folder}: wait for it, or give another --out")


def run_of(path: Path) -> Path:
    """The run folder that a product lies in, or the product itself where no stage made it."""
    return path.parent if (path.parent / "provenance.json").exists() else path


def product_key(path: Path) -> str:
    """The key of a finished run, or the content hash of a plain file or folder."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"missing input {path}: run the stage that makes it, or correct the path")
    if (path / "provenance.json").exists():
        if not (path / "done.json").exists():
            raise UserError(f"{path} is unfinished: run the stage that makes it to its end first")
        return read_json(path / "done.json")["key"]
    return hash_tree(path) if path.is_dir() else hash_file(path)


def package_versions() -> dict[str, str]:
    """Versions of the packages that can change a result; absent ones are left out."""
    versions = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """The commit of the code that runs, with `+changes` if the tree differs; None outside git."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _product_part(value: Any, parents: dict[str, Path]) -> Any:
    """The config without product-neutral fields, paths of parents replaced by the parents' names."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in PRODUCT_NEUTRAL}
        return {k: _product_part(v, parents) for k, v in kept.items()}
    if isinstance(value, list):
        return [_product_part(v, parents) for v in value]
    if isinstance(value, str):
        for name, path in parents.items():
            if value == str(path) or value.startswith(f"{path}/"):
                return f"<{name}>{value[len(str(path)) :]}"
    return value


def _provenance(
    key: str, seed: int | None, parents: dict[str, Path], parent_keys: dict[str, str]
) -> dict[str, Any]:
    return {
        "key": key,
        "seed": seed,
        "started": time.time(),
        "parents": {n: {"path": str(p), "key": parent_keys[n]} for n, p in parents.items()},
        "commit": git_commit(),
        "packages": package_versions(),
        "python": platform.python_version(),
        "machine": platform.platform(),
    }
