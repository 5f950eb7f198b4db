"""Whose commit a run records: the project's own, and no other."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from invact_vla.core import machine
from tests.paths import REPOSITORY

SCRIPT = "from invact_vla.core.machine import git_commit; print(git_commit())"
OWN = '[project]\nname = "invact-vla"\n'
FOREIGN = '[project]\nname = "their-robot"\n'
IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a",
            "GIT_COMMITTER_EMAIL": "a@b"}  # fmt: skip


def git(folder: Path, *words: str) -> str:
    environment = {**os.environ, **IDENTITY}
    command = ["git", "-C", str(folder), *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def copy(folder: Path, pyproject: str | None) -> None:
    """What git_commit needs of the package, in a folder, as an installation or a copy of it."""
    (folder / "invact_vla/core").mkdir(parents=True)
    for name in ("__init__.py", "core/__init__.py", "core/machine.py"):
        shutil.copy(REPOSITORY / "invact_vla" / name, folder / "invact_vla" / name)
    if pyproject is not None:
        (folder / "pyproject.toml").write_text(pyproject)


def commit_all(folder: Path) -> str:
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "a")
    return git(folder, "rev-parse", "HEAD")


def recorded(folder: Path, **environment: str) -> str:
    """What the copy in a folder says of itself."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", SCRIPT],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(folder), **environment},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def test_the_own_repository_is_recorded(tmp_path: Path) -> None:
    copy(tmp_path, OWN)
    commit = commit_all(tmp_path)
    assert recorded(tmp_path) == commit
    (tmp_path / "pyproject.toml").write_text(OWN + "\n")
    assert recorded(tmp_path) == commit + "+changes"


@pytest.mark.parametrize("below", ["venv/lib/site-packages", "third_party/invact-vla", "."])
@pytest.mark.parametrize("pyproject", [None, FOREIGN])
def test_a_repository_that_it_is_installed_in_is_not(
    tmp_path: Path, below: str, pyproject: str | None
) -> None:
    copy(tmp_path / below, pyproject)
    (tmp_path / "pyproject.toml").write_text(FOREIGN)
    commit_all(tmp_path)
    assert recorded(tmp_path / below) == "None"


def test_nor_is_one_that_holds_the_whole_project_lower_down(tmp_path: Path) -> None:
    copy(tmp_path / "vendor", OWN)
    commit_all(tmp_path)
    assert recorded(tmp_path / "vendor") == "None"


def test_nor_one_in_which_it_is_not_tracked(tmp_path: Path) -> None:
    (tmp_path / "theirs.txt").write_text("x")
    commit_all(tmp_path)
    copy(tmp_path, OWN)
    assert recorded(tmp_path) == "None"


def test_nor_the_one_that_the_environment_names(tmp_path: Path) -> None:
    """As in a hook of another repository."""
    copy(tmp_path / "here", OWN)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/x").write_text("x")
    commit_all(tmp_path / "theirs")
    environment = {
        "GIT_DIR": str(tmp_path / "theirs/.git"),
        "GIT_WORK_TREE": str(tmp_path / "here"),
    }
    assert recorded(tmp_path / "here", **environment) == "None"
    commit = commit_all(tmp_path / "here")
    assert recorded(tmp_path / "here", **environment) == commit


def test_no_program_of_the_repository_is_started(tmp_path: Path) -> None:
    copy(tmp_path, OWN)
    commit = commit_all(tmp_path)
    trap = tmp_path / ".git/trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/.git/sprung\n")
    trap.chmod(0o755)
    git(tmp_path, "config", "core.fsmonitor", str(trap))
    index = (tmp_path / ".git/index").read_bytes()
    os.utime(tmp_path / "pyproject.toml", (1, 1))
    assert recorded(tmp_path) == commit
    assert not (tmp_path / ".git/sprung").exists()
    assert (tmp_path / ".git/index").read_bytes() == index


def test_versions_of_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RECORDED_PACKAGES", ("numpy", "no-such-package"))
    assert set(machine.package_versions()) == {"numpy"}


def test_without_git_nothing_is_recorded(tmp_path: Path) -> None:
    copy(tmp_path, OWN)
    assert recorded(tmp_path) == "None"
    commit_all(tmp_path)
    assert recorded(tmp_path, PATH=str(tmp_path)) == "None"
