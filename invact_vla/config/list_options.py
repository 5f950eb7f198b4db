"""Options that hold several values or name a choice, as people type them.

    --tasks 3    --tasks 0,3    --tasks 0 3    --tasks [0,3]    --tasks 0 --tasks 3
    --texts words.txt    --texts a.txt b.txt

and in a YAML file `tasks: 3`, `tasks: 0,3`, `tasks: [0, 3]`. One value is a list of that one value:
a string is never taken letter by letter. A comma separates, but not inside the name of a file that
exists. draccus itself reads YAML lists alone. A choice may be named without its `.type`:

    --policy noop    --policy runs/posttrain
"""

import contextlib
import functools
import json
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from invact_vla.config.options import members_of, options

_NUMBER = re.compile(r"-[\d.].*")  # a negative number is a value, not a flag
_NUMBERS = (int, float)


def join_lists(args: Sequence[str], config_class: type) -> list[str]:
    """The command line with one `--flag [JSON list]` for every option that holds several values, and
    `--flag.type` for every choice.

    Options of other kinds stay as they are, and so do lists in YAML's own form.
    """
    kinds: dict[str, list[Any]] = {}  # of an option of several members of a registry, all
    for option in options(config_class):
        kinds.setdefault(f"--{option.flag}", []).append(option.kind)
    joined: list[str] = []
    places: dict[str, int] = {}  # option -> where its list stands in `joined`
    rest = list(args)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        found = kinds.get(flag, [])
        if len(found) == 1 and members_of(found[0]) and (equals or (rest and is_value(rest[0]))):
            joined += _chosen(found[0], flag, value if equals else rest.pop(0))
            continue
        if not found or any(typing.get_origin(kind) not in (tuple, list) for kind in found):
            joined.append(word)
            continue
        words = [value] if equals else []
        while rest and not equals and is_value(rest[0]):
            words.append(rest.pop(0))
        if not words:  # the parser says what is missing
            joined.append(word)
            continue
        items = _items_of_words(words, _item_types(found[0]))
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


def is_value(word: str) -> bool:
    """Whether a word is no flag."""
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


def _chosen(choice: Any, flag: str, word: str) -> list[str]:
    """`--policy noop` means its type; `--policy DIR` the folder of the choice that is the default."""
    choices: Any = members_of(choice)
    if word in choices:
        return [f"{flag}.type", word]
    usual = choice.default_choice_name()
    takes_folder = usual is not None and "folder" in choices[usual].__dataclass_fields__
    if usual is not None and takes_folder and ("/" in word or Path(word).is_dir()):
        return [f"{flag}.type", usual, f"{flag}.folder", word]
    return [flag, word]
