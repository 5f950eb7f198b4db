"""Batches in which every anchor has what the loss compares it with: groups of clips, or takes.

A quadruplet is an action y in two scenes s and s', and other actions in the same scenes:
A = (y, s), B = (y, s'), C = (not y, s), D = (not y, s'). A group has 8 clips, As and Bs in its first
half, Cs and Ds in its second: one quadruplet with each moment seen by its ego and one exo camera. A
batch is a pure function of (seed, step).
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.clips import ClipTable

CLIPS_PER_GROUP = 8
VERB_POWER = 0.5  # an action is drawn with probability ~ (number of its moments) ** this
SAME_TAKE = 0.5  # probability that C comes from A's own take where it can
BEST_EXO = 0.5  # probability of a moment's best exo camera, where the table knows it (else any)


@dataclass(frozen=True, kw_only=True)
class SamplerConfig:
    """How a batch is drawn."""

    # groups (an action and others, in two scenes) | random (moments with both views, uniform) | takes
    # (several moments of each of some takes, so that the place does not tell them: the multi-view
    # negatives of time-contrastive networks, arxiv.org/abs/1704.06888)
    kind: Literal["groups", "random", "takes"] = "groups"
    per_take: int = 8  # moments of one take in a batch, with kind takes

    def __post_init__(self) -> None:
        if self.per_take < 1:
            raise ValueError(f"per_take must be >= 1, got {self.per_take}")


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
                "use more scenes, or sampler.kind random or takes"
            )
        if not self.moments:
            raise UserError(
                "no moment is seen by both an ego and an exo camera: check the source's cameras "
                "(demonstrations: camera all)"
            )
        weight = np.array([count[v] for v in self.verbs], float) ** VERB_POWER
        self.verb_probability = weight / weight.sum() if len(weight) else weight

    def batch(self, step: int, size: int) -> np.ndarray:
        """Rows of one batch, int64 (size,); size is a multiple of 8 (groups) or 2 (else)."""
        rng = np.random.default_rng([self.seed, 11, step])
        if self.config.kind != "groups":
            if size < 2 or size % 2:
                raise UserError(
                    f"batch_size must be a multiple of 2 (both views of a moment), got {size}"
                )
            draw = self._random if self.config.kind == "random" else self._of_takes
            moments = draw(size // 2, rng)
            return np.array([row for m in moments for row in self._views(m, rng)], np.int64)
        if size % CLIPS_PER_GROUP:
            raise UserError(
                f"batch_size must be a multiple of {CLIPS_PER_GROUP} (one group), got {size}"
            )
        return np.array(
            [
                row
                for _ in range(size // CLIPS_PER_GROUP)
                for moment in self._quadruplet(rng)
                for row in self._views(moment, rng)
            ],
            np.int64,
        )

    def _random(self, count: int, rng: np.random.Generator) -> list[str]:
        return [self.moments[i] for i in rng.integers(len(self.moments), size=count)]

    def _of_takes(self, count: int, rng: np.random.Generator) -> list[str]:
        """Moments of takes that are drawn in proportion to their moments: `per_take` of each, or all
        of a take that has fewer."""
        found: list[str] = []
        while len(found) < count:
            moment = _pick(self.moments, rng)
            verbs = self.by_take[self.table.take[self.ego[moment][0]]]
            take = [moment for moments in verbs.values() for moment in moments]
            some = rng.permutation(len(take))[: self.config.per_take]
            found += [take[i] for i in some]
        return found[:count]

    def _quadruplet(self, rng: np.random.Generator) -> list[str]:
        """Moments A, B, C, D."""
        verb = self.verbs[rng.choice(len(self.verbs), p=self.verb_probability)]
        scenes = self.scenes_of[verb]
        first, second = (scenes[i] for i in rng.choice(len(scenes), 2, replace=False))
        anchors = [_pick(self.by_scene[scene][verb], rng) for scene in (first, second)]
        return [*anchors, *(self._other(verb, anchor, rng) for anchor in anchors)]

    def _other(self, verb: str, anchor: str, rng: np.random.Generator) -> str:
        """A moment of another action in the anchor's take or scene."""
        row = self.ego[anchor][0]
        take = self.by_take[self.table.take[row]]
        inside = take if rng.random() < SAME_TAKE and len(take) > 1 else None
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
