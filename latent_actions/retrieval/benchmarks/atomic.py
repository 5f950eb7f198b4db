"""Atomic actions across scenes and views: P@10 in four directions, under every scene key; and clip by
clip, what a folder of single views can answer.

The query's whole scene is left out of the gallery (key `none`: its own moment only, which is the
second reading of cross-view). Mean precision at 10 over all queries, unanswerable ones counted as 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.stats.bootstrap import as_ids
from latent_actions.encoder.inputs.clips import ClipTable
from latent_actions.retrieval.benchmark import SCENE_KEYS, Benchmark, Context
from latent_actions.retrieval.encoders import EvaluatedEncoder
from latent_actions.retrieval.metric import bounds_of, normalize, precisions
from latent_actions.retrieval.ranking import Pool, ranked
from latent_actions.retrieval.results import Row
from latent_actions.video.records import ClipRecord

_BATCH = 256  # clips read at a time


@Benchmark.register_subclass("atomic")
@dataclass(frozen=True, kw_only=True)
class AtomicBenchmark(Benchmark):
    """P@10 of atomic actions across scenes (g-g, x-x) and views (g-x, x-g)."""

    scene_keys: tuple[str, ...] = SCENE_KEYS  # groupings to leave out, a block of rows each

    def __post_init__(self) -> None:
        unknown = set(self.scene_keys) - set(SCENE_KEYS)
        if unknown or not self.scene_keys:
            raise ValueError(f"scene_keys must be of {SCENE_KEYS}, got {self.scene_keys}")

    @property
    def compares_durations(self) -> bool:
        return True

    def rows(self, context: Context, encoder: EvaluatedEncoder) -> Iterator[Row]:
        moments, score = context.moments, self.scorer(context, encoder)
        reasons, seen = [], {}
        for key in self.scene_keys:
            try:
                groups = moments.groups(key)
            except UserError as error:
                reasons.append(str(error))
                yield score.skip(str(error), setting=key)
                continue
            same = seen.setdefault(tuple(as_ids(groups).tolist()), key)
            if same != key:
                yield score.skip(f"the same groups as {same!r}", setting=key)
                continue
            bounds: Any = bounds_of(moments.verb, groups).fractions()
            for name, values in precisions(
                *context.compared(encoder), moments.verb, groups
            ).items():
                yield score.row(f"{name} P@10", key, values, moments.take, **bounds)
        if len(reasons) == len(self.scene_keys):
            raise UserError(reasons[0])


@Benchmark.register_subclass("cross_place")
@dataclass(frozen=True, kw_only=True)
class CrossPlaceBenchmark(Benchmark):
    """Precision at the first few clips of other places: of all views, of the query's, of the other."""

    top: int = 5  # clips looked at, the K of P@K
    # a longer clip is cut into parts of at most this many seconds, whose vectors are averaged and say
    # nothing of its duration; 0: each clip is one vector, its frames spread over all of it
    window_s: float = 0.0
    windows: int = 8  # parts of a clip at most, spread evenly over it

    def __post_init__(self) -> None:
        if self.top < 1 or self.windows < 1 or self.window_s < 0:
            raise ValueError(
                "top and windows must be >= 1 and window_s >= 0, got "
                f"{self.top}, {self.windows} and {self.window_s}"
            )

    @property
    def compares_durations(self) -> bool:
        return not self.window_s

    def rows(self, context: Context, encoder: EvaluatedEncoder) -> Iterator[Row]:
        table, score = context.table, self.scorer(context, encoder)
        settings = {name: _Asked.of(table, name) for name in ("all", "same view", "other view")}
        if not len(settings["all"].queries):
            raise UserError(
                f"no verb of the {len(table)} clips stands in two places: give clips of the same "
                "actions in two or more places (<split>/<place>/<verb>/<name>.mp4)"
            )
        vectors = self._vectors(context, encoder)
        for name, asked in settings.items():
            if not len(asked.queries):
                yield score.skip(f"no verb stands in two places in the {name}", setting=name)
                continue
            found = asked.precision(vectors, table, self.top)
            bounds: Any = asked.bounds(self.top)
            for measure, column in (("", table.moment), (", places drawn", table.scene)):
                drawn = [column[row] for row in asked.queries]
                yield score.row(f"P@{self.top}{measure}", name, found, drawn, **bounds)

    def _vectors(self, context: Context, encoder: EvaluatedEncoder) -> np.ndarray:
        """A vector of each clip of the table: float (N, D)."""
        table = context.table
        if not self.window_s:
            starts = range(0, len(table), _BATCH)
            parts = [np.arange(i, min(i + _BATCH, len(table))) for i in starts]
            each = np.concatenate([encoder.embed(table.read(rows)) for rows in parts])
            return encoder.timed(each, table.seconds)
        records = context.records()
        cut = [part for record in records for part in self._parts(record)]
        store = context.store("windows", cut, context.videos("spans").source.max_skipped)
        row_of = {record.clip_id: row for row, record in enumerate(records)}
        rows = [row_of[part.clip_id.rpartition("#")[0]] for part in store.records]
        starts = range(0, len(rows), _BATCH)
        each = [encoder.embed(store.batch(np.arange(len(rows))[i : i + _BATCH])) for i in starts]
        unit = normalize(np.concatenate(each))
        total = np.zeros((len(records), unit.shape[1]), np.float32)
        np.add.at(total, rows, unit)  # the mean but for its length, which the cosine leaves out
        return total

    def _parts(self, record: ClipRecord) -> list[ClipRecord]:
        """A clip cut into equal parts of at most `window_s` seconds, or `windows` of them."""
        count = max(1, int(np.ceil((record.end_s - record.start_s) / self.window_s - 1e-6)))
        edges = np.linspace(record.start_s, record.end_s, count + 1)
        kept = np.unique(np.linspace(0, count - 1, min(count, self.windows)).round().astype(int))
        return [
            replace(
                record, clip_id=f"{record.clip_id}#{part}", start_s=float(edges[part]),
                end_s=float(edges[part + 1]), parts=(),
            )
            for part in kept
        ]  # fmt: skip


