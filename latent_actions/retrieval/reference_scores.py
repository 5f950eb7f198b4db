"""`invact encoder levels HISTOGRAM.json`: chance and oracle of a data set from its counts alone.

The file holds, beside an optional note, one or more groupings {name: {group: {label: count}}}.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from latent_actions.retrieval.metric import TOP, score_bounds

_LAYOUT = "expected {grouping: {group: {label: count}}}"


@dataclass(frozen=True, kw_only=True)
class LevelsConfig:
    """Which counts to compute the levels of."""

    POSITIONAL: ClassVar[str] = "histogram"  # a word without a flag

    histogram: Path  # JSON file {grouping: {group: {label: count}}}; also without the flag


def read_histogram(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Groupings of a histogram file, text entries (notes) left out. Raises UserError on any other
    content."""
    if not path.is_file():
        raise UserError(
            f"expected a histogram file, found none at {path}: give that of a JSON file"
        )
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; {_LAYOUT}")
    groupings = {name: value for name, value in content.items() if not isinstance(value, str)}
    if not groupings:
        raise UserError(f"{path} holds no grouping; {_LAYOUT}")
    for name, grouping in groupings.items():
        if not isinstance(grouping, dict) or not grouping:
            raise UserError(f"{path}: grouping {name!r} must be a non-empty object of groups")
        for group, counts in grouping.items():
            if not isinstance(counts, dict):
                raise UserError(f"{path}: {name}/{group} must map labels to counts, got {counts!r}")
            for label, count in counts.items():
                if type(count) is not int or count < 0:
                    where = f"{path}: {name}/{group}/{label}"
                    raise UserError(f"{where} must be a count >= 0, got {count!r}")
        if not any(sum(counts.values()) for counts in grouping.values()):
            raise UserError(f"{path}: grouping {name!r} counts no clip")
    return groupings


def main(config: LevelsConfig) -> int:
    """Print the bounds of each grouping in the file; returns the exit code."""
    for name, grouping in read_histogram(config.histogram).items():
        values = score_bounds(grouping)
        print(
            f"{name}: chance {values.chance:.3f} %  oracle {values.oracle:.2f} %  answerable "
            f"{values.answerable:.1f} %  ({values.n:,} clips, {values.groups} groups, P@{TOP})"
        )
    return 0
