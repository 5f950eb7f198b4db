"""What a video source is: a config that lists its clips and pairs. The members are in
`sources/`.
"""

import abc
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import draccus

from invact_vla.errors import UserError
from latent_actions.video.records import ClipRecord, PairRecord, Split

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SourceConfig(draccus.ChoiceRegistry, abc.ABC):
    """A folder of videos in a known layout. Nothing is decoded to list clips."""

    root: Path = Path("data")  # folder that holds the data set

    def parents(self) -> dict[str, Path]:
        """The run folder that made the videos, if a stage did."""
        root = Path(self.root)
        made = [folder for folder in (root, root.parent) if (folder / "provenance.json").exists()]
        return {"source": made[0]} if made else {}

    @abc.abstractmethod
    def clips(self, split: Split) -> list[ClipRecord]:
        """Labelled atomic clips of a split, in a fixed order; what was dropped is logged with
        counts.
        """

    @abc.abstractmethod
    def pairs(self, split: Split, h_s: float, pairs_per_clip: int, seed: int) -> list[PairRecord]:
        """Frame pairs h_s seconds apart, up to `pairs_per_clip` a clip, drawn from (seed,
        episode).
        """


class Dropped:
    """Counts what a loader left out, by reason, with one example each."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Count `count` items left out for `reason`."""
        self.counts[reason] += count
        self.examples.setdefault(reason, example)

    def log(self, what: str, kept: int) -> None:
        """One line: how many were kept, how many dropped and why."""
        reasons = ", ".join(
            f"{count} {reason} (such as {self.examples[reason]})"
            for reason, count in sorted(self.counts.items())
        )
        logger.info("%s: kept %d%s", what, kept, f"; dropped {reasons}" if reasons else "")


def check_folder(path: Path, what: str) -> None:
    """Raise a UserError that says what was expected if `path` is not a folder."""
    if not path.is_dir():
        raise UserError(f"no folder {path}: expected {what}; give the right root")
