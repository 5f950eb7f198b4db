"""The group sampler: batches in which every anchor has what the loss compares it with.

One group is an action y in two scenes s and s', and other actions in the same scenes:
A = (y, s), B = (y, s'), C = (not y, s), D = (not y, s'), each seen by its ego and one exo camera: 8
clips. A batch is a pure function of (seed, step).
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from invact_vla.errors import UserError
from latent_actions.invact.clips import ClipTable

CLIPS_PER_GROUP = 8


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How a batch is drawn."""

    kind: Literal["groups", "random"] = (
        "groups"  # groups | random (moments with both views, uniform)
    )
    verb_power: float = 0.5  # an action is drawn with probability ~ (number of its moments) ** this
    same_take: float = 0.5  # probability that C comes from A's own take where it can

    def __post_init__(self) -> None:
        if not 0 <= self.same_take <= 1:
            raise ValueError(f"same_take must be in [0, 1], got {self.same_take}")


class GroupSampler:
    """Draws rows of a clip table. Rows must be of the training split."""

    def __init__(
        self, table: ClipTable, rows: np.ndarray, config: SamplerConfig, seed: int
    ) -> None:
        self.table, self.config, self.seed = table, config, seed
        self.ego: dict[str, list[int]] = defaultdict(list)
        self.exo: dict[str, list[int]] = defaultdict(list)
        for row in map(int, rows):
            (self.ego if table.view[row] == "ego" else self.exo)[table.moment[row]].append(row)
        self.moments = [m for m in self.ego if m in self.exo]
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
        verb = self.verbs[rng.choice(len(self.verbs), p=self.verb_probability)]
        scenes = self.scenes_of[verb]
        first, second = (scenes[i] for i in rng.choice(len(scenes), 2, replace=False))
        rows: list[int] = []
        anchors = [_pick(self.by_scene[scene][verb], rng) for scene in (first, second)]
        others = [self._other(verb, anchor, rng) for anchor in anchors]
        for moment in (*anchors, *others):
            rows += self._views(moment, rng)
        return rows

    def _other(self, verb: str, anchor: str, rng: np.random.Generator) -> str:
        """A moment of another action in the anchor's take or scene."""
        row = self.ego[anchor][0]
        take = self.by_take[self.table.take[row]]
        inside = take if rng.random() < self.config.same_take and len(take) > 1 else None
        pool = inside or self.by_scene[self.table.scene[row]]
        other = _pick(sorted(v for v in pool if v != verb), rng)
        return _pick(pool[other], rng)

    def _views(self, moment: str, rng: np.random.Generator) -> list[int]:
        return [_pick(self.ego[moment], rng), _pick(self.exo[moment], rng)]


def _pick(values: list, rng: np.random.Generator):
    return values[rng.integers(len(values))]


def check_groups(table: ClipTable, rows: np.ndarray) -> None:
    """Assert the sampler's promise: every A and B has a cross-scene positive, a cross-view positive
    and a same-scene negative in its own group.
    """
    for group in rows.reshape(-1, CLIPS_PER_GROUP):
        facts = [(table.verb[r], table.scene[r], table.view[r]) for r in map(int, group)]
        for verb, scene, view in facts[:4]:
            assert any(v == verb and s != scene for v, s, _ in facts), "no cross-scene positive"
            assert any(v == verb and w != view for v, _, w in facts), "no cross-view positive"
            assert any(v != verb and s == scene for v, s, _ in facts), "no same-scene negative"
