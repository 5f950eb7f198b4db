"""Atomic actions across scenes and views: P@10 in four directions, under every scene key.

The query's whole scene is left out of the gallery (key `none`: its own moment only, which is the
second reading of cross-view). Mean precision at 10 over all queries, unanswerable ones counted as 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.stats.bootstrap import as_ids
from latent_actions.retrieval.benchmark import Benchmark, Context
from latent_actions.retrieval.encoders import EvaluatedEncoder
from latent_actions.retrieval.metric import bounds_of, precisions
from latent_actions.retrieval.results import Row
from latent_actions.retrieval.scenes import SCENE_KEYS


@Benchmark.register_subclass("atomic")
@dataclass(frozen=True, kw_only=True)
class AtomicBenchmark(Benchmark):
    """P@10 of atomic actions across scenes (g-g, x-x) and views (g-x, x-g)."""

    scene_keys: tuple[str, ...] = SCENE_KEYS  # groupings to leave out, a block of rows each

    def __post_init__(self) -> None:
        unknown = set(self.scene_keys) - set(SCENE_KEYS)
        if unknown or not self.scene_keys:
            raise ValueError(f"scene_keys must be of {SCENE_KEYS}, got {self.scene_keys}")

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
            for name, values in precisions(*context.vectors(encoder), moments.verb, groups).items():
                yield score.row(f"{name} P@10", key, values, moments.take, **bounds)
        if len(reasons) == len(self.scene_keys):
            raise UserError(reasons[0])
