"""What a benchmark is: a config that turns encoders and clips into rows. Members are in `benchmarks/`.

Scene keys are the groupings of takes under which a query's own scene is left out of its gallery. The
names of Ego-Exo4D's takes are <institution>_<activity><number>_<index>; which grouping the published
table used is not stated, so all are offered and chance is printed beside each.
"""

import abc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import draccus
import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.clips import ClipData, ClipTable, VideoClips, pair_views
from latent_actions.retrieval.encoders import EvaluatedEncoder
from latent_actions.retrieval.results import Row, Scorer, skipped
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.sources.egoexo4d_takes import SceneKey, scene_of
from latent_actions.video.store import FrameStore

OWN = "scene"  # the clips' own scene, as their source gives it
ALONE = "none"  # nothing but the query's own moment is left out
logger = logging.getLogger(__name__)


def _by(key: SceneKey) -> Callable[[str], str]:
    return lambda take: scene_of({"take_name": take}, key)


TAKE_KEYS: dict[str, Callable[[str], str]] = {
    "keyword": _by("keyword"),  # five activities: nearest to the published chance level
    # the same with pcr counted as covid
    "keyword_merged": lambda take: (
        "covid" if _by("keyword")(take) == "pcr" else _by("keyword")(take)
    ),
    # second word of the name without its digits
    "activity": lambda take: _by("institution_activity")(take).partition("_")[2] or take,
    "institution_activity": _by("institution_activity"),  # the published page's demo
    "institution": _by("institution"),
    "capture": _by("capture"),  # name without its last index
    "take": lambda take: take,
}
SCENE_KEYS = (OWN, *TAKE_KEYS, ALONE)


def scene_groups(
    key: str, scenes: Sequence[str], takes: Sequence[str], moments: Sequence[str]
) -> list[str]:
    """Group of every clip under a scene key. UserError when all clips are of one group."""
    if key not in SCENE_KEYS:
        raise UserError(f"no scene key {key!r}: expected one of {', '.join(SCENE_KEYS)}")
    if key in (ALONE, OWN):
        groups = list(moments if key == ALONE else scenes)
    elif key != "take" and any("/" in take for take in takes):
        raise UserError(
            f"the scene key {key!r} reads names of takes such as iiith_cooking_57_2, and these are "
            f"such as {takes[0]!r}: use the keys {OWN}, take or {ALONE}"
        )
    else:
        groups = [TAKE_KEYS[key](take) for take in takes]
    if len(set(groups)) < 2:
        raise UserError(
            f"all {len(groups)} moments are of one scene under the key {key!r}"
            f" ({groups[0] if groups else 'no clips'}): retrieval across scenes needs two or more; "
            "use another scene key"
        )
    return groups


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
    ego_seconds: np.ndarray | None = None  # durations of the clips, float64 (M,); None: not known
    exo_seconds: np.ndarray | None = None

    def groups(self, key: str) -> list[str]:
        """Group of each moment under a scene key; see `scene_groups`."""
        return scene_groups(key, self.scene, self.take, self.moment)


def moments_of(table: ClipTable, split: str) -> Moments:
    """Moments of a split with both views. UserError if there is none."""
    pairs = pair_views(table, table.rows_of(split))
    if not len(pairs.ego):
        raise UserError(
            f"no moment of split {split!r} has both an ego and an exo clip: check the source"
        )
    names = ("verb", "scene", "take", "moment", "text")
    columns = {n: tuple(getattr(table, n)[row] for row in pairs.ego) for n in names}
    views = (pairs.ego, pairs.exo)
    seconds = [None if table.seconds is None else table.seconds[rows] for rows in views]
    return Moments(
        table.read(pairs.ego), table.read(pairs.exo), *views, **columns, ego_seconds=seconds[0],
        exo_seconds=seconds[1],
    )  # fmt: skip


