"""Labelers made of an embedding and a fitted quantizer: pairs -> vectors -> codes.

The quantizer is fitted once, on vectors of training pairs only, when no folder of a fitted one is given;
it is kept beside the labels.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from invact_vla.core.files import hash_json
from latent_actions.labelers.labeler import TrainingFrames, TrainingPairs, subfolder_or_self
from latent_actions.labelers.quantizers import (
    Quantizer,
    QuantizerConfig,
    load_quantizer,
    save_quantizer,
)
from latent_actions.video.records import PairRecord

QUANTIZER_PART = "quantizer"  # sub-folder of a labeling run that holds the fitted quantizer


def fitted_quantizer(
    config: QuantizerConfig,
    fitted: Path | None,
    folder: Path,
    training: TrainingFrames,
    vectors: Callable[[TrainingPairs], np.ndarray],
) -> Quantizer:
    """The quantizer in `fitted` (its folder or a labeling run), that of an earlier start in the labeling
    run `folder`, or a new one, fitted on the vectors float (N, D) of the training pairs."""
    if fitted is not None:
        return load_quantizer(subfolder_or_self(fitted, QUANTIZER_PART))
    place = folder / QUANTIZER_PART
    if not (place / "quantizer.json").exists():
        save_quantizer(config.fit(np.concatenate([vectors(pairs) for pairs in training()])), place)
    return load_quantizer(place)


class EmbeddingLabeler:
    """embed: uint8 (B, T, H, W, 3) -> float (B, D); model_hash: changes with anything that can change a
    vector."""

    def __init__(
        self,
        name: str,
        n_frames: int,
        embed: Callable[[np.ndarray], np.ndarray],
        quantizer: Quantizer,
        model_hash: str,
    ) -> None:
        self.name, self.n_frames = name, n_frames
        self.embed, self.quantizer = embed, quantizer
        self.hash = hash_json([model_hash, quantizer.hash])
        self.code_length = quantizer.code_length
        self.codebook_size = quantizer.codebook_size

    def codes(self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None) -> np.ndarray:
        """Codes of the vectors of the pairs."""
        return self.label(frames)[0]

    def label(
        self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """(codes, int64 (B, K); the vectors before the quantizer, float32 (B, D)) of pairs."""
        vectors = self.embeddings(frames)
        return self.quantizer.encode(vectors), np.asarray(vectors, np.float32)

    def embeddings(self, frames: np.ndarray) -> np.ndarray:
        """The continuous vectors before the quantizer: float (B, D)."""
        return self.embed(frames)
