"""From a command line to a checked config to a run, with errors a user can act on."""

import dataclasses
import importlib
import itertools
import json
import logging
import math
import os
import re
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any

from invact_vla.config.help import help_text
from invact_vla.core.errors import UserError

_NO_TYPE = re.compile(
    r"Expected a dict with a 'type' key for <class '([\w.]+)'>, got (.*)", re.DOTALL
)
# addresses with a user and a password, as in ws://user:password@host
_CREDENTIALS = re.compile(r"([a-zA-Z][\w+.-]*://|\bwss?:/?)\S*@")
_LONGEST = 2000  # letters of a message
_NO_VALUE = re.compile(r"Missing required field\(s\) (.*) for \w+")
_BARE = re.compile(r"Couldn't instantiate class \w+ using the given arguments\.?")
_NO_MEMBER = re.compile(r"Couldn't find a choice class for (.*) in <class '([\w.]+)'>", re.DOTALL)
_NO_FIELD = re.compile(r"The fields? (.*) (?:are|is) not valid for (\w+)", re.DOTALL)
_NO_ITEMS = re.compile(
    r"Failed when parsing\s+value=(.*?)\s+into field .* of type (.*?)\.\s+Underlying .*", re.DOTALL
)
_NO_CHOICE = re.compile(r"Expected a dict for a choice class, got (.*)", re.DOTALL)


def parse_config(
    config_class: type, args: Sequence[str], program: str = "invact", purpose: str = ""
) -> Any:
    """Parse `--config_path file.yaml --field value ...` into a dataclass.

    Leading words without a flag become the field that the class names as its POSITIONAL.
    Unknown keys and flags, bad values and missing files raise UserError naming the cause. `--help`
    prints every option with its comment, below what the program is for, and exits with 0.
    """
    if any(word in ("-h", "--help") for word in args):
        print(help_text(config_class, program, purpose))
        sys.exit(0)
    args = _name_words(args, config_class)
    from draccus.utils import DraccusException

    from invact_vla.config.parser import parse

    try:
        config = parse(config_class, args, program)
        _check_numbers(config, ())
        return config
    except (
        DraccusException, ValueError, TypeError, LookupError, AttributeError, ArithmeticError,
        RecursionError, OSError,
    ) as error:  # fmt: skip
        raise UserError(" ".join(_cause(error).split())[:_LONGEST]) from error


def _check_numbers(config: Any, names: tuple[str, ...]) -> None:
    """ValueError for options that no stage can mean: numbers that are none, and seeds below 0."""
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), (*names, field.name)
        if dataclasses.is_dataclass(value):
            _check_numbers(value, path)
        elif isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{'.'.join(path)} must be a number, got nan")
        elif field.name == "seed" and isinstance(value, int) and value < 0:
            raise ValueError(f"{'.'.join(path)} must be >= 0, got {value}")


def _name_words(args: Sequence[str], config_class: type) -> list[str]:
    """`a b --x 1` becomes `--name ["a", "b"] --x 1` if POSITIONAL names a tuple; other fields take
    the first word alone."""
    name = getattr(config_class, "POSITIONAL", None)
    words = list(itertools.takewhile(lambda word: not word.startswith("-"), args))
    if name is None or not words:
        return list(args)
    if typing.get_origin(typing.get_type_hints(config_class)[name]) is tuple:
        return [f"--{name}", json.dumps(words), *args[len(words) :]]
    return [f"--{name}", *args]


def run(action: Callable[[], Any]) -> int:
    """Call a command; exit code 0, or its own int, or 2 with one line for a UserError."""
    logging.basicConfig(format="%(message)s")  # of libraries only warnings
    for package in ("invact_vla", "latent_actions", "libero_eval"):
        logging.getLogger(package).setLevel(logging.INFO)
    try:
        result = action()
    except UserError as error:
        line = "".join(c if c.isprintable() else " " for c in str(error))  # a terminal obeys others
        print("error:", _CREDENTIALS.sub(r"\1", " ".join(line.split())), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return result if isinstance(result, int) else 0


def _cause(error: BaseException | None) -> str:
    """The message of an exception and of what led to it, each said once."""
    parts: list[str] = []
    while error is not None:
        text = _about_types(_said(error).strip())
        says_nothing = _BARE.fullmatch(text) and error.__cause__ is not None
        if text and not says_nothing and not any(text in known for known in parts):
            parts.append(text)
        error = error.__cause__
    return "; because: ".join(parts)


def _said(error: BaseException) -> str:
    """What an exception says; draccus' own cannot where a number is a name on the way to a value."""
    if path := getattr(error, "key_path", ()):
        return f"`{'.'.join(map(str, path))}`: {getattr(error, 'message', '')}"
    return str(error)


def _about_types(text: str) -> str:
    """draccus' sentences about what is missing, in the words of the command line."""
    if match := _NO_TYPE.fullmatch(text):
        name, known = match[1].rpartition(".")[2], _members(match[1])
        return f"{name}: its type is missing; give --NAME.type, one of {known}, with {match[2]}"
    if match := _NO_MEMBER.search(text):
        return _NO_MEMBER.sub(lambda m: f"no type {m[1]}: expected one of {_members(m[2])}", text)
    if _NO_FIELD.search(text):
        return f"{text}: leave them out, or give the --NAME.type that has them"
    if match := _NO_CHOICE.fullmatch(text):
        return f"{match[1]!r} is no choice: give --NAME.type and its options --NAME.option"
    if match := _NO_ITEMS.search(text):
        kind = match[2].replace("pathlib.", "")
        text = _NO_ITEMS.sub(lambda m: f"expected {kind}, as '{{NAME: VALUE}}', got {m[1]}", text)
    return _NO_VALUE.sub(lambda match: f"missing {match[1]}: give --NAME VALUE", text)


def _members(name: str) -> str:
    """The names in a registry, by the full name of its class."""
    module, _, kind = name.rpartition(".")
    return ", ".join(getattr(importlib.import_module(module), kind).get_known_choices())
