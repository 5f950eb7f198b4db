"""What was left out and why: counts by reason, a few examples of each, and a limit. Of an index, and of
decoding: videos that are missing or corrupt, clips that their video ends in."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.data.video.frames import VideoError
from latent_actions.video.probes import Probed
from latent_actions.video.records import ClipRecord, Record

logger = logging.getLogger(__name__)
EXAMPLES = 5  # kept of each reason
MIN_COVERED = 0.5  # share of a clip that must lie inside its video
SHORT, CUT = "shorter than the clip", "cut at the end of the video"


class SkipReport:
    """Counts what a reader left out.

    Reasons are of two kinds: a choice (an option or the protocol asks for it, such as clips under a
    second) and damage (missing or corrupt files, annotations that cannot be read). Only damage
    counts against the limit of `check`, out of `seen` items looked at."""

    def __init__(self, seen: int = 0, damage: Iterable[tuple[str, str]] = ()) -> None:
        """damage: (reason, example) of items that are left out from the start."""
        self.counts: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}
        self.damage: set[str] = set()
        self.seen = seen
        for reason, example in damage:
            self.add(reason, example, damage=True)

    def add(self, reason: str, example: str, count: int = 1, damage: bool = False) -> None:
        """Count `count` items left out for `reason`."""
        self.counts[reason] += count
        named = self.examples.setdefault(reason, [])
        if len(named) < EXAMPLES:
            named.append(example)
        if damage:
            self.damage.add(reason)

    @property
    def damaged(self) -> int:
        """Items left out because of damage."""
        return sum(self.counts[reason] for reason in self.damage)

    def update(self, other: "SkipReport") -> None:
        """Add what another report counts."""
        self.seen += other.seen
        self.damage |= other.damage
        self.counts.update(other.counts)
        for reason, named in other.examples.items():
            self.examples[reason] = (self.examples.get(reason, []) + named)[:EXAMPLES]

    def summary(self) -> str:
        """What was dropped and why, in one line; empty if nothing was."""
        reasons = ", ".join(
            f"{count} {reason} (such as {self.examples[reason][0]})"
            for reason, count in self.counts.most_common()
        )
        return f"dropped {reasons}" if reasons else ""

    def lines(self) -> list[str]:
        """The same, a line per reason."""
        return dropped_lines(self.as_json())

    def log(self, what: str, kept: int) -> None:
        """One line: how many were kept, how many dropped and why."""
        logger.info("%s: kept %d%s", what, kept, f"; {self.summary()}" if self.counts else "")

    def check(self, what: str, limit: float) -> None:
        """Raise a UserError if more than the fraction `limit` of what was seen is damaged."""
        if self.damaged > limit * self.seen:
            examples = [text for reason in sorted(self.damage) for text in self.examples[reason]]
            raise UserError(
                f"{self.damaged} of {self.seen} {what} are damaged or missing (at most {limit:.1%} may "
                f"be; max_skipped raises it): {'; '.join(examples[:EXAMPLES])}"
            )

    def as_json(self) -> dict[str, Any]:
        """{reason: {count, damage, examples}}, sorted by reason."""
        return {
            reason: {
                "count": count,
                "damage": reason in self.damage,
                "examples": self.examples[reason],
            }
            for reason, count in sorted(self.counts.items())
        }


def dropped_lines(report: Mapping[str, Any]) -> list[str]:
    """A report's JSON as text, a line per reason."""
    return [
        f"  dropped {entry['count']:>7} {reason}{', damage' if entry['damage'] else ''} (such as "
        f"{entry['examples'][0]})"
        for reason, entry in report.items()
    ]


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
        self.ends: dict[int, float] = {}  # where these end now, seconds

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
            self.cut[row], self.ends[row] = message, length_s
        return True

    def update(self, other: "Damage") -> None:
        self.videos |= other.videos
        self.short |= other.short
        self.cut |= other.cut
        self.ends |= other.ends

    def check(self, records: Sequence[Record], limit: float) -> list[bool]:
        """Which rows are kept. Raises UserError beyond the limit, of videos or of clips."""
        videos = {record.video for record in records}
        SkipReport(len(videos), self._bad_videos).check("videos", limit)
        SkipReport(len(records), self._short_clips).check("clips", limit)
        if self.videos or self.short or self.cut:
            logger.warning(
                "skipped %d of %d videos and %d of %d clips, cut %d clips: %s",
                len(self.videos), len(videos), len(self.short), len(records), len(self.cut),
                "; ".join(self.messages()[:5]),
            )  # fmt: skip
        bad = self.videos
        return [n not in self.short and r.video not in bad for n, r in enumerate(records)]

    @property
    def _bad_videos(self) -> list[tuple[str, str]]:
        return [self.videos[video] for video in sorted(self.videos)]

    @property
    def _short_clips(self) -> list[tuple[str, str]]:
        return [(SHORT, self.short[row]) for row in sorted(self.short)]

    def messages(self) -> list[str]:
        """Messages of the damaged videos, by video, then of the dropped clips."""
        return [message for _, message in self._bad_videos + self._short_clips]

    def as_json(self) -> dict[str, Any]:
        """Reasons with counts and examples, and the clips that were shortened."""
        cut = SkipReport()
        for row in sorted(self.cut):
            cut.add(CUT, self.cut[row])
        dropped = SkipReport(0, self._bad_videos + self._short_clips)
        return {"dropped": dropped.as_json(), "changed": cut.as_json()}
