"""What a benchmark is: a config that turns subjects and clips into rows. The members are in
`benchmarks/`, one file each.
"""

import abc
import logging
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import draccus
import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.clips import ClipData, ClipTable, VideoClips, pair_views
from latent_actions.retrieval.encoders import EvaluatedEncoder
from latent_actions.retrieval.results import Row, measured, skipped
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.store import FrameStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Moments:
    """M moments of a split, each seen by an ego and an exo camera; columns (M,)."""

    ego: np.ndarray  # uint8 (M, T, H, W, 3)
    exo: np.ndarray  # uint8 (M, T, H, W, 3)
    ego_rows: np.ndarray  # rows of the clip table, int64 (M,)
    exo_rows: np.ndarray
    verb: tuple[str, ...]
    scene: tuple[str, ...]
    take: tuple[str, ...]
    moment: tuple[str, ...]
    text: tuple[str, ...]


def moments_of(table: ClipTable, split: str) -> Moments:
    """Moments of a split with both views. UserError if there is none."""
    pairs = pair_views(table, table.rows_of(split))
    if not len(pairs.ego):
        raise UserError(
            f"no moment of split {split!r} has both an ego and an exo clip: check the source"
        )
    names = ("verb", "scene", "take", "moment", "text")
    columns = {n: tuple(getattr(table, n)[row] for row in pairs.ego) for n in names}
    ego, exo = table.read(pairs.ego), table.read(pairs.exo)
    return Moments(ego, exo, pairs.ego, pairs.exo, **columns)


class Context:
    """What benchmarks share: the clips, decoded once, and each subject's vectors, made once."""

    def __init__(
        self,
        data: ClipData,
        split: Split,
        *,
        frames: int,
        folder: Path,
        workers: int = 1,
        draws: int = 1000,
    ) -> None:
        self.data, self.frames = data, frames
        self.split: Split = split
        self.folder, self.workers, self.draws = folder, workers, draws
        self._vectors: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @cached_property
    def table(self) -> ClipTable:
        """Clips of the split."""
        return self.data.table(self.frames, self.folder / "clips", self.workers, (self.split,))

    @cached_property
    def moments(self) -> Moments:
        """Moments with both views. UserError if there is none."""
        return moments_of(self.table, self.split)

    @property
    def oversample(self) -> int:
        """Stored frames for each that is read."""
        return self.table.oversample

    def vectors(self, subject: EvaluatedEncoder) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of the moments, ego and exo: float (M, D) each."""
        if subject.name not in self._vectors:
            moments = self.moments
            logger.info("embedding %d clips with %s", 2 * len(moments.ego), subject.name)
            self._vectors[subject.name] = subject.embed(moments.ego), subject.embed(moments.exo)
        return self._vectors[subject.name]

    def forget(self, subject: EvaluatedEncoder) -> None:
        """Drop the embeddings of a subject that is done with."""
        self._vectors.pop(subject.name, None)

    def records(self) -> Sequence[ClipRecord]:
        """The table's rows as records, with their spans. UserError for clips of no video."""
        table = self.table
        if not isinstance(self.data, VideoClips):
            raise UserError("these clips come from no video files, so they have no spans")
        records = FrameStore.open(self.folder / "clips").records
        assert len(records) == len(table)
        return records

    def store(self, name: str, records: Sequence[ClipRecord], max_skipped: float) -> FrameStore:
        """Frames of other records than the table's, decoded once into a folder of their own.

        Clips that cannot be decoded are left out of it; more than the share `max_skipped` of them
        is a UserError.
        """
        size = self.data.size if isinstance(self.data, VideoClips) else VideoClips().size
        return FrameStore.build(
            records, self.folder / name, self.frames, size, self.workers, max_skipped=max_skipped
        )


@dataclass(frozen=True)
class Scorer:
    """Makes rows with the names of one benchmark and one subject."""

    benchmark: str
    subject: str
    draws: int

    def row(
        self,
        measure: str,
        setting: str,
        scores: np.ndarray,
        clusters: Sequence[Hashable],
        *,
        chance: float | None = None,
        oracle: float | None = None,
        answerable: float | None = None,
        weights: np.ndarray | None = None,
    ) -> Row:
        """A mean over queries, see results.measured."""
        return measured(
            scores, clusters, draws=self.draws, benchmark=self.benchmark, subject=self.subject,
            measure=measure, setting=setting, chance=chance, oracle=oracle, answerable=answerable,
            weights=weights,
        )  # fmt: skip

    def skip(self, reason: str, *, measure: str = "skipped", setting: str = "") -> Row:
        """What this subject could not be measured on."""
        return skipped(self.benchmark, reason, self.subject, measure=measure, setting=setting)


@dataclass(frozen=True, kw_only=True)
class Benchmark(draccus.ChoiceRegistry, abc.ABC):
    """One family of measures. Missing data is a UserError: it becomes a row with the reason."""

    @abc.abstractmethod
    def rows(self, context: Context, subject: EvaluatedEncoder) -> Iterator[Row]:
        """All numbers of one subject, in the order of the table."""

    def name(self) -> str:
        """The name under which the class is registered."""
        return self.get_choice_name(type(self))

    def scorer(self, context: Context, subject: EvaluatedEncoder) -> Scorer:
        return Scorer(self.name(), subject.name, context.draws)


def run_benchmark(
    benchmark: Benchmark, context: Context, subjects: Sequence[EvaluatedEncoder]
) -> list[Row]:
    """Rows of every subject; a reason that holds for all of them is given once."""
    rows: list[Row] = []
    reasons: dict[str, list[str]] = {}
    for subject in subjects:
        try:
            rows.extend(benchmark.rows(context, subject))  # what came before an error stays
        except UserError as error:
            reasons.setdefault(str(error), []).append(subject.name)
    for reason, names in reasons.items():
        logger.warning("%s is left out: %s", benchmark.name(), reason)
        if len(names) == len(subjects):
            rows.append(skipped(benchmark.name(), reason))
        else:
            rows += [skipped(benchmark.name(), reason, name) for name in names]
    return rows