@dataclass(frozen=True)
class _Asked:
    """The queries of one setting, (Q,) rows of the table, with the size of each one's gallery and the
    clips of its verb there. pools: rows of queries and gallery that are ranked together."""

    queries: np.ndarray
    size: np.ndarray
    positives: np.ndarray
    pools: list[tuple[np.ndarray, np.ndarray]]
    clips: int

    @classmethod
    def of(cls, table: ClipTable, setting: str) -> "_Asked":
        """setting: all, same view, other view."""
        view, every = np.array(table.view), np.arange(len(table))
        names = sorted(set(table.view)) if setting != "all" else []
        pools = [(every, every)] if setting == "all" else []
        for name in names:
            gallery = view == name if setting == "same view" else view != name
            pools.append((np.flatnonzero(view == name), np.flatnonzero(gallery)))
        kept, sizes, positives = [], [], []
        for asked, gallery in pools:
            size, right = _pool(table, asked, gallery).counts()
            kept.append((asked[right > 0], gallery))
            sizes.append(size[right > 0])
            positives.append(right[right > 0])
        queries = np.concatenate([asked for asked, _ in kept])
        return cls(queries, np.concatenate(sizes), np.concatenate(positives), kept, len(table))

    def precision(self, vectors: np.ndarray, table: ClipTable, top: int) -> np.ndarray:
        """Share of the first `top` clips that show the query's verb: float64 (Q,)."""
        found = [
            ranked(vectors[asked], vectors[gallery], _pool(table, asked, gallery), top=top)
            for asked, gallery in self.pools
            if len(asked)
        ]
        return np.concatenate([part.precision for part in found])

    def bounds(self, top: int) -> dict[str, float]:
        """What the gallery allows, in [0, 1]."""
        return {
            "chance": float(np.mean(self.positives / np.maximum(self.size, top))),
            "oracle": float(np.mean(np.minimum(self.positives, top) / top)),
            "answerable": len(self.queries) / self.clips,
        }


def _pool(table: ClipTable, asked: np.ndarray, gallery: np.ndarray) -> Pool:
    return Pool.of(table.verb, table.scene, asked.tolist(), gallery.tolist())
