"""Values that no config means, and configs that hold them."""

from collections.abc import Iterator
from typing import Any

ODD_VALUES: list[Any] = [
    *(10**6, 10**9, 2**31, 10**18, 2**63, 10**40, 0, -1, 1e300, float("nan"), 0.5),
    *("x", "9" * 5000, None, True, [], [1], {}, {"a": {"b": [1]}}, "\x1b[2J\n"),
]


def changed(value: Any, odd: Any) -> Iterator[Any]:
    """The value with each of its parts replaced by an odd one."""
    for key in value if isinstance(value, dict) else range(len(value)):
        parts = [odd, *(changed(value[key], odd) if isinstance(value[key], dict | list) else ())]
        for part in parts:
            copy = value.copy()
            copy[key] = part
            yield copy
