"""What every reader of a stranger's files needs: words that are short, paths that stay in their folder,
text of bounded length, JSON that cannot exhaust the machine."""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError

MAX_TEXT = 64 << 20  # bytes of a JSON file; tokenizers of large vocabularies have 35 MB
SHOWN = 200  # characters of foreign text in a message
_LONGEST = 255  # bytes of a file name
_LISTED = 5  # names in a message
_POINTER = b"version https://git-lfs"


def short(value: object) -> str:
    """One printable line of at most SHOWN characters, of a string or of an exception."""
    try:
        text = value if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001 - a message must not fail on what it is about
        text = ""
    text = text or type(value).__name__
    line = " ".join(text[: 4 * SHOWN].split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= SHOWN else line[: SHOWN - 4] + " ..."


@contextmanager
def one_line(message: str, *let_through: type[Exception]) -> Iterator[None]:
    """Whatever a damaged or forged file makes a reader complain of is a UserError: `message`, with what
    the innermost cause says in the place of {error}. UserErrors and `let_through` stay what they are."""
    try:
        yield
    except (UserError, *let_through):
        raise
    except Exception as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(message.replace("{error}", short(cause))) from error


def some(names: Iterable[str]) -> str:
    """The first few of foreign names, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return ", ".join(map(short, found[:_LISTED])) + more


def inside(folder: Path, name: str | Path) -> Path:
    """The path `name` below `folder`; UserError if it leads out of it, by `..`, as an absolute path or
    over links.

    Links from a snapshot of the hub's cache into the blobs of the same repository are inside.
    """
    folder = Path(folder)
    path = folder / name
    try:
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or len(str(name)) > 2000:
            raise ValueError("it is not a plain relative path")
        if any(len(part.encode()) > _LONGEST for part in parts):
            raise ValueError("its name is too long")
        target = path.resolve()
        if not any(target.is_relative_to(root) for root in _roots(folder.resolve())):
            raise ValueError("a link leads elsewhere")
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(
            f"{folder} names a file outside of it, {short(str(name))} ({short(error)}): put the file "
            "into the folder if you trust it"
        ) from error
    return path


def _roots(folder: Path) -> list[Path]:
    """Where files of a folder may lie: in it, and for the hub's cache in the repository's blobs."""
    snapshots = [p for p in (folder, *folder.parents) if p.parent.name == "snapshots"]
    return [folder, *(p.parent.parent / "blobs" for p in snapshots[:1])]


def refuse_pointer(path: Path) -> None:
    """UserError where there is no file, or what `git clone` without git-lfs leaves in its place."""
    if not path.is_file():
        raise UserError(f"no file {path}: correct the path, or fetch it")
    with open(path, "rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise UserError(
                f"{path} is a git-lfs text pointer, not the data: run `git lfs pull` in its "
                "repository, or download the file again"
            )


def read_text(path: Path, limit: int = MAX_TEXT) -> str:
    """The text of a UTF-8 file of at most `limit` bytes; anything else is a UserError."""
    refuse_pointer(path)
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UserError(f"{path} is larger than {limit >> 10} KiB: expected a small text file")
    try:
        return content.decode("utf-8-sig")  # Windows' editors begin files with a mark
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: {short(error)}") from error


def parse_json(text: str | bytes, where: str) -> Any:
    """JSON; what is none, is nested too deeply or has endless numbers is a UserError. where: for the
    message."""
    with one_line(f"{where} is not valid JSON ({{error}}): correct it, or fetch it again"):
        return json.loads(text)
