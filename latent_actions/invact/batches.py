"""Batches of a clip table: which clips, their augmented pixels, ids and texts; a function of (seed,
step).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from latent_actions.invact.augment import AugmentConfig, augment
from latent_actions.invact.clips import ClipTable
from latent_actions.invact.language import text_features, verb_sentence, without_subject
from latent_actions.invact.losses import Items
from latent_actions.invact.model import Batch
from latent_actions.invact.sampler import GroupSampler, SamplerConfig


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Which text a clip is paired with."""

    verb_share: float = 0.5  # probability of the bare verb in a template instead of the description
    min_clips: int = 20  # clips that a verb needs to become a class of the verb term

    def __post_init__(self) -> None:
        if not 0 <= self.verb_share <= 1 or self.min_clips < 1:
            raise ValueError("verb_share must be in [0, 1] and min_clips >= 1")


def class_verbs(table: ClipTable, rows: np.ndarray, min_clips: int) -> tuple[str, ...]:
    """Verbs with at least min_clips clips among rows, sorted; all verbs if none has as many."""
    count = Counter(table.verb[row] for row in map(int, rows))
    return tuple(sorted(v for v, n in count.items() if n >= min_clips)) or tuple(sorted(count))


class Batches:
    """Makes training batches."""

    def __init__(
        self,
        table: ClipTable,
        rows: np.ndarray,
        *,
        size: int,
        sampler: SamplerConfig,
        augmentation: AugmentConfig,
        text: TextConfig,
        seed: int,
    ) -> None:
        self.table, self.size, self.augmentation, self.text, self.seed = (
            table,
            size,
            augmentation,
            text,
            seed,
        )
        self.verbs = class_verbs(table, rows, text.min_clips)
        self.sampler = GroupSampler(table, rows, sampler, seed)
        self.ids = {
            name: _ids(getattr(table, name)) for name in ("verb", "scene", "view", "moment")
        }
        self.ids["head"] = _ids([verb.split(" ")[0] for verb in table.verb])
        index = {verb: i for i, verb in enumerate(self.verbs)}
        self.classes = np.array([index.get(verb, -1) for verb in table.verb], np.int64)

    def __call__(self, step: int, batch_size: int) -> Batch:
        """The batch of one step."""
        rows = self.sampler.batch(step, batch_size)
        rng = np.random.default_rng([self.seed, 12, step])
        frames = self.table.read(rows, rng, self.augmentation.shortest_span)
        pixels = augment(frames, self.size, self.augmentation, rng)
        items = Items(**{name: torch.from_numpy(ids[rows]) for name, ids in self.ids.items()})
        text = torch.from_numpy(text_features(self._texts(rows, rng)))
        return Batch(pixels, items, torch.from_numpy(self.classes[rows]), text)

    def _texts(self, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
        bare = rng.random(len(rows)) < self.text.verb_share
        return [
            verb_sentence(self.table.verb[row])
            if is_bare
            else without_subject(self.table.text[row])
            for row, is_bare in zip(map(int, rows), bare, strict=True)
        ]


def _ids(values: Sequence[str]) -> np.ndarray:
    table: dict[str, int] = {}
    return np.array([table.setdefault(value, len(table)) for value in values], np.int64)
