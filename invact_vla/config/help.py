"""What `invact COMMAND --help` prints: a line per option, its comment in the config beside it."""

import dataclasses
import shutil
import textwrap
import typing
from pathlib import Path
from typing import Any

from invact_vla.config.comments import comment_of
from invact_vla.config.options import REQUIRED, Option, members_of, options

_NAMES = {int: "INT", float: "NUMBER", str: "TEXT", bool: "true|false", Path: "PATH"}
_COLUMN = 38  # where the explanations begin, at most


def help_text(config_class: type, program: str, purpose: str = "") -> str:
    """Usage, purpose and every option with its type, explanation and default."""
    first = getattr(config_class, "POSITIONAL", "")  # the option that words without a flag are
    words = "".join(
        f" {option.flag.upper()}" + " ..." * (typing.get_origin(option.kind) is tuple)
        for option in options(config_class)
        if option.flag == first
    )
    lines = [
        f"usage: {program}{words} [--config_path YAML] [--OPTION VALUE ...]",
        "",
        purpose or (config_class.__doc__ or "").split("\n\n")[0],
        "",
        _line("--config_path YAML", "a file with these options; the command line wins", 2),
    ]
    member = ""
    for option in options(config_class):
        if option.member != member:
            member = option.member
            lines += [f"  with --{member}:"] if member else []
        lines += _lines(option)
    return "\n".join(lines)


def _lines(option: Option) -> list[str]:
    indent = 4 if option.member else 2
    said = comment_of(option.owner, option.field)
    if option.part is not None:  # a registry is explained where its type is chosen
        return [] if members_of(option.kind) else [f"{' ' * indent}--{option.flag}: {said}"]
    dashes = "" if "[]" in option.flag else "--"
    return [_line(f"{dashes}{option.flag} {_type(option.kind)}", said + _default(option), indent)]


def _line(left: str, right: str, indent: int) -> str:
    left, width = " " * indent + left, max(80, shutil.get_terminal_size().columns)
    lines = textwrap.wrap(right, width - _COLUMN, break_on_hyphens=False) or [""]
    if len(left) < _COLUMN - 1:
        left += " " * (_COLUMN - len(left)) + lines.pop(0)
    return "\n".join([left, *(" " * _COLUMN + line for line in lines)])


def _type(kind: Any) -> str:
    inner = [item for item in typing.get_args(kind) if item is not ...]
    origin = typing.get_origin(kind)
    if origin is typing.Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if origin in (tuple, list):
        names = [_type(item) for item in inner] or ["VALUE"]
        return " ".join(names) if len(names) > 1 else f"{names[0]} ..."
    if origin is dict:
        return "'{" + ": ".join(_type(item) for item in inner) + "}'"
    if origin is not None:
        return "|".join(_type(item) for item in inner if item is not type(None))
    return _NAMES.get(kind, getattr(kind, "__name__", str(kind)).upper())


def _default(option: Option) -> str:
    value = option.default
    if value is REQUIRED:
        return "" if "[]" in option.flag or option.member else " (required)"
    if value is None or value == "" or (isinstance(value, tuple | list | dict) and not value):
        return ""
    if isinstance(value, tuple | list):
        if any(dataclasses.is_dataclass(item) for item in value):
            return ""
        value = " ".join(map(str, value))
    elif isinstance(value, bool):
        value = str(value).lower()
    return f" (default: {value})"
