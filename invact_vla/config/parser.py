"""A command line and a YAML file to a config. draccus decodes the values; it is not given the words and
the file, since its own parser reads any file that a config names by `!include`, or that a value
beginning with "include" names, and merges a mapping where a user replaces it.

Options that hold several values or name a choice, as people type them.

    --tasks 3    --tasks 0,3    --tasks 0 3    --tasks [0,3]    --tasks 0 --tasks 3
    --texts words.txt    --texts a.txt b.txt

and in a YAML file `tasks: 3`, `tasks: 0,3`, `tasks: [0, 3]`. One value is a list of that one value:
a string is never taken letter by letter. A comma separates, but not inside the name of a file that
exists. draccus itself reads YAML lists alone. A choice may be named without its `.type`:

    --policy noop    --policy runs/posttrain
"""

import contextlib
import dataclasses
import difflib
import functools
import json
import re
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import draccus
from draccus.parsers import decoding
from draccus.utils import DecodingError

from invact_vla.config.options import Option, default_of, members_of, options, without_none
from invact_vla.config.yaml_text import parse_yaml, read_yaml
from invact_vla.core.errors import UserError

_NUMBER = re.compile(r"-[\d.].*")  # a negative number is a value, not a flag
_NUMBERS = (int, float)


def parse(config_class: type, args: Sequence[str], program: str) -> Any:
    """The config of a command line `--config_path file.yaml --a.b value --c=value --flag`; what it
    gives replaces what the file gives. Raises UserError for words and YAML that cannot be read,
    draccus' exceptions for values of the wrong kind."""
    register_lists()
    every = [option for option in options(config_class) if "[]" not in option.flag]
    known = {option.flag: option for option in every}
    given = _read_words(args, every, program, getattr(config_class, "POSITIONAL", ""))
    path = given.pop("config_path", None)
    config = {} if path is None else _config(Path(path))
    # types first: the options of another member of a registry go with it
    for flag, text in sorted(given.items(), key=lambda item: not item[0].endswith(".type")):
        _put(config, flag, _value(text, flag, known), known)
    _fill(config, config_class, None)
    _check_given(config, config_class)
    return decoding.decode(config_class, config)


def _read_words(
    args: Sequence[str], every: list[Option], program: str, first: str
) -> dict[str, str]:
    """Flag -> text for YAML: the last one where a flag is given twice, all of them, as a JSON list, for
    an option that holds several values. first: the option that words before all flags are."""
    kinds: dict[str, list[Any]] = {"config_path": [Path]}
    for option in every:  # of an option that several members of a registry have, all
        kinds.setdefault(option.flag, []).append(option.kind)
    given: dict[str, str] = {}
    rest = list(args)
    while rest:
        word = rest.pop(0)
        flag, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or flag not in kinds:
            said = _unknown(word, rest, kinds, program, first)
            raise UserError(f"unrecognized arguments: {said}")
        found = kinds[flag]
        is_list = {typing.get_origin(kind) for kind in found} <= {tuple, list}
        words = [text] if equals else []
        while rest and not equals and is_value(rest[0]) and (is_list or not words):
            words.append(rest.pop(0))
        if not words and found[-1] is bool:
            words = ["true"]
        if not words or (is_list and not any(word.strip(" ,") for word in words)):
            raise UserError(f"argument --{flag}: expected one argument")
        if is_list:
            items = _items_of_words(words, typing.get_args(found[0]) or (Any, ...))
            before = json.loads(given[flag]) if flag in given and not isinstance(items, str) else []
            given[flag] = items if isinstance(items, str) else json.dumps([*before, *items])
        elif len(found) == 1 and members_of(found[0]):
            given |= _chosen(found[0], flag, words[0])
        else:
            given[flag] = words[0]
    return given


def _unknown(word: str, rest: list[str], known: Iterable[str], program: str, first: str) -> str:
    near = difflib.get_close_matches(word.partition("=")[0].lstrip("-"), known, 3)
    hint = f"did you mean {' or '.join(f'--{flag}' for flag in near)}? " if near else ""
    if first and is_value(word):
        hint = f"words for --{first} come before all options, or behind --{first}; "
    what = " ".join([word, *rest[:1]]) if word.startswith("-") else word
    return f"{what}: {hint}`{program} --help` lists all options"


