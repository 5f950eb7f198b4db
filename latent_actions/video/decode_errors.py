"""What decoding cannot use: videos that are missing or corrupt, clips that their video ends in."""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from invact_vla.data.video.frames import VideoError
from latent_actions.video.probes import Probed
from latent_actions.video.records import ClipRecord, Record
from latent_actions.video.skip_report import SkipReport

logger = logging.getLogger(__name__)
MIN_COVERED = 0.5  # share of a clip that must lie inside its video


def damage_of(video: Path) -> str:
    """The reason for which a video that could not be probed is left out."""
    present = video.exists() or any(parent.is_file() for parent in video.parents)  # inside HDF5
    return "corrupt videos" if present else "videos missing"


class Damage:
    """What decoding could not use: damaged videos, and clips that their video ends before or in."""

    def __init__(self) -> None:
        self.videos: dict[Path, tuple[str, str]] = {}  # reason and message of damaged videos
        self.short: dict[int, str] = {}  # messages of dropped rows
        self.cut: dict[int, str] = {}  # messages of rows that were shortened

    def look(self, row: int, record: Record, probed: Probed | None) -> bool:
        """Whether a record can be decoded, as far as the length of its video tells."""
        if isinstance(probed, VideoError):
            self.videos[record.video] = (damage_of(record.video), str(probed))
            return False
        if not isinstance(record, ClipRecord) or probed is None:
            return True
        length_s = probed.n_frames / probed.fps
        covered = (min(record.end_s, length_s) - record.start_s) / (record.end_s - record.start_s)
        message = (
            f"{record.video} has {probed.n_frames} frames ({length_s:.2f} s), but clip "
            f"{record.clip_id} starts at {record.start_s:.2f} s and ends at {record.end_s:.2f} s"
        )
        if covered < MIN_COVERED:
            self.short[row] = message
            return False
        if record.end_s - length_s > 1 / probed.fps:
            self.cut[row] = message
        return True

    def update(self, other: "Damage") -> None:
        self.videos |= other.videos
        self.short |= other.short
        self.cut |= other.cut

    def check(self, records: Sequence[Record], limit: float) -> list[bool]:
        """Which rows are kept. Raises UserError beyond the limit, of videos or of clips."""
        videos = {record.video for record in records}
        self._dropped(self.videos.values(), len(videos)).check("videos", limit)
        short = [("shorter than the clip", self.short[row]) for row in sorted(self.short)]
        self._dropped(short, len(records)).check("clips", limit)
        if self.videos or self.short or self.cut:
            logger.warning(
                "skipped %d of %d videos and %d of %d clips, cut %d clips: %s",
                len(self.videos), len(videos), len(self.short), len(records), len(self.cut),
                "; ".join(self.messages()[:5]),
            )  # fmt: skip
        return [
            row not in self.short and record.video not in self.videos
            for row, record in enumerate(records)
        ]

    def messages(self) -> list[str]:
        """Messages of the damaged videos, by video, then of the dropped clips."""
        return [self.videos[v][1] for v in sorted(self.videos)] + [
            self.short[row] for row in sorted(self.short)
        ]

    def as_json(self) -> dict[str, Any]:
        """Reasons with counts and examples, and the clips that were shortened."""
        reasons = [self.videos[video] for video in sorted(self.videos)]
        reasons += [("shorter than the clip", self.short[row]) for row in sorted(self.short)]
        cut = SkipReport()
        for row in sorted(self.cut):
            cut.add("cut at the end of the video", self.cut[row])
        return {"dropped": self._dropped(reasons, 0).as_json(), "changed": cut.as_json()}

    @staticmethod
    def _dropped(reasons: Iterable[tuple[str, str]], seen: int) -> SkipReport:
        dropped = SkipReport()
        dropped.seen = seen
        for reason, message in reasons:
            dropped.add(reason, message, damage=True)
        return dropped