class Context:
    """What benchmarks share: the clips, decoded once, and each encoder's vectors, made once.

    frames: T that the encoders read. folder: of decoded frames. draws: of the bootstrap."""

    def __init__(
        self, data: ClipData, split: Split, *, frames: int, folder: Path, workers: int = 1,
        draws: int = 1000,
    ) -> None:  # fmt: skip
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

    def vectors(self, encoder: EvaluatedEncoder) -> tuple[np.ndarray, np.ndarray]:
        """Embeddings of the moments, ego and exo: float (M, D) each."""
        if encoder.name not in self._vectors:
            moments = self.moments
            logger.info("embedding %d clips with %s", 2 * len(moments.ego), encoder.name)
            self._vectors[encoder.name] = encoder.embed(moments.ego), encoder.embed(moments.exo)
        return self._vectors[encoder.name]

    def compared(self, encoder: EvaluatedEncoder) -> tuple[np.ndarray, np.ndarray]:
        """What clips are compared by: the embeddings, and the durations of the clips beside them if the
        encoder was made so. float (M, D') each."""
        ego, exo = self.vectors(encoder)
        moments = self.moments
        return encoder.timed(ego, moments.ego_seconds), encoder.timed(exo, moments.exo_seconds)

    def forget(self, encoder: EvaluatedEncoder) -> None:
        """Drop the embeddings of an encoder that is done with."""
        self._vectors.pop(encoder.name, None)

    def videos(self, of_what: str) -> VideoClips:
        """The clips' data. UserError for clips of no video files, which have no `of_what`."""
        if not isinstance(self.data, VideoClips):
            raise UserError(f"these clips come from no video files, so they have no {of_what}")
        return self.data

    def records(self) -> Sequence[ClipRecord]:
        """The table's rows as records, with their spans. UserError for clips of no video."""
        self.videos("spans")
        table, records = self.table, FrameStore.open(self.folder / "clips").records
        assert len(records) == len(table)
        return records

    def store(self, name: str, records: Sequence[ClipRecord], max_skipped: float) -> FrameStore:
        """Frames of other records than the table's, decoded once into a folder of their own.

        Clips that cannot be decoded are left out of it; more than the share `max_skipped` of them
        is a UserError."""
        size = self.data.size if isinstance(self.data, VideoClips) else VideoClips().size
        return FrameStore.build(
            records, self.folder / name, self.frames, size, self.workers, max_skipped=max_skipped
        )


@dataclass(frozen=True, kw_only=True)
class Benchmark(draccus.ChoiceRegistry, abc.ABC):
    """One family of measures. Missing data is a UserError: it becomes a row with the reason."""

    @abc.abstractmethod
    def rows(self, context: Context, encoder: EvaluatedEncoder) -> Iterator[Row]:
        """All numbers of one encoder, in the order of the table."""

    def name(self) -> str:
        """The name under which the class is registered."""
        return self.get_choice_name(type(self))

    @property
    def compares_durations(self) -> bool:
        """Whether it compares clips by their durations too, where an encoder has a weight for them."""
        return False

    def scorer(self, context: Context, encoder: EvaluatedEncoder) -> Scorer:
        return Scorer(self.name(), encoder.name, context.draws)


def run_benchmark(
    benchmark: Benchmark, context: Context, encoders: Sequence[EvaluatedEncoder]
) -> list[Row]:
    """Rows of every encoder; a reason that holds for all of them is given once."""
    rows: list[Row] = []
    reasons: dict[str, list[str]] = {}
    asked = [e for e in encoders if benchmark.compares_durations or not e.only_durations]
    for encoder in asked:
        try:
            rows.extend(benchmark.rows(context, encoder))  # what came before an error stays
        except UserError as error:
            reasons.setdefault(str(error), []).append(encoder.name)
    for reason, names in reasons.items():
        logger.warning("%s is left out: %s", benchmark.name(), reason)
        if len(names) == len(asked):
            rows.append(skipped(benchmark.name(), reason))
        else:
            rows += [skipped(benchmark.name(), reason, name) for name in names]
    return rows
