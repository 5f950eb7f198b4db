"""What code makes a product: versions of packages, and the commit of this project."""

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

RECORDED_PACKAGES = (
    "torch", "transformers", "timm", "accelerate", "numpy", "mujoco", "robosuite", "hf-libero",
)  # fmt: skip
_PROJECT = "pyproject.toml"
_ROOT = Path(__file__).resolve().parents[2]


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
    """The commit of the code that runs, with `+changes` if the tree differs.

    None where the code is not in this project's own repository: one that it is merely installed or
    copied below says nothing of it, and its commit is nobody's business.
    """
    try:
        if not re.search(r'^name = "invact-vla"$', (_ROOT / _PROJECT).read_text(), re.MULTILINE):
            return None
        tracked = (_PROJECT, str(Path(__file__).resolve().relative_to(_ROOT)))
        _git("ls-files", "--error-unmatch", *tracked)
        return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain") else "")
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    """Ask the repository whose top folder is the project's; no other, whatever the environment says.
    It writes nothing and starts no program that the repository names."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_CEILING_DIRECTORIES": str(_ROOT.parent), "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(_ROOT), "-c", "core.fsmonitor=false", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()
