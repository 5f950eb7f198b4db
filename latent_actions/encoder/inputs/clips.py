"""A table of clips with their frames: what training and retrieval read, whatever the source.

One row per (moment, camera). A moment is one action at one time, seen by an ego and one or more exo
cameras.
"""

import abc
import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import draccus
import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.data.video.frames import VideoError
from latent_actions.video.index import SPLITS, build_index
from latent_actions.video.records import ClipRecord, Split, View
from latent_actions.video.sources import EgoExo4dSource, SourceConfig
from latent_actions.video.store import FrameStore, wanted_frames

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ClipTable:
    """N clips as columns; frames[i] belongs to row i.

    More frames than the encoder reads may be kept (`oversample` for each): training draws among
    them.
    """

    frames: np.ndarray  # uint8 (N, T * oversample, H, W, 3), in memory or memory-mapped
    moment: tuple[str, ...]  # shared by the cameras of one moment
    take: tuple[str, ...]  # one recording
    scene: tuple[str, ...]  # place: what must not be recognized
    view: tuple[View, ...]  # ego | exo
    camera: tuple[str, ...]  # name of the camera
    verb: tuple[str, ...]  # the label
    text: tuple[str, ...]  # description
    split: tuple[str, ...]  # train | val
    oversample: int = 1  # stored frames for each frame that is read
    best: tuple[bool, ...] = ()  # the best exo camera of its moment; empty: all are alike
    seconds: np.ndarray | None = None  # float64 (N,), duration of each clip; None: not known
    # float32 (N, T * oversample, 3): where the hand is in each stored frame, in meters, right, forward
    # and up as the camera is headed; NaN where it is not known; None: hands were not asked for
    hand: np.ndarray | None = None

    def __post_init__(self) -> None:
        names = set(self.__dataclass_fields__) - {"oversample"}
        columns: dict[str, Any] = {name: getattr(self, name) for name in sorted(names)}
        optional = {
            "best": not self.best, "hand": self.hand is None, "seconds": self.seconds is None
        }  # fmt: skip
        sizes = {n: len(column) for n, column in columns.items() if not optional.get(n)}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"columns of a clip table differ in length: {sizes}")

    def __len__(self) -> int:
        return len(self.moment)

    def read(
        self, rows: np.ndarray, rng: np.random.Generator | None = None, shortest: float = 1.0
    ) -> np.ndarray:
        """Clips of some rows, copied: uint8 (B, T, H, W, 3).

        The span is cut into T equal parts and one stored frame is taken of each: the middle one (the
        later of two in the middle), or with `rng` a random one, drawn anew for every clip from a
        part of the span that is at least the share `shortest` of it. So training sees each action
        at many sampling times.
        """
        return self.read_with_hand(rows, rng, shortest)[0]

    def read_with_hand(
        self, rows: np.ndarray, rng: np.random.Generator | None = None, shortest: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `read`, with the hand's way from the first to the last frame, right, forward and up in
        meters: float32 (B, 3), NaN where it is not known."""
        picks = self._picks(len(rows), rng, shortest)
        frames = self._of(self.frames, rows, picks)
        if self.hand is None:
            return frames, np.full((len(rows), 3), np.nan, np.float32)
        hand = self._of(self.hand, rows, picks[:, [0, -1]])
        return frames, hand[:, 1] - hand[:, 0]

    def _picks(self, count: int, rng: np.random.Generator | None, shortest: float) -> np.ndarray:
        """Which of the stored frames are taken, int64 (B, T)."""
        total = self.frames.shape[1]
        length = total // self.oversample
        places = np.full((count, length), 0.5) if rng is None else rng.random((count, length))
        share = np.ones((count, 1)) if rng is None else rng.uniform(shortest, 1, (count, 1))
        start = np.zeros((count, 1)) if rng is None else rng.random((count, 1)) * (1 - share)
        times = start + share * (np.arange(length) + places) / length
        return np.minimum((times * total).astype(np.int64), total - 1)

    @staticmethod
    def _of(column: np.ndarray, rows: np.ndarray, picks: np.ndarray) -> np.ndarray:
        """Picked frames (B, P) of some rows of a column (N, F, ...): (B, P, ...)."""
        return np.ascontiguousarray(column[rows])[np.arange(len(rows))[:, None], picks]

    def rows_of(self, split: str) -> np.ndarray:
        """Row indices of one split, int64."""
        return np.flatnonzero(np.array([s == split for s in self.split], dtype=bool))

    def is_best(self, row: int) -> bool:
        """Whether a row is of the best exo camera of its moment, as far as that is used."""
        return bool(self.best) and self.best[row]


@dataclass(frozen=True)
class PairedMoments:
    """Moments with an ego and an exo clip, in table order: row indices, int64 (M,) each."""

    ego: np.ndarray
    exo: np.ndarray


def pair_views(table: ClipTable, rows: Sequence[int] | np.ndarray) -> PairedMoments:
    """One ego and one exo clip of every moment among `rows` that has both: the best exo camera if
    the table knows it, else the first by name.
    """
    ego: dict[str, int] = {}
    exo: dict[str, list[int]] = defaultdict(list)
    for row in map(int, rows):
        if table.view[row] == "ego":
            ego.setdefault(table.moment[row], row)
        else:
            exo[table.moment[row]].append(row)
    both = [m for m in ego if m in exo]
    seen = [min(exo[m], key=lambda row: (not table.is_best(row), table.camera[row])) for m in both]
    return PairedMoments(np.array([ego[m] for m in both], np.int64), np.array(seen, np.int64))


@dataclass(frozen=True, kw_only=True)
class ClipData(draccus.ChoiceRegistry, abc.ABC):
    """Where labeled clips come from. The members: `videos` (any video source), `sprites`."""

    @classmethod
    def default_choice_name(cls) -> str:
        return "videos"

    @abc.abstractmethod
    def table(
        self, frames: int, folder: Path, workers: int, splits: Sequence[Split] = SPLITS
    ) -> ClipTable:
        """Clips of some splits with T = frames; decoded frames may be kept in `folder`."""

    @abc.abstractmethod
    def parents(self) -> dict[str, Path]:
        """Finished run folders that the clips are read from, by role."""


@ClipData.register_subclass("videos")
@dataclass(frozen=True, kw_only=True)
class VideoClips(ClipData):
    """Clips of a video source, decoded once into a frame store or whenever they are read.

    exo: which exo camera shows a moment that several see. random: any in training, the first by
    name in tests. best: in tests the one that the annotators named best (the first if they named
    none), in training that one with probability 0.5, else any.
    """

    source: SourceConfig = field(default_factory=EgoExo4dSource)  # where the videos are
    more: tuple[SourceConfig, ...] = ()  # other videos, for training alone; their scenes are others
    size: int = 64  # H = W of the stored frames, pixels; crops are taken from these
    oversample: int = 2  # stored frames for each frame that is read; training draws among them
    decode: Literal["once", "on_the_fly"] = "once"  # into a store on disk, or at every reading
    exo: Literal["random", "best"] = "random"  # exo camera of a moment: random | best (annotators')
    hands: bool = (
        False  # read where hands are, for displacement.target hand (Ego-Exo4D with EgoPose)
    )

    def __post_init__(self) -> None:
        if self.size < 8 or self.oversample < 1:
            raise ValueError(
                f"size must be >= 8 and oversample >= 1, got {self.size} and {self.oversample}"
            )
        if self.hands and self.more:
            raise ValueError("hands are read of one source: give hands false or no more sources")

    def table(
        self, frames: int, folder: Path, workers: int, splits: Sequence[Split] = SPLITS
    ) -> ClipTable:
        index = build_index(self.source, splits)
        records = [*index.records, *self._more_training(splits)]
        store = FrameStore.build(
            records, folder, frames * self.oversample, self.size, workers,
            max_skipped=self.source.max_skipped, index=index.report,
            on_the_fly=self.decode == "on_the_fly",
        )  # fmt: skip
        best = {record.clip_id for record in records if record.best and self.exo == "best"}
        if not best and self.exo == "best":
            logger.warning("%s names no best exo camera: all are alike", self.source.name)
        table = table_of(store, self.oversample, best)
        return replace(table, hand=self._hands(store)) if self.hands else table

    def _hands(self, store: FrameStore) -> np.ndarray:
        """Where the hand is in each stored frame, float32 (N, F, 3)."""
        records, count = store.records, store.frames.shape[1]
        probed = self.source.probe([record.video for record in records])
        frames, rates = [], []
        for record in records:
            info = probed[record.video]
            if isinstance(info, VideoError):  # it could be read when its frames were stored
                raise UserError(f"{record.video}: {info}")
            frames.append(wanted_frames(record, info, count))
            rates.append(info.fps)
        return self.source.hand_paths(records, frames, rates)

    def _more_training(self, splits: Sequence[Split]) -> list[ClipRecord]:
        """Training clips of `more`, with ids that no other source has."""
        names = ("clip_id", "moment_id", "take", "scene")
        return [
            replace(record, **{name: f"more{number}/{getattr(record, name)}" for name in names})
            for number, source in enumerate(self.more if "train" in splits else ())
            for record in build_index(source, ("train",)).records
        ]

    def parents(self) -> dict[str, Path]:
        found = self.source.parents()
        for number, source in enumerate(self.more):
            found |= {f"more{number}_{role}": path for role, path in source.parents().items()}
        return found


def table_of(store: FrameStore, oversample: int = 1, best: Collection[str] = ()) -> ClipTable:
    """The clip table of a frame store of clip records. best: ids of clips of best exo cameras."""
    records = store.records
    names = ("take", "scene", "view", "camera", "verb", "text", "split")
    columns: dict[str, Any] = {
        name: tuple(getattr(record, name) for record in records) for name in names
    }
    moments = tuple(record.moment_id for record in records)
    seconds = np.array([record.end_s - record.start_s for record in records], np.float64)
    flags = tuple(record.clip_id in best for record in records) if best else ()
    return ClipTable(
        frames=store.frames,
        moment=moments,
        oversample=oversample,
        best=flags,
        seconds=seconds,
        **columns,
    )
