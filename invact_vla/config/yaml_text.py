"""YAML of bounded cost: plain values only, no tag of another kind, nothing included, no alias bomb. And
no name twice in a mapping, of which YAML would drop the first."""

from pathlib import Path
from typing import Any

import yaml

from invact_vla.core.errors import UserError
from invact_vla.core.limits import read_text, short

MAX_BYTES = 256 << 10
MAX_VALUES = 100_000  # values of a document, those of an alias counted each time
MAX_DIGITS = 100  # of a number; YAML's numbers of base 60 cost the square of theirs


class _Loader(yaml.SafeLoader):
    """SafeLoader with numbers of bounded length, and names that are given once."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for name, _ in node.value:
            if (name.tag, str(name.value)) in seen:
                problem = f"{short(str(name.value))!r} is given twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=name.start_mark)
            seen.add((name.tag, str(name.value)))
        return node

    def construct_number(self, node: Any) -> Any:
        if len(node.value) > MAX_DIGITS:
            raise ValueError(f"a number of {len(node.value)} digits")
        is_int = node.tag.endswith(":int")
        return self.construct_yaml_int(node) if is_int else self.construct_yaml_float(node)


for _kind in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_kind}", _Loader.construct_number)


def read_yaml(path: Path) -> Any:
    """The value of a YAML file; UserError for a missing, malformed or enormous one."""
    return parse_yaml(read_text(path, MAX_BYTES), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The value of a YAML text; anything but plain values is a UserError. where: for the message."""
    try:
        value = yaml.load(text, _Loader)
        _count(value)
    except (yaml.YAMLError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
            RecursionError) as error:  # fmt: skip
        raise UserError(f"{where} is not plain YAML: {_reason(error)}") from error
    return value


def _count(value: Any, depth: int = 0, seen: int = 0) -> int:
    """How many values there are; ValueError if too many, too deep, or without end."""
    seen += 1
    if seen > MAX_VALUES or depth > 100:
        raise ValueError(f"more than {MAX_VALUES} values, or nested too deeply")
    if isinstance(value, dict):
        for key, part in value.items():
            seen = _count(part, depth + 1, _count(key, depth + 1, seen))
    elif isinstance(value, list | tuple | set):
        for part in value:
            seen = _count(part, depth + 1, seen)
    return seen


def _reason(error: Exception) -> str:
    """Without the lines of the text that yaml shows."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    if problem is None:
        return short(error)
    return short(f"{problem}{f', line {mark.line + 1}' if mark else ''}")
