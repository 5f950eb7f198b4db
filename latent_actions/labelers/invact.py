"""Labels by InvAct: the embedding of the window between the two frames, cut into codes.

The quantizer is fitted once, on embeddings of training pairs only, when no folder of a fitted one
is given; it is kept beside the labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from invact_vla.core.files import hash_json, hash_tree, read_json
from invact_vla.core.limits import inside
from invact_vla.training.device import CPU
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.labelers.labeler import (
    DEFAULT_SIZE,
    FrameSpec,
    Labeler,
    LabelerConfig,
    TrainingFrames,
    full_batches,
    subfolder_or_self,
    window,
)
from latent_actions.labelers.quantizers import (
    ProductQuantizerConfig,
    Quantizer,
    QuantizerConfig,
    load_quantizer,
    save_quantizer,
)
from latent_actions.video.records import PairRecord

BATCH = 64  # windows per forward pass
ENCODER_PART = "encoder"  # sub-folder of a training run that holds the weights
QUANTIZER_PART = "quantizer"  # sub-folder of a labeling run that holds the fitted quantizer


@LabelerConfig.register_subclass("invact")
@dataclass(frozen=True, kw_only=True)
class InvActConfig(LabelerConfig):
    """A trained InvAct encoder and a quantizer."""

    encoder: Path = Path("runs/encoder")  # run of `invact encoder train`, or an encoder folder
    fitted: Path | None = None  # folder of a fitted quantizer, or a labeling run; none: fit one
    quantizer: QuantizerConfig = field(default_factory=ProductQuantizerConfig)  # what to fit

    def parents(self) -> dict[str, Path]:
        fitted = {} if self.fitted is None else {"quantizer": self.fitted}
        return {"encoder": self.encoder, **fitted}

    def frame_spec(self) -> FrameSpec:
        config = read_json(inside(subfolder_or_self(self.encoder, ENCODER_PART), "config.json"))
        size = config.get("size") if isinstance(config, dict) else None
        return FrameSpec(size if type(size) is int else DEFAULT_SIZE)

    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        encoder = subfolder_or_self(self.encoder, ENCODER_PART)
        model = InvActEncoder.from_pretrained(encoder, device)
        quantizer = self._quantizer(model, folder / QUANTIZER_PART, training)
        return InvActLabeller(model, quantizer, hash_tree(encoder))

    def _quantizer(self, model: InvActEncoder, folder: Path, training: TrainingFrames) -> Quantizer:
        if self.fitted is not None:
            return load_quantizer(subfolder_or_self(self.fitted, QUANTIZER_PART))
        if not (folder / "quantizer.json").exists():
            embeddings = [embed(model, f) for f in training()]
            save_quantizer(self.quantizer.fit(np.concatenate(embeddings)), folder)
        return load_quantizer(folder)


class InvActLabeller:
    """An encoder and a fitted quantizer that label."""

    name = "invact"

    def __init__(self, model: InvActEncoder, quantizer: Quantizer, encoder_hash: str) -> None:
        self.model, self.quantizer = model, quantizer
        self.hash = hash_json([encoder_hash, quantizer.hash])
        self.n_frames = model.config.frames
        self.code_length = quantizer.code_length
        self.codebook_size = quantizer.codebook_size

    def codes(self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None) -> np.ndarray:
        """Codes of the whole window from the first to the last frame."""
        return self.quantizer.encode(self.embeddings(frames))

    def embeddings(self, frames: np.ndarray) -> np.ndarray:
        """The continuous vectors before the quantizer: float32 (B, D) of unit length."""
        return embed(self.model, frames)


def embed(model: InvActEncoder, frames: np.ndarray) -> np.ndarray:
    """Windows uint8 (B, T, H, W, 3) -> float32 (B, D), in batches of one shape."""
    batches = full_batches(window(frames, model.config.frames), BATCH, model.device)
    parts = [model.embed(batch, BATCH)[:count] for batch, count in batches]
    return np.concatenate([*parts, np.zeros((0, model.config.embedding), np.float32)])
