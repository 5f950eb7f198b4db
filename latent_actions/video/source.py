"""What a video source is: a config that lists its clips and pairs. The members are in
`sources/`.
"""

import abc
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import draccus

from invact_vla.core.errors import UserError
from invact_vla.data.video.decode import VideoError
from latent_actions.video.clips import episode_rng, timed_pairs
from latent_actions.video.decode_errors import damage_of
from latent_actions.video.probes import PROBES, Probed, probe_all
from latent_actions.video.records import ClipRecord, PairRecord, Split
from latent_actions.video.skip_report import SkipReport

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SourceConfig(draccus.ChoiceRegistry, abc.ABC):
    """A folder of videos in a known layout. Nothing is decoded to list clips.

    A member gives `index`; clips, pairs and the limit on damage follow from it.
    """

    root: Path = Path("data")  # folder that holds the data set
    max_skipped: float = 0.01  # share of damaged or missing items that may be left out
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
        """Clips of a split, in a fixed order, and what was left out and why."""

    def clips(self, split: Split) -> list[ClipRecord]:
        """Labeled clips of a split; what was dropped is logged. More damage than `max_skipped` is
        a UserError.
        """
        records, dropped = self.index(split)
        dropped.check(f"videos or annotations below {self.root}", self.max_skipped)
        dropped.log(f"{self.name} {split} clips", len(records))
        return records

    def pairs(
        self, split: Split, horizon_s: float, pairs_per_clip: int, seed: int
    ) -> list[PairRecord]:
        """Frame pairs horizon_s seconds apart, up to `pairs_per_clip` a clip, drawn from (seed,
        clip).
        """
        clips, dropped, records = self.clips(split), SkipReport(), []
        probed = self.probe([clip.video for clip in clips])
        dropped.seen = len(clips)
        for clip in clips:
            info = probed[clip.video]
            if isinstance(info, VideoError):
                dropped.add(damage_of(clip.video), str(info), damage=True)
                continue
            span, rng = (clip.start_s, clip.end_s), episode_rng(seed, clip.clip_id)
            pairs = timed_pairs(info, *span, horizon_s, pairs_per_clip, rng)
            if not pairs:
                dropped.add("shorter than the horizon", clip.clip_id)
            for frame, frame_end, fps in pairs:
                records.append(
                    PairRecord(
                        video_id=clip.clip_id, video=clip.video, text=clip.text,
                        frame=frame, frame_end=frame_end, fps=fps,
                    )
                )  # fmt: skip
        dropped.check(f"clips below {self.root}", self.max_skipped)
        dropped.log(f"{self.name} {split} pairs", len(records))
        return records

    def probe(self, videos: Sequence[Path]) -> dict[Path, Probed]:
        """Lengths of videos, in parallel, kept in `<root>/.probes.json`."""
        return probe_all(videos, self.workers, self.root / PROBES)

    def parents(self) -> dict[str, Path]:
        """The run folder that made the videos, if a stage did."""
        root = Path(self.root)
        made = [folder for folder in (root, root.parent) if (folder / "provenance.json").exists()]
        return {"source": made[0]} if made else {}

    def whole_videos(self, rows: Iterable[dict[str, Any]], dropped: SkipReport) -> list[ClipRecord]:
        """A clip a video, from its first frame to its last; unreadable videos are counted.

        rows: the fields of a ClipRecord without start_s and end_s.
        """
        rows = list(rows)
        probed = self.probe([row["video"] for row in rows])
        dropped.seen += len(rows)
        clips = []
        for row in rows:
            info = probed[row["video"]]
            if isinstance(info, VideoError):
                dropped.add(damage_of(row["video"]), str(info), damage=True)
            else:
                clips.append(ClipRecord(**row, start_s=0.0, end_s=info.n_frames / info.fps))
        return clips


def check_folder(path: Path, what: str) -> None:
    """Raise a UserError that says what was expected if `path` is not a folder."""
    if not path.is_dir():
        raise UserError(f"no folder {path}: expected {what}; give the right root")
