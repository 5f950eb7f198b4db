"""Precision@K of retrieval with whole groups (a scene, a take, a moment) left out of each gallery.

A hit is a gallery clip of the same label. The score of a query is hits / K, the divisor K even
where fewer positives exist, and the mean runs over all queries: queries without any positive stay
in as 0. N queries and gallery rows (row i of both is the same moment), D embedding width, K hits
looked at.

Four directions of atomic retrieval, query to gallery: g = ego, x = exo. Cross-scene compares clips of
one view, cross-view of both.

`invact encoder levels HISTOGRAM.json`: chance and oracle of a data set from its counts alone. The file
holds, beside an optional note, one or more groupings {name: {group: {label: count}}}.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.stats.bootstrap import as_ids

TOP = 10  # the benchmark's K
_BLOCK = 1024  # queries per matrix product: bounds memory at 1024 x N similarities
DIRECTIONS = ("g-g", "x-x", "g-x", "x-g")
AVERAGES = {"cross_scene": ("g-g", "x-x"), "cross_view": ("g-x", "x-g")}
DIRECTION_NAMES = {
    "g-g": "ego -> ego", "x-x": "exo -> exo", "cross_scene": "cross-scene", "g-x": "ego -> exo",
    "x-g": "exo -> ego", "cross_view": "cross-view",
}  # fmt: skip
_LAYOUT = "expected {grouping: {group: {label: count}}}"


@dataclass(frozen=True, kw_only=True)
class ScoreBounds:
    """What a data set allows, whatever the encoder; all in percent but n and groups."""

    chance: float  # expected precision@K of a random order, mean_i R_i / |G_i|
    oracle: float  # precision@K of a perfect order, mean_i min(R_i, K) / K
    answerable: float  # share of queries with at least one positive in their gallery
    n: int  # queries
    groups: int  # distinct groups

    def fractions(self) -> dict[str, float]:
        """chance, oracle and answerable in [0, 1]."""
        return {name: getattr(self, name) / 100 for name in ("chance", "oracle", "answerable")}


def score_bounds(counts: Mapping[Any, Mapping[Any, int]], top: int = TOP) -> ScoreBounds:
    """Bounds of a data set from counts[group][label], each query's own group left out.

    A gallery smaller than K is retrieved whole, so chance there is R_i / K. ValueError without clips."""
    per_label: Counter = Counter()
    for group in counts.values():
        per_label.update(group)
    total = per_label.total()
    if total == 0:
        raise ValueError("no clips: every count is zero")
    chance = oracle = answerable = 0.0
    for group in counts.values():
        gallery = total - sum(group.values())
        for label, count in group.items():
            positives = per_label[label] - count
            chance += count * positives / max(gallery, top)
            oracle += count * min(positives, top) / top
            answerable += count * (positives > 0)
    scale = 100.0 / total
    return ScoreBounds(
        chance=chance * scale, oracle=oracle * scale, answerable=answerable * scale, n=total,
        groups=len(counts),
    )  # fmt: skip


def bounds_of(
    labels: Sequence[Hashable], groups: Sequence[Hashable], top: int = TOP
) -> ScoreBounds:
    """Bounds of N clips given their labels and groups (equal length)."""
    counts: dict[Hashable, Counter] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        counts[group][label] += 1
    return score_bounds(counts, top)


def precision_at(
    queries: np.ndarray, gallery: np.ndarray, labels: Sequence[Hashable],
    groups: Sequence[Hashable], *, top: int = TOP, seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Score every query: (N, D) float against (N, D) float -> (N,) float64 in [0, 1].

    Similarity is the cosine. Gallery rows of the query's own group are left out (give every row its
    own group to leave out only itself). Ties are broken by index after a shuffle fixed by `seed`."""
    sizes = (len(queries), len(labels), len(groups))
    if queries.shape != gallery.shape or len(set(sizes)) > 1:
        raise ValueError(
            f"expected queries and gallery (N, D) with N labels and N groups, got {queries.shape}, "
            f"{gallery.shape}, {sizes[1]} labels, {sizes[2]} groups"
        )
    return hits_of(top_indices(queries, gallery, groups, top=top, seed=seed), labels)


def hits_of(found: np.ndarray, labels: Sequence[Hashable]) -> np.ndarray:
    """Precision of each row of retrieved rows, divisor its width: (N, top) -> (N,) in [0, 1]."""
    ids = as_ids(labels)
    right = (ids[found] == ids[: len(found), None]) & (found >= 0)
    return right.sum(axis=1) / found.shape[1]


