"""What a report is made of, names and folders; and how run folders are read."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invact_vla.core.files import read_json
from invact_vla.core.limits import inside, parse_json, read_text


@dataclass(frozen=True, kw_only=True)
class VariantInputs:
    """One variant of the experiment."""

    rollouts: Path  # run folder with episodes.jsonl
    posttrain: Path | None = None  # run folder with metrics.jsonl
    pretrain: Path | None = None  # run folder with metrics.jsonl; None for the variant without it
    start: str = ""  # in words: what this variant started from, and what it was pretrained on
    # success that the project page claims for this variant, percent
    reported_success_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class SampleClip:
    """A labeled clip pair to show."""

    text: str  # what happens in it
    video: Path  # mp4 or webm of the whole clip
    frame: int  # first frame of the pair, counted from 0
    frame_end: int  # last frame of the pair
    codes: dict[str, tuple[int, ...]]  # labeler -> its codes


@dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Everything a report shows. What is None or empty is left out, and the report says so."""

    # name -> variant; the first is what the others are compared with
    variants: dict[str, VariantInputs]
    title: str = "InvAct in miniature"  # heading
    hardware: str = ""  # a sentence on the machine and the time, shown in the summary
    controls: dict[str, Path] = field(default_factory=dict)  # name -> rollouts, e.g. expert
    encoder: Path | None = None  # run folder: retrieval.json, metrics.jsonl, *.png
    laq: Path | None = None  # run folder: metrics.jsonl, *.png
    labels: dict[str, Path] = field(default_factory=dict)  # labeler -> label store
    demos: Path | None = None  # run folder of the demonstrations: summary.json
    samples: tuple[SampleClip, ...] = ()  # clips with their codes
    stages: dict[str, Path] = field(default_factory=dict)  # stage -> run folder, in running order
    videos_per_variant: int = 6  # rollout videos shown for each variant, successes first

    def __post_init__(self) -> None:
        if not self.variants:
            raise ValueError("a report needs at least one variant")
        if self.videos_per_variant < 0:
            raise ValueError(f"need videos_per_variant >= 0, got {self.videos_per_variant}")


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
