"""The options of a command: the fields of its config and of its parts, as they are typed.

out                         a field
loop.steps                  a field of a part
policy.type, policy.folder  which member of a registry, and a field of that member
benchmarks[].limit          a field of the items of a list or mapping: for YAML, not a flag
"""

import dataclasses
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

REQUIRED = dataclasses.MISSING


@dataclass(frozen=True)
class Option:
    """One option. kind: its type, without None. owner: the dataclass that has it; field: its name
    there. member: the member of a registry that it belongs to, as `policy.type checkpoint`."""

    flag: str
    kind: Any
    default: Any
    owner: type
    field: str
    member: str = ""

    @property
    def part(self) -> Any:
        """The dataclass or registry that the option holds; None if it is a plain value."""
        return self.kind if dataclasses.is_dataclass(self.kind) else None


def options(config_class: type) -> list[Option]:
    """All options in the order of their fields; each part comes before its own."""
    return list(_walk(config_class, "", "", REQUIRED))


def members_of(kind: Any) -> dict[str, type]:
    """Name -> class of the members of a registry; empty for other types, a member among them."""
    choices = dict(getattr(kind, "get_known_choices", dict)())
    return {} if kind in choices.values() else choices


def without_none(kind: Any) -> Any:
    """tuple[int, ...] | None -> tuple[int, ...]."""
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    return parts[0] if type(None) in typing.get_args(kind) and len(parts) == 1 else kind


def _walk(kind: type, prefix: str, member: str, instance: Any) -> Iterator[Option]:
    """instance: what the fields' defaults are taken from, REQUIRED where there is none."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        flag, inner = prefix + field.name, without_none(hints[field.name])
        default = (
            default_of(field) if instance in (REQUIRED, None) else getattr(instance, field.name)
        )
        option = Option(flag, inner, default, kind, field.name, member)
        yield option
        if dataclasses.is_dataclass(inner):
            yield from _parts(option)
            continue
        for item in typing.get_args(inner):
            if dataclasses.is_dataclass(item):
                yield from _parts(replace(option, flag=f"{flag}[]", kind=item, default=REQUIRED))


def _parts(whole: Option) -> Iterator[Option]:
    """The options inside a part; for a registry its `type`, which the part's comment explains."""
    choices, default = members_of(whole.kind), whole.default
    if not choices:
        yield from _walk(whole.kind, f"{whole.flag}.", whole.member, default)
        return
    names = {cls: name for name, cls in choices.items()}
    usual = names.get(type(default), whole.kind.default_choice_name() or REQUIRED)
    kind = typing.Literal[tuple(choices)]
    yield replace(whole, flag=f"{whole.flag}.type", kind=kind, default=usual)
    for name, cls in choices.items():
        instance = default if type(default) is cls else REQUIRED
        yield from _walk(cls, f"{whole.flag}.", f"{whole.flag}.type {name}", instance)


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """Of a field; REQUIRED where it has none."""
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()
