"""Where this package keeps what it can make again: generated assets, LIBERO's config, GL probe."""

import os
import stat
import tempfile
from pathlib import Path

from invact_vla.core.errors import UserError


def cache_folder(name: str) -> Path:
    """A writable folder `name` below the user's cache folder, created.

    `$XDG_CACHE_HOME` or `~/.cache` when it can be written, else a folder of the user below the
    system's temporary folder (containers often have a read-only home). What lies in it is trusted:
    one that another user made, or may write into, is passed over, and if none is left it is a
    UserError.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    fallback = Path(tempfile.gettempdir()) / f"invact-vla-{os.getuid()}"
    for root in (Path(home) / "invact-vla", fallback):
        if _is_writable(root) and _is_private(root) and _is_writable(root / name):
            return root / name
    raise UserError(
        f"no cache folder: {home} cannot be used, and {fallback} is not a folder that you own and you "
        "alone may write; set XDG_CACHE_HOME to such a folder"
    )


def _is_writable(folder: Path) -> bool:
    """Whether the folder exists, or can be made (for the user alone), and files can be written."""
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _is_private(folder: Path) -> bool:
    """Whether the folder is the user's, and nobody else may write into it or has made the way to it.

    Where everybody may make folders (`/tmp`), its group may not write either, and no part of the way
    may be another user's. Root is trusted.
    """
    places = {p for way in (folder.absolute(), folder.resolve()) for p in (way, *way.parents)}
    shared = [p for p in places if p.parent.stat().st_mode & stat.S_IWOTH and p != p.parent]
    if any(p.lstat().st_uid not in (os.getuid(), 0) for p in shared):
        return False
    found = folder.stat()
    strangers = stat.S_IWOTH | (stat.S_IWGRP if shared else 0)
    return found.st_uid == os.getuid() and not found.st_mode & strangers
