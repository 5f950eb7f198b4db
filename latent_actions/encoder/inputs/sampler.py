"""The group sampler: batches in which every anchor has what the loss compares it with.

A quadruplet is an action y in two scenes s and s', and other actions in the same scenes:
A = (y, s), B = (y, s'), C = (not y, s), D = (not y, s'). A group has 8 clips, As and Bs in its first
half, Cs and Ds in its second: one quadruplet with each moment seen by its ego and one exo camera, or
two quadruplets with each moment seen by one of them. A batch is a pure function of (seed, step).
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.clips import ClipTable

CLIPS_PER_GROUP = 8
BEST_EXO = 0.5  # probability of a moment's best exo camera, where the table knows it (else any)


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How a batch is drawn."""

    # groups (an action and others, in two scenes) | random (moments with both views, uniform)
    kind: Literal["groups", "random"] = "groups"
    verb_power: float = 0.5  # an action is drawn with probability ~ (number of its moments) ** this
    same_take: float = 0.5  # probability that C comes from A's own take where it can
    views: Literal["both", "one"] = "both"  # of a moment: both | one (A, B alike in half)

    def __post_init__(self) -> None:
        if self.views == "one" and self.kind != "groups":
            raise ValueError("views one needs kind groups: random batches are pairs of views")
        if not 0 <= self.same_take <= 1:
            raise ValueError(f"same_take must be in [0, 1], got {self.same_take}")


class GroupSampler:
    """Draws rows of a clip table, which must be of the training split; an action is a verb here."""

    def __init__(
        self, table: ClipTable, rows: np.ndarray, config: SamplerConfig, seed: int
    ) -> None:
        self.table, self.config, self.seed = table, config, seed
        self.ego: dict[str, list[int]] = defaultdict(list)
        self.exo: dict[str, list[int]] = defaultdict(list)
        for row in map(int, rows):
            (self.ego if table.view[row] == "ego" else self.exo)[table.moment[row]].append(row)
        self.moments = [m for m in self.ego if m in self.exo]
        self.best = {table.moment[row]: row for row in map(int, rows) if table.is_best(row)}
        self.by_scene: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self.by_take: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        self.scenes_of: dict[str, list[str]] = defaultdict(list)
        count: dict[str, int] = defaultdict(int)
        for moment in self.moments:
            row = self.ego[moment][0]
            verb, scene = table.verb[row], table.scene[row]
            self.by_scene[scene][verb].append(moment)
            self.by_take[table.take[row]][verb].append(moment)
            count[verb] += 1
        for scene, verbs in self.by_scene.items():
            for verb in verbs if len(verbs) > 1 else ():
                self.scenes_of[verb].append(scene)
        self.verbs = sorted(v for v, scenes in self.scenes_of.items() if len(scenes) > 1)
        if not self.verbs and config.kind == "groups":
            raise UserError(
                "no action is seen (from ego and exo) in two scenes that show other actions too: "
                f"{len(self.moments)} moments, {len(self.by_scene)} scenes, {len(count)} actions; "
                "use more scenes, or sampler.kind random"
            )
        if not self.moments:
            raise UserError(
                "no moment is seen by both an ego and an exo camera: check the source's cameras"
            )
        weight = np.array([count[v] for v in self.verbs], float) ** config.verb_power
        self.verb_probability = weight / weight.sum() if len(weight) else weight

    def batch(self, step: int, size: int) -> np.ndarray:
        """Rows of one batch, int64 (size,); size is a multiple of 8 (groups) or 2 (random)."""
        rng = np.random.default_rng([self.seed, 11, step])
        if self.config.kind == "random":
            if size < 2 or size % 2:
                raise UserError(
                    f"batch_size must be a multiple of 2 (both views of a moment), got {size}"
                )
            picks = rng.integers(len(self.moments), size=size // 2)
            return np.array(
                [row for i in picks for row in self._views(self.moments[i], rng)], np.int64
            )
        if size % CLIPS_PER_GROUP:
            raise UserError(
                f"batch_size must be a multiple of {CLIPS_PER_GROUP} (one group), got {size}"
            )
        return np.array(
            [row for _ in range(size // CLIPS_PER_GROUP) for row in self._group(rng)], np.int64
        )

    def _group(self, rng: np.random.Generator) -> list[int]:
        if self.config.views == "both":
            return [row for moment in self._quadruplet(rng) for row in self._views(moment, rng)]
        first, second = (self._one_view_each(rng) for _ in range(2))
        return [*first[:2], *second[:2], *first[2:], *second[2:]]

    def _quadruplet(self, rng: np.random.Generator) -> list[str]:
        """Moments A, B, C, D."""
        verb = self.verbs[rng.choice(len(self.verbs), p=self.verb_probability)]
        scenes = self.scenes_of[verb]
        first, second = (scenes[i] for i in rng.choice(len(scenes), 2, replace=False))
        anchors = [_pick(self.by_scene[scene][verb], rng) for scene in (first, second)]
        return [*anchors, *(self._other(verb, anchor, rng) for anchor in anchors)]

    def _one_view_each(self, rng: np.random.Generator) -> list[int]:
        """Rows of A, B, C, D: A and B by different views with probability 0.5, C and D by any."""
        moments, is_ego = self._quadruplet(rng), rng.random(4) < 0.5
        is_ego[1] = is_ego[0] ^ (rng.random() < 0.5)
        return [
            _pick(self.ego[moment], rng) if ego else self._exo(moment, rng)
            for moment, ego in zip(moments, is_ego, strict=True)
        ]

    def _other(self, verb: str, anchor: str, rng: np.random.Generator) -> str:
        """A moment of another action in the anchor's take or scene."""
        row = self.ego[anchor][0]
        take = self.by_take[self.table.take[row]]
        inside = take if rng.random() < self.config.same_take and len(take) > 1 else None
        pool = inside or self.by_scene[self.table.scene[row]]
        other = _pick(sorted(v for v in pool if v != verb), rng)
        return _pick(pool[other], rng)

    def _views(self, moment: str, rng: np.random.Generator) -> list[int]:
        return [_pick(self.ego[moment], rng), self._exo(moment, rng)]

    def _exo(self, moment: str, rng: np.random.Generator) -> int:
        """Row of an exo camera: any, or with probability BEST_EXO the best if it is known."""
        if moment in self.best and rng.random() < BEST_EXO:
            return self.best[moment]
        return _pick(self.exo[moment], rng)


def _pick(values: list, rng: np.random.Generator):
    return values[rng.integers(len(values))]


def check_groups(
    table: ClipTable, rows: np.ndarray, views: Literal["both", "one"] = "both"
) -> None:
    """Assert the sampler's promise: every A and B has a cross-scene positive and a same-scene
    negative in its own group, and with both views a cross-view positive.
    """
    for group in rows.reshape(-1, CLIPS_PER_GROUP):
        facts = [(table.verb[r], table.scene[r], table.view[r]) for r in map(int, group)]
        for verb, scene, view in facts[:4]:
            assert any(v == verb and s != scene for v, s, _ in facts), "no cross-scene positive"
            crossed = any(v == verb and w != view for v, _, w in facts)
            assert crossed or views == "one", "no cross-view positive"
            assert any(v != verb and s == scene for v, s, _ in facts), "no same-scene negative"
