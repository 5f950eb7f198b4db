"""What a video source is: a config that lists its clips. The members are in `sources/`."""

import abc
import os
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import draccus
import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.data.video.frames import VideoError
from invact_vla.data.video.pictures import MAX_FPS
from latent_actions.video.probes import PROBES, Probed, probe_all
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport, damage_of


@dataclass(frozen=True, kw_only=True)
class SourceConfig(draccus.ChoiceRegistry, abc.ABC):
    """A folder of videos in a known layout. Nothing is decoded to list clips.

    A member gives `index`, and `splits` if it has others; the limit on damage follows from it."""

    splits: ClassVar[tuple[Split, ...]] = ("train", "val")

    root: Path = Path("data")  # folder that holds the data set
    max_skipped: float = 0.01  # fraction of damaged or missing items that may be left out
    workers: int = 2  # processes that count the frames of videos

    def __post_init__(self) -> None:
        if not 0 <= self.max_skipped <= 1:
            raise ValueError(f"max_skipped must be in [0, 1], got {self.max_skipped}")
        if self.workers < 1:
            raise ValueError(f"workers must be >= 1, got {self.workers}")

    @property
    def name(self) -> str:
        """Name of the member in the registry."""
        return self.get_choice_name(type(self))

    @abc.abstractmethod
    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        """Clips of a split of `splits`, in a fixed order, and what was left out and why."""

    def checked_index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        """`index`, logged. UserError for a split that the source does not have, and for more damage than
        `max_skipped`."""
        if split not in self.splits:
            raise UserError(f"{self.name} has no split {split!r}, only {', '.join(self.splits)}")
        records, dropped = self.index(split)
        dropped.check(f"videos or annotations below {self.root}", self.max_skipped)
        dropped.log(f"{self.name} {split} clips", len(records))
        return records, dropped

    def clips(self, split: Split) -> list[ClipRecord]:
        """Clips of a split, from `checked_index`."""
        return self.checked_index(split)[0]

    def hand_paths(
        self, records: Sequence[ClipRecord], frames: Sequence[np.ndarray], fps: Sequence[float]
    ) -> np.ndarray:
        """Where a hand is at some frames (T,) of each record, float32 (N, T, 3), as hand_paths of
        sources/egoexo4d_poses.py. UserError for a source that does not know it."""
        raise UserError(
            f"{self.name} knows no hand poses: leave data.hands out and take displacement.target "
            "flow, or the egoexo4d source"
        )

    def for_labels(self) -> "SourceConfig":
        """The source as labels are made of it: one view of an action is enough for a label."""
        return self

    def probe(self, videos: Sequence[Path]) -> dict[Path, Probed]:
        """Lengths of videos, in parallel, kept in `<root>/.probes.json`."""
        return probe_all(videos, self.workers, self.root / PROBES)

    def parents(self) -> dict[str, Path]:
        """The run folder that made the videos, if a stage did."""
        root = Path(self.root)
        made = [folder for folder in (root, root.parent) if (folder / "provenance.json").exists()]
        return {"source": made[0]} if made else {}

    def whole_videos(self, clips: Iterable[ClipRecord], dropped: SkipReport) -> list[ClipRecord]:
        """The clips with the end of their video as theirs; unreadable videos are counted."""
        clips = list(clips)
        probed = self.probe([clip.video for clip in clips])
        dropped.seen += len(clips)
        whole = []
        for clip in clips:
            info = probed[clip.video]
            if isinstance(info, VideoError):
                dropped.add(damage_of(clip.video), str(info), damage=True)
            else:
                whole.append(replace(clip, end_s=info.duration_s))
        return whole


def check_folder(path: Path, what: str) -> None:
    """Raise a UserError that says what was expected if `path` is not a folder."""
    if not path.is_dir():
        raise UserError(f"no folder {path}: expected {what}; give the right root")


def held_out(names: Sequence[str], fraction: float) -> set[str]:
    """Those of the names that are the split "val" where the data have no splits: a fraction of them, but
    at least one of two or more, by a hash of the name."""
    ranked = sorted(names, key=lambda name: (zlib.crc32(os.fsencode(name)), name))
    count = round(fraction * len(names))
    return set(ranked[: max(count, 1) if fraction and len(names) > 1 else count])


def check_rate(name: str, value: float | None) -> None:
    """Raise a ValueError unless an option is a rate per second, or None."""
    if value is not None and not 0 < value < MAX_FPS:
        raise ValueError(f"{name} must be in (0, {MAX_FPS}), got {value}")


def check_fraction(name: str, value: float) -> None:
    """Raise a ValueError unless an option is in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
