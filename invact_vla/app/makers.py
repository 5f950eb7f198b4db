"""Which command makes a missing folder: the configs of this project say what they write and how."""

import re
from pathlib import Path

from invact_vla.app.experiment import REPOSITORY
from invact_vla.config.yaml_text import read_yaml
from invact_vla.core.errors import UserError

_PATH = re.compile(r"[\w./-]*/[\w./-]*\w")


def maker_of(path: Path) -> str | None:
    """The command whose run folder holds `path`; None if no config writes there, or if the run is
    finished, so that the path cannot be what it would make."""
    found = [(out, command) for out, command in makers() if path == out or out in path.parents]
    if not found:
        return None
    out, command = max(found, key=lambda maker: len(maker[0].parts))
    return None if (out / "done.json").exists() else command


def makers() -> list[tuple[Path, str]]:
    """(run folder, command) of every config that names its run folder."""
    found = []
    for path in sorted((REPOSITORY / "configs").glob("*/*.yaml")):
        command, out = command_of(path), read_yaml(path).get("out")
        if command is not None and isinstance(out, str):
            found.append((Path(out), command))
    return found


def command_of(config: Path) -> str | None:
    """The command in the header of a config; None if it names none."""
    header = [line[1:].strip() for line in config.read_text().splitlines() if line.startswith("#")]
    name = config.relative_to(REPOSITORY).as_posix()
    pattern = rf"invact ((?:[a-z]+ ){{1,2}})(?:(?!\binvact )[^`])*?--config_path {re.escape(name)}"
    found = re.search(pattern, " ".join(header))
    return f"invact {found[1]}--config_path {name}" if found else None


def with_maker(error: UserError) -> UserError:
    """The error, with the command that makes the missing path that it names."""
    text = str(error)
    for word in _PATH.findall(text):
        command = None if Path(word).exists() else maker_of(Path(word))
        if command is not None:
            return UserError(f"{text}; `{command}` makes it")
    return error