def _config(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise UserError(f"no config file {path}: correct --config_path")
    config = read_yaml(path)
    if not isinstance(config, dict | None):
        raise UserError(f"{path}: expected names and values, got {type(config).__name__}")
    return config or {}


def _value(text: str, flag: str, known: dict[str, Option]) -> Any:
    """What a text means: names and paths stay as they are typed, 007 and "#1" among them."""
    option = known.get(flag)
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    if option is not None and option.kind in (str, Path) and not is_quoted:
        hint = typing.get_type_hints(option.owner)[option.field]
        return None if text in ("null", "~") and _may_be_none(hint) else text
    return "" if text == "" else parse_yaml(text, f"--{flag}")


def _check_given(value: Any, hint: Any, name: str = "") -> None:
    """UserError for null where a value is needed, and for true and false where a number is: draccus
    takes the one as it is, the other for 1 and 0."""
    kind = without_none(hint)
    if value is None and not _may_be_none(hint):
        raise UserError(f"`{name}`: expected a value, got null; give one, or leave it out")
    if isinstance(value, bool) and kind in _NUMBERS:
        raise UserError(f"`{name}`: expected a number, got {str(value).lower()}")
    if not isinstance(value, dict):
        return
    if choices := members_of(kind):
        kind = choices.get(value.get("type", kind.default_choice_name()), kind)
    hints = typing.get_type_hints(kind) if dataclasses.is_dataclass(kind) else {}
    if typing.get_origin(kind) is dict:
        hints = dict.fromkeys(value, typing.get_args(kind)[1])
    for part in value:
        if part in hints:
            _check_given(value[part], hints[part], f"{name}.{part}" if name else part)


def _may_be_none(hint: Any) -> bool:
    return hint is Any or type(None) in typing.get_args(hint)


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


def _fill(given: dict[Any, Any], kind: type, instance: Any) -> None:
    """What is not said about a part, or about the usual member of a registry, stays as the command has
    it, which may not be its class' default. instance: what a `kind` is without any word, if known."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        part, cls = given.get(field.name), _class(hints[field.name])
        if not isinstance(part, dict) or cls is None:
            continue
        known = instance is not None
        default = getattr(instance, field.name) if known else default_of(field)
        if choices := members_of(cls):
            cls = choices.get(part.get("type", cls.default_choice_name()))
        if type(default) is cls:
            for own in dataclasses.fields(default):
                if own.init and own.name not in part:
                    part[own.name] = draccus.encode(getattr(default, own.name))
        if cls is not None:
            _fill(part, cls, default if type(default) is cls else None)


def _class(hint: Any) -> Any:
    """The dataclass that a hint means, None if it is none."""
    kind = without_none(hint)
    return kind if dataclasses.is_dataclass(kind) else None


def _leave_member(part: dict[Any, Any], registry: Any, name: Any) -> None:
    """Forget what the file said about another member of a registry."""
    fields = getattr(members_of(registry).get(name), "__dataclass_fields__", part)
    for key in [key for key in part if key not in fields]:
        del part[key]


def register_lists() -> None:
    """Teach draccus to read one value, or text with commas, where a tuple or a list is expected."""
    register: Any = decoding.decode
    if tuple in register.registry:
        return
    register.register(tuple, functools.partial(_decode, decoding.decode_tuple), True)
    register.register(list, functools.partial(_decode, decoding.decode_list), True)
    decoding.get_decoding_fn.cache_clear()


def _decode(make: Any, cls: Any, raw: Any, path: Sequence[str]) -> Any:
    """A tuple or list of type `cls` from what YAML gave. Raises draccus' DecodingError."""
    types = typing.get_args(cls) or ((Any, ...) if make.__name__ == "decode_tuple" else (Any,))
    if raw is None:
        raise DecodingError(tuple(path), "expected values, got none ([] stands for an empty list)")
    if isinstance(raw, str):
        items = _split(raw, types)
        if not items:
            said = f"expected values, got {raw!r} ([] stands for an empty list)"
            raise DecodingError(tuple(path), said)
        raw = items
    elif not isinstance(raw, Sequence):
        raw = [raw]
    if set(types) & set(_NUMBERS) and any(isinstance(item, bool) for item in raw):
        raise DecodingError(tuple(path), f"expected numbers, got {list(raw)}")
    return make(*types)(list(raw), path)


def is_value(word: str) -> bool:
    """Whether a word is no flag."""
    return not word.startswith("-") or bool(_NUMBER.fullmatch(word))


def _items_of_words(words: list[str], types: tuple[Any, ...]) -> list[str] | str:
    """The items of shell words; their text, for YAML to read, where items are no plain values."""
    import yaml

    whole, plain = " ".join(words), (str, int, float, Path, ...)
    if not all(kind in plain or typing.get_origin(kind) is typing.Literal for kind in types):
        return whole
    if whole.startswith("[") and whole.endswith("]"):
        with contextlib.suppress(yaml.YAMLError):
            return [str(item) for item in yaml.safe_load(whole)]
    return [item for word in words for item in _split(word, types)]


def _split(text: str, types: tuple[Any, ...]) -> list[str]:
    """`0,3` -> two items; the name of a file that exists -> one."""
    if set(types) & set(_NUMBERS):
        inside = re.sub(r"^[\[(](.*)[\])]$", r"\1", text.strip())
        return [item for item in re.split(r"[,\s]+", inside) if item]
    if "," not in text or Path(text).exists():
        return [text]
    return [item.strip() for item in text.split(",") if item.strip()]


def _chosen(choice: Any, flag: str, word: str) -> dict[str, str]:
    """`--policy noop` means its type; `--policy DIR` the folder of the choice that is the default."""
    choices: Any = members_of(choice)
    if word in choices:
        return {f"{flag}.type": word}
    usual = choice.default_choice_name()
    takes_folder = usual is not None and "folder" in choices[usual].__dataclass_fields__
    if usual is not None and takes_folder and ("/" in word or Path(word).is_dir()):
        return {f"{flag}.type": usual, f"{flag}.folder": word}
    return {flag: word}
