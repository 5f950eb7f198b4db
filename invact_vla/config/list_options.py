"""Options that hold several values or name a choice, as people type them.

    --tasks 3    --tasks 0,3    --tasks 0 3    --tasks [0,3]    --tasks 0 --tasks 3
    --texts words.txt    --texts a.txt b.txt

and in a YAML file `tasks: 3`, `tasks: 0,3`, `tasks: [0, 3]`. One value is a list of that one value:
a string is never taken letter by letter. A comma separates, but not inside the name of a file that
exists. draccus itself reads YAML lists alone. A choice may be named without its `.type`:

    --policy noop    --policy runs/posttrain
"""

import contextlib
import dataclasses
import functools
import json
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_NUMBER = re.compile(r"-[\d.].*")  # a negative number is a value, not a flag
_NUMBERS = (int, float)


def join_lists(args: Sequence[str], config_class: type) -> list[str]:
    """The command line with one `--flag [JSON list]` for every option that holds several values, and
    `--flag.type` for every choice.

    Options of other kinds stay as they are, and so do lists in YAML's own form.
    """
    joined: list[str] = []
    places: dict[str, int] = {}  # option -> where its list stands in `joined`
    rest = list(args)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        sequence = _sequence_type(config_class, flag)
        choice = _choice_type(config_class, flag)
        if choice is not None and (equals or (rest and _is_value(rest[0]))):
            joined += _chosen(choice, flag, value if equals else rest.pop(0))
            continue
        if sequence is None:
            joined.append(word)
            continue
        words = [value] if equals else []
        while rest and not equals and _is_value(rest[0]):
            words.append(rest.pop(0))
        if not words:  # argparse says what is missing
            joined.append(word)
            continue
        items = _items_of_words(words, _item_types(sequence))
        if flag in places and isinstance(items, list):
            before = json.loads(joined[places[flag]])
            joined[places[flag]] = json.dumps([*before, *items])
            continue
        if isinstance(items, list):
            places[flag] = len(joined) + 1
        joined += [flag, json.dumps(items) if isinstance(items, list) else items]
    return joined


def register_lists() -> None:
    """Teach draccus to read one value, or text with commas, where a tuple or a list is expected."""
    from draccus.parsers import decoding

    register: Any = decoding.decode
    if tuple in register.registry:
        return
    register.register(tuple, functools.partial(_decode, decoding.decode_tuple), True)
    register.register(list, functools.partial(_decode, decoding.decode_list), True)
    decoding.get_decoding_fn.cache_clear()


def _decode(make: Any, cls: Any, raw: Any, path: Sequence[str]) -> Any:
    """A tuple or list of type `cls` from what YAML gave. Raises draccus' DecodingError."""
    from draccus.utils import DecodingError

    types = typing.get_args(cls) or ((Any, ...) if make.__name__ == "decode_tuple" else (Any,))
    if raw is None:
        raise DecodingError(tuple(path), "expected values, got none ([] stands for an empty list)")
    if isinstance(raw, str):
        raw = _split(raw, types)
    elif not isinstance(raw, Sequence):
        raw = [raw]
    if set(types) & set(_NUMBERS) and any(isinstance(item, bool) for item in raw):
        raise DecodingError(tuple(path), f"expected numbers, got {list(raw)}")
    return make(*types)(list(raw), path)


def _is_value(word: str) -> bool:
    return not word.startswith("-") or bool(_NUMBER.fullmatch(word))


def _items_of_words(words: list[str], types: tuple[Any, ...]) -> list[str] | str:
    """The items of shell words; their text, for YAML to read, where items are no plain values."""
    import yaml

    whole = " ".join(words)
    if not all(_is_plain(item) for item in types if item is not ...):
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


def _item_types(sequence: Any) -> tuple[Any, ...]:
    return typing.get_args(sequence) or (Any, ...)


def _is_plain(kind: Any) -> bool:
    return kind in (str, int, float, Path) or typing.get_origin(kind) is typing.Literal


def _sequence_type(config_class: type, flag: str) -> Any:
    """The tuple or list type of the option `--a.b`; None if it is of another kind, or of several."""
    found = _types(config_class, flag)
    if found and all(typing.get_origin(kind) in (tuple, list) for kind in found):
        return found[0]
    return None


def _choice_type(config_class: type, flag: str) -> Any:
    """The registry that the option `--a.b` chooses from; None if it is of another kind."""
    found = _types(config_class, flag)
    return found[0] if len(found) == 1 and hasattr(found[0], "get_known_choices") else None


def _chosen(choice: Any, flag: str, word: str) -> list[str]:
    """`--policy noop` means its type; `--policy DIR` the folder of the choice that is the default."""
    choices = choice.get_known_choices()
    if word in choices:
        return [f"{flag}.type", word]
    usual = choices.get(choice.default_choice_name())
    has_folder = usual is not None and "folder" in usual.__dataclass_fields__
    return [f"{flag}.folder" if has_folder and Path(word).is_dir() else flag, word]


def _types(config_class: type, flag: str) -> list[Any]:
    """The types that the option `--a.b` may have, one per member of the registries on the way."""
    if not flag.startswith("--"):
        return []
    kinds: list[Any] = [config_class]
    for name in flag.removeprefix("--").split("."):
        hints = [typing.get_type_hints(c) for kind in kinds for c in _dataclasses_of(kind)]
        kinds = [hint[name] for hint in hints if name in hint]
    return [_without_none(kind) for kind in kinds]


def _dataclasses_of(kind: Any) -> list[type]:
    """The dataclasses that a field of this type may hold, the members of a registry among them."""
    found = []
    for part in (kind, *typing.get_args(kind)):
        if isinstance(part, type) and dataclasses.is_dataclass(part):
            choices: Any = getattr(part, "get_known_choices", dict)
            found += list(choices().values()) or [part]
    return found


def _without_none(kind: Any) -> Any:
    """tuple[int, ...] | None -> tuple[int, ...]."""
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    return parts[0] if type(None) in typing.get_args(kind) and len(parts) == 1 else kind
