"""Batches of a clip table: which clips, their augmented pixels, ids and texts; a function of (seed,
step).

A batch is made in pieces of one group of clips, each with random numbers of its own: a process makes
its pieces alone, and they are the same whatever the number of processes.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from invact_vla.core.errors import UserError
from invact_vla.training.distributed import RankInfo
from latent_actions.encoder.inputs.augment import AugmentConfig, augment
from latent_actions.encoder.inputs.clips import ClipTable
from latent_actions.encoder.inputs.language import text_features, verb_sentence, without_subject
from latent_actions.encoder.inputs.sampler import CLIPS_PER_GROUP, GroupSampler, SamplerConfig
from latent_actions.encoder.losses import BatchLabels
from latent_actions.encoder.model import Batch
from latent_actions.video.verbs import direction_of

VERB_PROMPT_PROB = 0.5  # probability of the bare verb in a sentence instead of the description


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig:
    """Which verbs the text side learns to name."""

    min_clips: int = 20  # clips that a verb needs to become a class of the verb term

    def __post_init__(self) -> None:
        if self.min_clips < 1:
            raise ValueError(f"min_clips must be >= 1, got {self.min_clips}")


@dataclass(frozen=True, kw_only=True)
class ActionConfig:
    """What counts as one action when clips are contrasted."""

    # verb | direction: the verb and which way it goes, where the description says so ("slides ... to
    # the left"; with negative_mask verb_root the other way is ignored, not repelled), in the contrast
    # and the video-text term; the verb alone is the label of groups, verb term and benchmarks
    label: Literal["verb", "direction"] = "verb"
    # probability that the other actions of a group are its own, shown time_reversed: hard negatives of
    # actions that have a temporal opposite (video/verbs.py); sampler.kind groups, label direction
    time_reversed: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.time_reversed <= 1:
            raise ValueError(f"time_reversed must be in [0, 1], got {self.time_reversed}")
        if self.time_reversed and self.label == "verb":
            raise ValueError(
                "time_reversed needs label direction: of one verb, such as slide, some go left and some "
                "right, and one of them time_reversed is the other"
            )


def class_verbs(table: ClipTable, rows: np.ndarray, min_clips: int) -> tuple[str, ...]:
    """Verbs with at least min_clips clips among rows, sorted; all verbs if none has as many."""
    count = Counter(table.verb[row] for row in map(int, rows))
    return tuple(sorted(v for v, n in count.items() if n >= min_clips)) or tuple(sorted(count))


class ClipBatches:
    """Makes training batches; `part` is this process's share of them."""

    def __init__(
        self,
        table: ClipTable,
        rows: np.ndarray,
        *,
        size: int,
        sampler: SamplerConfig,
        augmentation: AugmentConfig,
        text: ClipTextConfig,
        action: ActionConfig = ActionConfig(),
        seed: int,
        part: RankInfo = RankInfo(),  # noqa: B008  (frozen)
    ) -> None:
        self.table, self.size, self.part, self.seed = table, size, part, seed
        self.augmentation, self.action = augmentation, action
        self.verbs = class_verbs(table, rows, text.min_clips)
        self.sampler = GroupSampler(table, rows, sampler, seed)
        self.ids = {name: _ids(getattr(table, name)) for name in ("scene", "view", "moment")}
        ways = [direction_of(text) for text in table.text]
        self.two_way = np.array([way is not None for way in ways])
        if action.label == "direction":
            names = [f"{verb} {way and way[1]}" for verb, way in zip(table.verb, ways, strict=True)]
        self.ids["verb"] = _ids(table.verb if action.label == "verb" else names)
        self.ids["verb_root"] = _ids([verb.split(" ")[0] for verb in table.verb])
        index = {verb: i for i, verb in enumerate(self.verbs)}
        self.classes = np.array([index.get(verb, -1) for verb in table.verb], np.int64)
        self.verb_of = _ids(table.verb)
        self.verb_embeddings = text_features(list(dict.fromkeys(table.verb)))

    def __call__(self, step: int, batch_size: int) -> Batch:
        """This process's part of the batch of one step; batch_size counts all processes."""
        if batch_size % (CLIPS_PER_GROUP * self.part.count) and self.part.count > 1:
            raise UserError(
                f"{self.part.count} processes share whole groups of {CLIPS_PER_GROUP} clips: "
                f"batch_size must be a multiple of {CLIPS_PER_GROUP * self.part.count}, got "
                f"{batch_size}"
            )
        rows = self.sampler.batch(step, batch_size)
        mine = self.part.slice(batch_size)
        starts = range(mine.start, mine.stop, CLIPS_PER_GROUP)
        pieces = [self._piece(rows[i : i + CLIPS_PER_GROUP], step, i) for i in starts]
        picked, time_reversed, pixels, text = zip(*pieces, strict=True)
        rows, turned = np.concatenate(picked), np.concatenate(time_reversed)
        ids = {name: torch.from_numpy(column[rows]) for name, column in self.ids.items()}
        verb_embedding = torch.from_numpy(self.verb_embeddings[self.verb_of[rows]])
        items = BatchLabels(
            **ids, time_reversed=torch.from_numpy(turned), verb_embedding=verb_embedding
        )
        classes = np.where(turned, -1, self.classes[rows])
        return Batch(torch.cat(pixels), items, torch.from_numpy(classes), torch.cat(text))

    def _piece(
        self, rows: np.ndarray, step: int, start: int
    ) -> tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]:
        """A group of rows with its random numbers of (seed, step, start): which rows, which of them
        are shown time_reversed, pixels and text features.
        """
        rng = np.random.default_rng([self.seed, 12, step, start])
        rows, time_reversed = self._turned(rows, rng)
        frames = self.table.read(rows, rng, self.augmentation.min_temporal_crop)
        frames[time_reversed] = frames[time_reversed, ::-1]
        pixels = augment(frames, self.size, self.augmentation, rng)
        return rows, time_reversed, pixels, torch.from_numpy(text_features(self._texts(rows, rng)))

    def _turned(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """With the chance `action.time_reversed` the second half of a group becomes the first half shown
        time_reversed, if its action has a temporal opposite.
        """
        time_reversed, half = np.zeros(len(rows), bool), len(rows) // 2
        chance = self.action.time_reversed if self.sampler.config.kind == "groups" else 0.0
        if chance and rng.random() < chance and self.two_way[rows[:half]].all():
            rows = np.concatenate([rows[:half], rows[:half]])
            time_reversed[half:] = True
        return rows, time_reversed

    def _texts(self, rows: np.ndarray, rng: np.random.Generator) -> list[str]:
        bare = rng.random(len(rows)) < VERB_PROMPT_PROB
        return [
            verb_sentence(self.table.verb[row])
            if is_bare
            else without_subject(self.table.text[row])
            for row, is_bare in zip(map(int, rows), bare, strict=True)
        ]


def _ids(values: Sequence[str]) -> np.ndarray:
    table: dict[str, int] = {}
    return np.array([table.setdefault(value, len(table)) for value in values], np.int64)
