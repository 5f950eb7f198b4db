"""Controls: labels that cannot mean anything, to measure what a method's labels are worth.

`shuffled` keeps the exact code statistics of another store and breaks only the tie to the video;
`random` is uniform. A variant trained on either has had the same number of steps and tokens.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json
from invact_vla.data.label_store import LabelStore, read_labels
from invact_vla.training.device import CPU
from latent_actions.labelers.labeler import (
    CODE_LENGTH,
    CODEBOOK_SIZE,
    Labeler,
    LabelerConfig,
    TrainingFrames,
)
from latent_actions.video.records import PairRecord

Key = tuple[str, int, int]


@LabelerConfig.register_subclass("shuffled")
@dataclass(frozen=True, kw_only=True)
class ShuffledConfig(LabelerConfig):
    """The codes of another labeling run, permuted over its pairs (split by split)."""

    labels: Path = Path("runs/labels")  # run of `invact latent label` on the same pairs
    seed: int = 0  # decides the permutation

    def parents(self) -> dict[str, Path]:
        return {"labels": self.labels}

    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        paths = sorted(Path(self.labels).glob("labels_*.parquet"))
        if not paths:
            raise UserError(f"no labels in {self.labels}: run `invact latent label` first")
        return ShuffledLabeler([read_labels(path) for path in paths], self.seed)


class ShuffledLabeler:
    """Looks up the code that the permutation gave to a pair."""

    name = "shuffled"
    n_frames = 0

    def __init__(self, stores: Sequence[LabelStore], seed: int) -> None:
        self.code_length = stores[0].identity.code_length
        self.codebook_size = stores[0].identity.codebook_size
        self.hash = hash_json(["shuffled", seed, [s.identity.labeler_hash for s in stores]])
        self.table: dict[Key, np.ndarray] = {}
        for number, store in enumerate(stores):
            order = np.random.default_rng([seed, number]).permutation(len(store))
            keys = zip(store.video_id, store.frame.tolist(), store.frame_end.tolist(), strict=True)
            self.table.update(zip(keys, store.labels.codes[order], strict=True))

    def codes(self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None) -> np.ndarray:
        """The permuted codes; a pair that the other run did not label is a UserError."""
        rows = []
        for pair in _needed(pairs, self.name):
            key = (pair.video_id, pair.frame, pair.frame_end)
            if key not in self.table:
                raise UserError(
                    f"pair {key} has no label to shuffle: label the same pairs (source, horizon_s, "
                    "pairs_per_clip, seed) as the run whose labels are shuffled"
                )
            rows.append(self.table[key])
        return np.asarray(rows, np.int64).reshape(-1, self.code_length)


@LabelerConfig.register_subclass("random")
@dataclass(frozen=True, kw_only=True)
class RandomConfig(LabelerConfig):
    """Uniform codes, a function of the pair's name and the seed."""

    code_length: int = CODE_LENGTH  # codes per label
    codebook_size: int = CODEBOOK_SIZE  # values of a code
    seed: int = 0  # decides the codes

    def parents(self) -> dict[str, Path]:
        return {}

    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        return RandomLabeler(self)


class RandomLabeler:
    """Draws the codes of each pair from its own random stream."""

    name = "random"
    n_frames = 0

    def __init__(self, config: RandomConfig) -> None:
        self.code_length, self.codebook_size = config.code_length, config.codebook_size
        self.seed = config.seed
        self.hash = hash_json(["random", config.seed, config.code_length, config.codebook_size])

    def codes(self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None) -> np.ndarray:
        """Uniform codes; the same pair always gets the same ones."""
        rows = []
        for pair in _needed(pairs, self.name):
            words = [self.seed, zlib.crc32(pair.video_id.encode()), pair.frame, pair.frame_end]
            rng = np.random.default_rng(words)
            rows.append(rng.integers(self.codebook_size, size=self.code_length))
        return np.asarray(rows, np.int64).reshape(-1, self.code_length)


def _needed(pairs: Sequence[PairRecord] | None, name: str) -> Sequence[PairRecord]:
    if pairs is None:
        raise ValueError(f"the {name} labeler needs the pairs, not the frames")
    return pairs
