"""What a source says about its videos: one record per clip, one record per labeled pair.

Records are plain metadata: nothing is decoded here. `frame` counts decoded frames of the file from
0; seconds are counted from the file's first frame.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

View = Literal["ego", "exo"]
Split = Literal["train", "val", "test"]


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """One action seen by one camera: the span [start_s, end_s) of `video`, the same for every source.

    A source gives what it knows. `clip_id` is unique in the data set. `text`: what happens, in words;
    `verb`: its class, as retrieval counts it; both are empty where nothing is annotated. Clips of one
    moment (the same action seen by several cameras) share `moment_id`, those of one recording `take`,
    those of one place `scene`: without them a clip is its own moment, take and scene. `view` is "exo"
    where a source has no views. What a benchmark needs besides stands in `tags` (other labels and
    groupings, by name) and `parts` (spans of the atomic actions inside a longer clip, seconds of the
    video, in order). `best`: the annotators named this camera the best exo view of the moment."""

    clip_id: str
    video: Path
    split: Split
    start_s: float = 0.0
    end_s: float = math.inf  # the end of the video; `SourceConfig.whole_videos` sets it
    text: str = ""
    verb: str = ""
    moment_id: str = ""
    take: str = ""
    scene: str = ""
    view: View = "exo"
    camera: str = "video"
    tags: Mapping[str, str | float] = field(default_factory=dict, hash=False)
    parts: tuple[tuple[float, float], ...] = ()
    best: bool = False

    def __post_init__(self) -> None:
        for group in ("moment_id", "take", "scene"):
            if not getattr(self, group):
                object.__setattr__(self, group, self.clip_id)
        start_s, end_s, name = self.start_s, self.end_s, self.clip_id
        if self.view not in ("ego", "exo"):
            raise ValueError(f"clip {name}: view must be 'ego' or 'exo', got {self.view!r}")
        if not 0 <= start_s < end_s:
            raise ValueError(
                f"clip {name}: expected 0 <= start_s < end_s, got {start_s} and {end_s}"
            )


@dataclass(frozen=True, kw_only=True)
class PairRecord:
    """Two frames of one clip, `frame` and `frame_end` of its video, (frame_end - frame) / fps seconds
    apart. video_id: the clip's `clip_id`.

    Both lie inside the video: 0 <= frame < frame_end <= n_frames - 1."""

    video_id: str
    video: Path
    text: str
    frame: int
    frame_end: int
    fps: float

    def __post_init__(self) -> None:
        if not 0 <= self.frame < self.frame_end or self.fps <= 0:
            raise ValueError(
                f"pair of {self.video_id}: expected 0 <= frame < frame_end and fps > 0, got "
                f"{self.frame}, {self.frame_end} and {self.fps}"
            )


Record: TypeAlias = ClipRecord | PairRecord


def encode_record(record: Record) -> dict[str, Any]:
    """A record as JSON; tags, parts and best stand in it only where there are any."""
    values = {**vars(record), "video": str(record.video)}
    for optional in ("tags", "parts", "best"):
        if not values.get(optional, True):
            del values[optional]
    return {"kind": "clip" if isinstance(record, ClipRecord) else "pair", **values}


def decode_record(row: Mapping[str, Any]) -> Record:
    """The record that `encode_record` wrote."""
    values = {**row, "video": Path(row["video"])}
    if "parts" in values:
        values["parts"] = tuple((start, end) for start, end in values["parts"])
    return {"clip": ClipRecord, "pair": PairRecord}[values.pop("kind")](**values)
