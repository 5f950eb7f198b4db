"""Every option of every command, and where it is set: configs, tests, documents.

python -m tests.option_use            # options that nothing sets
python -m tests.option_use --all      # all of them, with the first place that sets each
"""

import ast
import dataclasses
import functools
import importlib
import re
import sys
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from invact_vla.app.cli import COMMANDS
from tests.paths import REPOSITORY
from tests.test_layout import CONFIG_COMMANDS, CONFIGS

OURS = ("invact_vla", "latent_actions", "libero_eval")
TEXTS = ("README.md", "CONTRIBUTING.md", "Makefile", "docs/*.md", "configs/**/*.yaml")
# set by every caller of a command, by the machinery of run folders, or by the machine alone
COMMON = {"out", "overwrite", "workers", "device", "seed"}


class Option(NamedTuple):
    """One option as it is typed, and the dataclass whose field it is."""

    command: str
    flag: str  # "a.b", without the dashes
    owner: str  # the dataclass that defines it
    field: str
    family: tuple[str, ...]  # the classes that have it


def config_class(command: str) -> type:
    module, name, _ = COMMANDS[command]
    return getattr(importlib.import_module(module), str(name))


def options(command: str) -> list[Option]:
    """The options of a command; those of each member of a registry too."""
    return list(dict.fromkeys(_walk(command, config_class(command), "")))


def _walk(command: str, kind: type, prefix: str) -> Iterator[Option]:
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        inner = [part for part in parts_of(hints[field.name]) if part is not kind]
        for part in inner:
            yield from _walk(command, part, f"{prefix}{field.name}.")
        if not inner:
            family = [k.__name__ for k in kind.__mro__ if field.name in dir(k) or k is kind]
            owner = next(
                k.__name__
                for k in reversed(kind.__mro__)
                if field.name in vars(k).get("__annotations__", {})
            )
            yield Option(command, prefix + field.name, owner, field.name, tuple(family))


def parts_of(hint: Any) -> list[type]:
    """The dataclasses that a field of this type may hold, the members of a registry among them."""
    found: list[type] = []
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        choices = getattr(hint, "get_known_choices", dict)()
        members = [c for c in choices.values() if c.__module__.split(".")[0] in OURS]
        return members or [hint]
    for argument in typing.get_args(hint):
        found += parts_of(argument)
    return found


@functools.cache
def set_in_configs() -> dict[tuple[str, str], str]:
    """(command, flag) -> the first config that sets it; stages count as their command."""
    found: dict[tuple[str, str], str] = {}
    for path in CONFIGS:
        place = path.relative_to(REPOSITORY).as_posix()
        command = next(
            (c for p, c in CONFIG_COMMANDS.items() if place.startswith(f"configs/{p}")), ""
        )
        command = "report" if place.endswith("_report.yaml") else command
        text = yaml.safe_load(path.read_text())
        for flag in _flags(text):
            found.setdefault((command, flag), place)
        for stage in text.get("stages", {}).values() if command == "ladder" else ():
            for flag in _flags(stage.get("settings", {})):
                found.setdefault((stage["command"], flag), place)
    return found


def _flags(value: Any, prefix: str = "") -> Iterator[str]:
    """`{a: {b: 1}, "c.d": "{e: 2}"}` -> a, a.b, c.d, c.d.e; the places in a list are left out, and so is
    a name that the user gives, as in `variants: {NAME: {...}}` (also given with it)."""
    if isinstance(value, str) and value.startswith("{"):
        value = yaml.safe_load(re.sub(r"{\w+}", "stage", value))
    if isinstance(value, dict):
        for key, part in value.items():
            yield f"{prefix}{key}"
            yield from _flags(part, f"{prefix}{key}.")
            if isinstance(part, dict) and prefix == "":
                for inner in part.values():
                    yield from _flags(inner, f"{key}.")
    elif isinstance(value, list):
        for part in value:
            yield from _flags(part, prefix)


@functools.cache
def set_in_texts() -> dict[str, str]:
    """Flag -> the first document, config comment or test with `--flag`."""
    found: dict[str, str] = {}
    files = [p for pattern in TEXTS for p in sorted(REPOSITORY.glob(pattern))]
    for path in [*files, *sorted((REPOSITORY / "tests").rglob("*.py"))]:
        place = path.relative_to(REPOSITORY).as_posix()
        for flag in re.findall(r"--([a-z][\w.]*)", path.read_text()):
            found.setdefault(flag, place)
    return found


@functools.cache
def set_in_tests() -> dict[tuple[str, str], str]:
    """(class, field) -> the first test that makes the class with it; ("", field) where a function or a
    dict has it, which hands it on."""
    found: dict[tuple[str, str], str] = {}
    for path in sorted((REPOSITORY / "tests").rglob("*.py")):
        place = path.relative_to(REPOSITORY).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            owner, names = "", []
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func).rsplit(".", 1)[-1]
                owner = called if called[:1].isupper() else ""
                names = [word.arg for word in node.keywords if word.arg]
            elif isinstance(node, ast.Dict):
                keys = [k.value for k in node.keys if isinstance(k, ast.Constant)]
                names = [k.rsplit(".", 1)[-1] for k in keys if isinstance(k, str)]
            for name in names:
                found.setdefault((owner, name), place)
    return found


def place_of(option: Option) -> str | None:
    """Where an option is set; None if nowhere. A class that several commands share needs it once."""
    if option.field in COMMON:
        return "every command"
    for kind in option.family:
        if place := set_in_tests().get((kind, option.field)):
            return place
    return (
        set_in_configs().get((option.command, option.flag))
        or set_in_texts().get(option.flag)
        or set_in_tests().get(("", option.field))
    )


def places() -> dict[tuple[str, str], tuple[list[Option], str | None]]:
    """(class, field) -> the options that it is, and the first place that sets one of them."""
    found: dict[tuple[str, str], tuple[list[Option], str | None]] = {}
    for command in (c for c in COMMANDS if COMMANDS[c][1]):
        for option in options(command):
            same, place = found.get((option.owner, option.field), ([], None))
            found[option.owner, option.field] = ([*same, option], place or place_of(option))
    return found


def main() -> None:
    everything = places()
    for (owner, field), (same, place) in everything.items():
        if place is None or "--all" in sys.argv:
            typed = f"{same[0].command} --{same[0].flag}"
            print(f"{typed:60} {owner + '.' + field:45} {place or 'nowhere'}")
    unused = sum(place is None for _, place in everything.values())
    print(f"{len(everything)} options, {unused} set nowhere", file=sys.stderr)


if __name__ == "__main__":
    main()