def top_indices(
    queries: np.ndarray, gallery: np.ndarray, groups: Sequence[Hashable], *, top: int = TOP,
    seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Gallery rows retrieved for every query, best first: (N, top) int64, -1 where the gallery is
    too small."""
    group_ids = as_ids(groups)
    order = np.random.default_rng(seed).permutation(len(gallery))
    unit_queries, unit_gallery = normalize(queries), normalize(gallery)[order]
    found = []
    for start in range(0, len(queries), _BLOCK):
        similarity = unit_queries[start : start + _BLOCK] @ unit_gallery.T
        left_out = group_ids[start : start + _BLOCK, None] == group_ids[order][None]
        best, valid = _best(similarity, left_out, top)
        found.append(np.where(valid, order[best], -1))
    return np.concatenate(found)


def _best(similarity: np.ndarray, left_out: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the `top` largest allowed similarities, best first, lower column first in a tie."""
    n = similarity.shape[1]
    keys = sort_keys(similarity, left_out)
    width = min(top, n)
    found = np.argpartition(keys, width - 1, axis=1)[:, :width]
    found = np.take_along_axis(found, np.argsort(np.take_along_axis(keys, found, 1), axis=1), 1)
    valid = ~np.take_along_axis(left_out, found, 1)
    if width < top:
        found = np.pad(found, ((0, 0), (0, top - width)))
        valid = np.pad(valid, ((0, 0), (0, top - width)))
    return found, valid


def sort_keys(similarity: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Integers that sort columns by falling similarity, lower column first in a tie, what is left
    out last: float (B, N), bool (B, N) -> int64 (B, N).

    Similarity and column are packed into one integer, so that a partial sort has a unique answer."""
    allowed = np.where(left_out, -np.inf, similarity + 0.0).astype(np.float32)
    bits = allowed.view(np.int32).astype(np.int64)
    rank = np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))  # float order as integer order
    return (-rank << 32) + np.arange(similarity.shape[1])


def normalize(rows: np.ndarray) -> np.ndarray:
    """Rows of unit length, float32 (N, D); zero rows stay zero. UserError on NaN or infinity."""
    rows = np.asarray(rows, dtype=np.float32)
    if not np.isfinite(rows).all():
        raise UserError(
            "embeddings hold NaN or infinity: the weights are broken, or their training was; use an "
            "earlier checkpoint"
        )
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def in_words(measure: str) -> str:
    """A measure's name with its direction spelled out: "g-x P@10" is "ego -> exo P@10"."""
    name, _, rest = measure.partition(" ")
    return f"{DIRECTION_NAMES.get(name, name)} {rest}".rstrip()


def all_directions(score: Callable[[str, str], np.ndarray]) -> dict[str, np.ndarray]:
    """Scores (M,) of the four directions and their two averages; score(query's view, gallery's)."""
    scores = {name: score(name[0], name[-1]) for name in DIRECTIONS}
    for name, parts in AVERAGES.items():
        scores[name] = np.mean([scores[part] for part in parts], axis=0)
    return scores


def precisions(
    ego: np.ndarray, exo: np.ndarray, labels: Sequence[Hashable], groups: Sequence[Hashable]
) -> dict[str, np.ndarray]:
    """P@10 of M moments in all directions, the query's group left out: (M, D) twice -> {name: (M,)}."""
    views = {"g": ego, "x": exo}
    return all_directions(lambda a, b: precision_at(views[a], views[b], labels, groups))


@dataclass(frozen=True, kw_only=True)
class LevelsConfig:
    """Which counts to compute the levels of."""

    POSITIONAL: ClassVar[str] = "histogram"  # a word without a flag

    histogram: Path  # JSON file {grouping: {group: {label: count}}}; also without the flag


def read_histogram(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Groupings of a histogram file, text entries (notes) left out. Raises UserError on any other
    content."""
    if not path.is_file():
        raise UserError(
            f"expected a histogram file, found none at {path}: give that of a JSON file"
        )
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} holds a {type(content).__name__}; {_LAYOUT}")
    groupings = {name: value for name, value in content.items() if not isinstance(value, str)}
    if not groupings:
        raise UserError(f"{path} holds no grouping; {_LAYOUT}")
    for name, grouping in groupings.items():
        if not isinstance(grouping, dict) or not grouping:
            raise UserError(f"{path}: grouping {name!r} must be a non-empty object of groups")
        for group, counts in grouping.items():
            if not isinstance(counts, dict):
                raise UserError(f"{path}: {name}/{group} must map labels to counts, got {counts!r}")
            for label, count in counts.items():
                if type(count) is not int or count < 0:
                    where = f"{path}: {name}/{group}/{label}"
                    raise UserError(f"{where} must be a count >= 0, got {count!r}")
        if not any(sum(counts.values()) for counts in grouping.values()):
            raise UserError(f"{path}: grouping {name!r} counts no clip")
    return groupings


def main(config: LevelsConfig) -> int:
    """Print the bounds of each grouping in the file; returns the exit code."""
    for name, grouping in read_histogram(config.histogram).items():
        values = score_bounds(grouping)
        print(
            f"{name}: chance {values.chance:.3f} %  oracle {values.oracle:.2f} %  answerable "
            f"{values.answerable:.1f} %  ({values.n:,} clips, {values.groups} groups, P@{TOP})"
        )
    return 0
