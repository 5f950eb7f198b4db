"""Reading run folders: metric rows, durations, summaries."""

import math
from pathlib import Path
from typing import Any

from invact_vla.core.files import read_json
from invact_vla.core.limits import inside, parse_json, read_text


def read_metrics(folder: Path) -> list[dict[str, float]]:
    """Rows of a run's metrics.jsonl by step, numbers only; empty if there is none.

    The last row of a step counts: a resumed run may have written one twice. A torn last line, from
    a killed run, is left out; any other line that is not JSON is a UserError.
    """
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = read_text(inside(folder, path.name)).split("\n")
    rows: dict[float, dict[str, float]] = {}
    for number, line in enumerate(lines[:-1], start=1):
        row = parse_json(line, f"{path}:{number}")
        if isinstance(row, dict) and _is_number(row.get("step")):
            rows[row["step"]] = {name: value for name, value in row.items() if _is_number(value)}
    return [rows[step] for step in sorted(rows)]


def curve(rows: list[dict[str, float]], name: str) -> list[tuple[float, float]]:
    """(step, value) of one metric, where a row has it."""
    return [(row["step"], row[name]) for row in rows if name in row]


def read_optional_json(path: Path) -> Any:
    """The content of a JSON file, or None if there is no such file; UserError for a link out of its
    folder."""
    return read_json(inside(path.parent, path.name)) if path.exists() else None


def pictures_of(folder: Path) -> list[Path]:
    """PNG files directly inside a run folder."""
    return [inside(folder, path.name) for path in sorted(folder.glob("*.png"))]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
