"""What `invact COMMAND --help` prints: a line per option, and its comment in the config beside it,
wherever that stands: on the field's line, on a later line of a longer definition, or above it."""

import ast
import dataclasses
import functools
import inspect
import io
import shutil
import textwrap
import tokenize
import typing
from pathlib import Path
from typing import Any

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
    lines = [f"usage: {program}{words} [--config_path YAML] [--OPTION VALUE ...]", ""]
    lines += [purpose or (config_class.__doc__ or "").split("\n\n")[0], ""]
    lines.append(_line("--config_path YAML", "a file with these options; the command line wins", 2))
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
    if isinstance(value, tuple | list):
        parts = any(map(dataclasses.is_dataclass, value))
        value = None if parts else " ".join(map(str, value))
    elif isinstance(value, bool):
        value = str(value).lower()
    return "" if value in (None, "", {}) else f" (default: {value})"


def comment_of(config_class: type, name: str) -> str:
    """The comment of a field, own or inherited; "" if it has none."""
    found = (_comments(kind).get(name) for kind in inspect.getmro(config_class))
    return next((comment for comment in found if comment), "")


@functools.cache
def _comments(kind: type) -> dict[str, str]:
    """Field -> comment, of the fields that the class itself defines."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
        body = ast.parse(source).body[0]
    except (TypeError, OSError, SyntaxError):
        return {}
    assert isinstance(body, ast.ClassDef)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    at = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    alone = {line for line in at if source.splitlines()[line - 1].lstrip().startswith("#")}
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            inside = [at[line] for line in lines if line in at]
            found[node.target.id] = " ".join(inside or _above(node.lineno, at, alone))
    return found


def _above(line: int, at: dict[int, str], alone: set[int]) -> list[str]:
    """The comment that ends right above a line."""
    words: list[str] = []
    while line - 1 in alone:
        line -= 1
        words.insert(0, at[line])
    return words
