"""Where this package keeps what it can make again: generated assets, LIBERO's config, GL probe."""

import os
import tempfile
from pathlib import Path


def cache_folder(name: str) -> Path:
    """A writable folder `name` below the user's cache folder, created.

    `$XDG_CACHE_HOME` or `~/.cache` when it can be written, else a folder of the user below the
    system's temporary folder (containers often have a read-only home).
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(home) / "invact-vla" / name
    if _is_writable(folder):
        return folder
    fallback = Path(tempfile.gettempdir()) / f"invact-vla-{os.getuid()}" / name
    fallback.mkdir(parents=True, exist_ok=True)
    return fallback


def _is_writable(folder: Path) -> bool:
    """Whether the folder exists, or can be made, and files can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
