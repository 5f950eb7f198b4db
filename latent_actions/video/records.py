"""What a source says about its videos: one record a clip, one record a labelled pair.

Records are plain metadata: nothing is decoded here. `frame` counts decoded frames of the file from
0; seconds are counted from the file's first frame.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

View = Literal["ego", "exo"]
Split = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class ClipRecord:
    """One atomic action seen by one camera.

    Clips of one moment (the same action seen by several cameras) share `moment_id`. `scene` is the
    grouping of the evaluation, `verb` the label, [start_s, end_s) the span inside `video`.
    """

    clip_id: str
    moment_id: str
    take: str
    scene: str
    view: View
    camera: str
    verb: str
    text: str
    split: Split
    video: Path
    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if self.view not in ("ego", "exo"):
            raise ValueError(f"clip {self.clip_id}: view must be 'ego' or 'exo', got {self.view!r}")
        if not 0 <= self.start_s < self.end_s:
            raise ValueError(
                f"clip {self.clip_id}: expected 0 <= start_s < end_s, "
                f"got {self.start_s} and {self.end_s}"
            )


@dataclass(frozen=True, kw_only=True)
class PairRecord:
    """Two frames of one video, `frame` and `frame_end`, (frame_end - frame) / fps seconds apart.

    Both lie inside the video: 0 <= frame < frame_end <= n_frames - 1.
    """

    episode: str
    video: Path
    text: str
    frame: int
    frame_end: int
    fps: float

    def __post_init__(self) -> None:
        if not 0 <= self.frame < self.frame_end:
            raise ValueError(
                f"pair of {self.episode}: expected 0 <= frame < frame_end, "
                f"got {self.frame} and {self.frame_end}"
            )
        if self.fps <= 0:
            raise ValueError(f"pair of {self.episode}: fps must be positive, got {self.fps}")


Record: TypeAlias = ClipRecord | PairRecord
