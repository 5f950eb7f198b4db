"""Keysteps: retrieval of long actions by the composition of short ones, nothing trained for it.

The clips of a source of longer actions (type egoexo4d_keystep) are cut into windows of about 2 s (or
into their real atomic actions, `parts`); each window gets a vector, and two keysteps are compared by

    mean        cosine of the means (a single vector each)
    max         cosine of the largest value of each component (a single vector each)
    dtw         minus the cost of dynamic time warping, cosine cost, divided by both lengths
    chamfer     mean of the best matches both ways
    gt_atomic   mean over the real atomic actions

dtw and chamfer re-rank what `mean` ranks first. Every composition, label level and scene key gives its
rows. Which pair of level and key the published table used is not stated: its chance is 6.79
(cross-scene), so the nearest chance names it.

Windows that cannot be decoded are left out, up to the source's max_skipped; a keystep without a window
in either view is left out in both. The note of each row says how many.

N_i windows of keystep i, D width.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.retrieval.benchmark import SCENE_KEYS, Benchmark, Context, scene_groups
from latent_actions.retrieval.encoders import EvaluatedEncoder, embed_all
from latent_actions.retrieval.metric import (
    TOP,
    all_directions,
    bounds_of,
    hits_of,
    normalize,
    top_indices,
)
from latent_actions.retrieval.results import Row, Scorer
from latent_actions.video.records import ClipRecord
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources import EgoExo4dKeystepSource

Composition = Literal["mean", "max", "dtw", "chamfer", "gt_atomic"]
Sequences = Sequence[np.ndarray]  # M arrays, float (N_i, D)
RERANKED = 200  # candidates that a sequence comparison orders anew
_FAR = 1e9  # cost of a place that no path may use

# (queries' sequence (n, D), candidates (C, L, D) padded, their lengths (C,)) -> similarity (C,)
Compare = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
COMPOSITIONS: tuple[Composition, ...] = get_args(Composition)
WINDOW_S, MOST_WINDOWS = 2.0, 16  # length of a window, and how many a keystep has at most
LEVELS = ("leaf", "parent", "scenario")


def window_count(duration_s: float, window_s: float, largest: int) -> int:
    """round(duration / window), at least 1, at most `largest`."""
    return int(np.clip(np.floor(duration_s / window_s + 0.5), 1, largest))


def mean_vector(sequence: np.ndarray) -> np.ndarray:
    """(N, D) -> (D,) of unit length."""
    return normalize(sequence.mean(axis=0, keepdims=True))[0]


def max_vector(sequence: np.ndarray) -> np.ndarray:
    """(N, D) -> (D,) of unit length."""
    return normalize(sequence.max(axis=0, keepdims=True))[0]


def dtw(query: np.ndarray, candidates: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Minus the warping cost over (n + length): unit rows (n, D), (C, L, D) -> (C,)."""
    cost = 1 - np.einsum("nd,cld->cnl", query, candidates)
    n, longest = cost.shape[1:]
    total = np.full((len(cost), n + 1, longest + 1), _FAR)
    total[:, 0, 0] = 0
    for i in range(1, n + 1):
        for j in range(1, longest + 1):
            before = np.minimum(total[:, i - 1, j], total[:, i, j - 1])
            before = np.minimum(before, total[:, i - 1, j - 1])
            total[:, i, j] = cost[:, i - 1, j - 1] + before
    return -total[np.arange(len(cost)), n, lengths] / (n + lengths)


