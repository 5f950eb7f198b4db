"""The environment manifest: what, besides the policy, can change a score.

Simulator versions do (mujoco >= 3.3.3 shades floors darker, >= 3.4 changes contacts), as may the
GL backend and the processor. The manifest goes into every result; its hash into every row.
"""

import platform
from importlib import metadata
from typing import TypedDict

from invact_vla.core.files import hash_json
from invact_vla.core.machine import cpu_name, git_commit

PACKAGES = (
    "torch", "transformers", "timm", "tokenizers", "numpy", "scipy", "mujoco", "robosuite",
    "hf-libero", "bddl", "pillow", "av", "h5py",
)  # fmt: skip
ABSENT = "not installed"


class Manifest(TypedDict):
    """The environment of a run."""

    python: str  # version
    platform: str  # system and machine
    cpu: str  # model
    gl: str  # "egl", "osmesa" or "none"
    packages: dict[str, str]
    git_commit: str


def environment_manifest(gl_backend: str) -> Manifest:
    """The manifest of this process; gl_backend is what the simulator renders with, or "none"."""
    return Manifest(
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        cpu=cpu_name(),
        gl=gl_backend,
        packages={name: _version(name) for name in PACKAGES},
        git_commit=git_commit() or "unknown",
    )


def manifest_hash(manifest: Manifest) -> str:
    """16 hex digits that change with anything in the manifest that can change a score.

    Not with the commit: the score depends on the code of the run, which a documentation commit does
    not change; protocol, pack and checkpoint have hashes of their own.
    """
    return hash_json({name: value for name, value in manifest.items() if name != "git_commit"})


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ABSENT
