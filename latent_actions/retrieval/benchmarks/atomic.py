"""Atomic actions across scenes and views: P@10 in four directions, under every scene key.

g = ego, x = exo. The query's whole scene is left out of the gallery (key `none`: its own moment
only, which is the second reading of cross-view). Spec: mean precision at 10 over all queries,
unanswerable ones counted as 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.retrieval.benchmark import Benchmark, Context
from latent_actions.retrieval.encoders import EvaluatedEncoder
from latent_actions.retrieval.metric import ScoreBounds, as_ids, precision_at, reference_scores_of
from latent_actions.retrieval.protocols import AVERAGES, DIRECTIONS
from latent_actions.retrieval.results import Row
from latent_actions.retrieval.scenes import SCENE_KEYS, scene_groups


class Fractions(TypedDict):
    """Chance, oracle and answerable share in [0, 1]."""

    chance: float
    oracle: float
    answerable: float


@Benchmark.register_subclass("atomic")
@dataclass(frozen=True, kw_only=True)
class AtomicBenchmark(Benchmark):
    """P@10 of atomic actions across scenes (g-g, x-x) and views (g-x, x-g)."""

    scene_keys: tuple[str, ...] = SCENE_KEYS  # groupings to leave out, a block of rows each

    def __post_init__(self) -> None:
        unknown = set(self.scene_keys) - set(SCENE_KEYS)
        if unknown or not self.scene_keys:
            raise ValueError(f"scene_keys must be of {SCENE_KEYS}, got {self.scene_keys}")

    def rows(self, context: Context, subject: EvaluatedEncoder) -> Iterator[Row]:
        moments = context.moments
        sides = dict(zip("gx", context.vectors(subject), strict=True))
        score = self.scorer(context, subject)
        reasons, seen = [], {}
        for key in self.scene_keys:
            try:
                groups = scene_groups(key, moments.scene, moments.take, moments.moment)
            except UserError as error:
                reasons.append(str(error))
                yield score.skip(str(error), setting=key)
                continue
            same = seen.setdefault(tuple(as_ids(groups).tolist()), key)
            if same != key:
                yield score.skip(f"the same groups as {same!r}", setting=key)
                continue
            levels = fractions(reference_scores_of(moments.verb, groups))
            for name, values in directions(sides, moments.verb, groups).items():
                yield score.row(f"{name} P@10", key, values, moments.take, **levels)
        if len(reasons) == len(self.scene_keys):
            raise UserError(reasons[0])


def directions(
    sides: dict[str, np.ndarray], labels: tuple[str, ...], groups: list[str]
) -> dict[str, np.ndarray]:
    """Scores (M,) of the four directions and their two averages."""
    scores = {
        name: precision_at(sides[name[0]], sides[name[-1]], labels, groups) for name in DIRECTIONS
    }
    for name, parts in AVERAGES.items():
        scores[name] = np.mean([scores[part] for part in parts], axis=0)
    return scores


def fractions(levels: ScoreBounds) -> Fractions:
    """ScoreBounds from percent to [0, 1]."""
    return {
        "chance": levels.chance / 100,
        "oracle": levels.oracle / 100,
        "answerable": levels.answerable / 100,
    }