def chamfer(query: np.ndarray, candidates: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Half the mean best match of the query's rows, half that of the candidate's: -> (C,)."""
    similarity = np.einsum("nd,cld->cnl", query, candidates)
    inside = np.arange(candidates.shape[1])[None] < lengths[:, None]
    there = np.where(inside[:, None], similarity, -_FAR).max(axis=2).mean(axis=1)
    back = np.where(inside, similarity.max(axis=1), 0).sum(axis=1) / lengths
    return (there + back) / 2


COMPARE: dict[str, Compare] = {"dtw": dtw, "chamfer": chamfer}
SINGLE = {"mean": mean_vector, "max": max_vector}


def retrieve(
    queries: Sequences, gallery: Sequences, composition: Composition, groups: Sequence[str], *,
    top: int = TOP, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Gallery rows of every query, best first, its own group left out: (M, top) int64, -1 for none.

    gt_atomic takes sequences of real atomic actions and composes them as mean does."""
    single = SINGLE.get(composition, mean_vector)
    vectors = [np.stack([single(sequence) for sequence in side]) for side in (queries, gallery)]
    if composition not in COMPARE:
        return top_indices(vectors[0], vectors[1], groups, top=top, seed=seed)
    compare = COMPARE[composition]
    found = top_indices(vectors[0], vectors[1], groups, top=max(RERANKED, top), seed=seed)
    units = [normalize(sequence) for sequence in gallery]
    return np.stack(
        [
            _rerank(normalize(query), places[places >= 0], units, compare, top)
            for query, places in zip(queries, found, strict=True)
        ]
    )


def _rerank(
    query: np.ndarray, places: np.ndarray, units: Sequences, compare: Compare, top: int
) -> np.ndarray:
    """The first `top` of the candidates by the sequence comparison; ties keep their order."""
    result = np.full(top, -1, np.int64)
    if len(places):
        lengths = np.array([len(units[place]) for place in places])
        padded = np.zeros((len(places), int(lengths.max()), query.shape[1]), np.float32)
        for row, place in enumerate(places):
            padded[row, : lengths[row]] = units[place]
        best = np.argsort(-compare(query, padded, lengths), kind="stable")[:top]
        result[: len(best)] = places[best]
    return result


@dataclass(frozen=True)
class _Side:
    """Vectors of one view of M keysteps: of the windows, and of the real atomic actions."""

    windows: Sequences
    atomic: Sequences

    def of(self, rows: Sequence[int]) -> "_Side":
        return _Side([self.windows[row] for row in rows], [self.atomic[row] for row in rows])


@dataclass(frozen=True)
class _Keysteps:
    """M keysteps with a window in both views: records of the ego view, vectors by view, and what
    was left out."""

    records: list[ClipRecord]
    sides: dict[str, _Side]
    note: str


@Benchmark.register_subclass("keystep")
@dataclass(frozen=True, kw_only=True)
class KeystepBenchmark(Benchmark):
    """P@10 of keysteps by composition, label level and scene key."""

    source: SourceConfig | None = None  # longer actions; default: keysteps in the clips' own root
    label_levels: tuple[str, ...] = LEVELS  # tags that are labels: leaf | parent | scenario
    scene_keys: tuple[str, ...] = ("institution", "capture")  # groupings that are left out

    def __post_init__(self) -> None:
        if set(self.scene_keys) - set(SCENE_KEYS):
            raise ValueError(f"scene_keys must be of {SCENE_KEYS}, got {self.scene_keys}")

    def rows(self, context: Context, encoder: EvaluatedEncoder) -> Iterator[Row]:
        keysteps = self._keysteps(context, encoder)
        score = self.scorer(context, encoder)
        for level in self.label_levels:
            labels = [str(record.tags.get(level, "")) for record in keysteps.records]
            if len(set(labels)) < 2:
                reason = f"all {len(labels)} keysteps have one label at the level {level!r}"
                yield score.skip(reason, setting=level)
                continue
            for key in self.scene_keys:
                for row in self._level(score, keysteps, labels, f"{level}, {key}", key):
                    yield row if row.note else replace(row, note=keysteps.note)

    def _level(
        self, score: Scorer, keysteps: _Keysteps, labels: list[str], setting: str, key: str
    ) -> Iterator[Row]:
        """Rows of one label level under one scene key."""
        records, sides = keysteps.records, keysteps.sides
        takes = [record.take for record in records]
        moments = [record.moment_id for record in records]
        try:
            groups = scene_groups(key, [record.scene for record in records], takes, moments)
        except UserError as error:
            yield score.skip(str(error), setting=setting)
            return
        bounds: Any = bounds_of(labels, groups).fractions()
        for composition in COMPOSITIONS:
            if composition == "gt_atomic" and not any(len(s) for s in sides["g"].atomic):
                reason = "no keystep has atomic actions"
                yield score.skip(reason, setting=setting, measure=composition)
                continue
            shown = {view: _sequences(side, composition) for view, side in sides.items()}

            def precision(
                query: str, gallery: str, shown=shown, how: Composition = composition
            ) -> np.ndarray:
                return hits_of(retrieve(shown[query], shown[gallery], how, groups), labels)

            for name, values in all_directions(precision).items():
                yield score.row(f"{composition} {name} P@10", setting, values, takes, **bounds)

    def _keysteps(self, context: Context, encoder: EvaluatedEncoder) -> _Keysteps:
        """Vectors of all keysteps that can be decoded in both views."""
        ego, exo = self._records(context)
        sides, windows, lost = {}, 0, 0
        for view, records in (("g", ego), ("x", exo)):
            sides[view], asked, missing = self._embed(context, encoder, records, view)
            windows, lost = windows + asked, lost + missing
        kept = [row for row in range(len(ego)) if all(len(s.windows[row]) for s in sides.values())]
        if not kept:
            raise UserError("no keystep has a window in both views that could be decoded")
        note = (
            f"{lost} of {windows} windows and atomic actions could not be decoded, "
            f"{len(ego) - len(kept)} of {len(ego)} keysteps are left out"
        )
        found = {view: side.of(kept) for view, side in sides.items()}
        return _Keysteps([ego[row] for row in kept], found, note if lost else "")

    def _records(self, context: Context) -> tuple[list[ClipRecord], list[ClipRecord]]:
        """Records of the keysteps with both views, ego and exo, in one order."""
        records = self._source(context).clips(context.split)
        exo: dict[str, ClipRecord] = {}  # of each moment the first camera by name
        for record in sorted(records, key=lambda r: r.camera):
            if record.view == "exo":
                exo.setdefault(record.moment_id, record)
        both = [r for r in records if r.view == "ego" and r.moment_id in exo]
        if not both:
            split = context.split
            raise UserError(f"no keystep of split {split!r} has both an ego and an exo clip")
        return both, [exo[record.moment_id] for record in both]

    def _source(self, context: Context) -> SourceConfig:
        if self.source is not None:
            return self.source
        return EgoExo4dKeystepSource(root=context.videos("keysteps").source.root)

    def _embed(
        self, context: Context, encoder: EvaluatedEncoder, records: Sequence[ClipRecord], view: str
    ) -> tuple[_Side, int, int]:
        """Vectors of the windows and atomic parts of the records, in one pass; how many windows and
        parts there are, and how many of them could not be decoded."""
        pieces = {kind: [self._pieces(r, kind) for r in records] for kind in ("windows", "atomic")}
        flat = [piece for lists in pieces.values() for some in lists for piece in some]
        store = context.store(f"keystep_{view}", flat, self._source(context).max_skipped)
        if not len(store):
            raise UserError(f"none of {len(flat)} windows could be decoded: {store.skipped[0]}")
        vectors = embed_all(encoder, store.frames)
        row_of = {record.clip_id: row for row, record in enumerate(store.records)}
        found = {
            kind: [
                vectors[[row_of[p.clip_id] for p in some if p.clip_id in row_of]] for some in all_
            ]
            for kind, all_ in pieces.items()
        }
        return _Side(**found), len(flat), len(flat) - len(store)

    def _pieces(self, record: ClipRecord, kind: str) -> list[ClipRecord]:
        """A keystep cut into equal windows, or its atomic actions."""
        spans: Sequence[tuple[float, float]] = record.parts
        if kind == "windows":
            length = record.end_s - record.start_s
            count = window_count(length, WINDOW_S, MOST_WINDOWS)
            edges = record.start_s + length * np.arange(count + 1) / count
            spans = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        return [
            replace(record, clip_id=f"{record.clip_id}/{kind}{n}", start_s=a, end_s=b, parts=())
            for n, (a, b) in enumerate(spans)
        ]


def _sequences(side: _Side, composition: Composition) -> Sequences:
    """Windows, or the real atomic actions; a keystep without any falls back to its windows."""
    if composition != "gt_atomic":
        return side.windows
    pairs = zip(side.atomic, side.windows, strict=True)
    return [atomic if len(atomic) else windows for atomic, windows in pairs]
