"""A command line and a YAML file to a config. draccus decodes the values; it is not given the words and
the file, since its own parser reads any file that a config names by `!include`, or that a value
beginning with "include" names, and merges a mapping where a user replaces it."""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import draccus
from draccus.parsers import decoding

from invact_vla.config.list_options import is_value
from invact_vla.config.options import Option, members_of, options
from invact_vla.config.yaml_text import parse_yaml, read_yaml
from invact_vla.core.errors import UserError


def parse(config_class: type, args: Sequence[str], program: str) -> Any:
    """The config of a command line `--config_path file.yaml --a.b value --c=value --flag`; what it
    gives replaces what the file gives. Raises UserError for words and YAML that cannot be read,
    draccus' exceptions for values of the wrong kind."""
    known = {option.flag: option for option in options(config_class) if "[]" not in option.flag}
    given = _read_words(args, known, program)
    path = given.pop("config_path", None)
    config = {} if path is None else _config(Path(path))
    # types first: the options of another member of a registry go with it
    for flag, text in sorted(given.items(), key=lambda item: not item[0].endswith(".type")):
        value = "" if text == "" else parse_yaml(text, f"--{flag}")
        _put(config, flag, value, known)
    for option in known.values():
        _fill(config, option)
    return decoding.decode(config_class, config)


def _read_words(args: Sequence[str], known: dict[str, Option], program: str) -> dict[str, str]:
    """Flag -> text, the last one where a flag is given twice."""
    given: dict[str, str] = {}
    rest = list(args)
    while rest:
        word = rest.pop(0)
        flag, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or (flag not in known and flag != "config_path"):
            raise UserError(f"unrecognized arguments: {_unknown(word, rest, known, program)}")
        if not equals:
            if rest and is_value(rest[0]):
                text = rest.pop(0)
            elif flag in known and known[flag].kind is bool:
                text = "true"
            else:
                raise UserError(f"argument --{flag}: expected one argument")
        given[flag] = text
    return given


def _unknown(word: str, rest: list[str], known: dict[str, Option], program: str) -> str:
    near = difflib.get_close_matches(word.partition("=")[0].lstrip("-"), known, 3)
    hint = f"did you mean {' or '.join(f'--{flag}' for flag in near)}? " if near else ""
    what = " ".join([word, *rest[:1]]) if word.startswith("-") else word
    return f"{what}: {hint}`{program} --help` lists all options"


def _config(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise UserError(f"no config file {path}: correct --config_path")
    config = read_yaml(path)
    if not isinstance(config, dict | None):
        raise UserError(f"{path}: expected names and values, got {type(config).__name__}")
    return config or {}


def _put(config: dict[Any, Any], flag: str, value: Any, known: dict[str, Option]) -> None:
    """Set `a.b` in nested dicts. A part is given option by option, and {} stands for its defaults;
    everything else is replaced, a mapping too."""
    option = known.get(flag)
    if option is not None and option.part is not None and value and isinstance(value, dict):
        for name in sorted(value, key=lambda name: name != "type"):
            _put(config, f"{flag}.{name}", value[name], known)
        return
    *above, name = flag.split(".")
    for part in above:
        inner = config.get(part)
        config[part] = dict(inner) if isinstance(inner, dict) else {}
        config = config[part]
    if name == "type" and above and config.get("type", value) != value:
        _leave_member(config, known[".".join(above)].kind, value)
    config[name] = value


def _fill(config: dict[Any, Any], option: Option) -> None:
    """What is not said about a part stays as the command has it, which may not be its class' default."""
    part: Any = config
    for name in option.flag.split("."):
        part = part.get(name) if isinstance(part, dict) else None
    is_plain = option.part is not None and not option.member and not members_of(option.kind)
    if is_plain and isinstance(part, dict) and isinstance(option.default, option.kind):
        for field in dataclasses.fields(option.default):
            if field.init and field.name not in part:
                part[field.name] = draccus.encode(getattr(option.default, field.name))


def _leave_member(part: dict[Any, Any], registry: Any, name: Any) -> None:
    """Forget what the file said about another member of a registry."""
    fields = getattr(members_of(registry).get(name), "__dataclass_fields__", part)
    for key in [key for key in part if key not in fields]:
        del part[key]
