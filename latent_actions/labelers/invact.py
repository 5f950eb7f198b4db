"""Labels by InvAct: the embedding of the window between the two frames, cut into codes.

The quantizer is fitted once, on embeddings of training pairs only, when no folder of a fitted one
is given; it is kept beside the labels.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from invact_vla.core.files import hash_tree, read_json
from invact_vla.core.limits import inside
from invact_vla.training.device import CPU
from latent_actions.encoder.displacement import Vector, vector_width
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.labelers.embedding_labeler import EmbeddingLabeler, fitted_quantizer
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
)

BATCH = 64  # windows per forward pass
ENCODER_PART = "encoder"  # sub-folder of a training run that holds the weights


@LabelerConfig.register_subclass("invact")
@dataclass(frozen=True, kw_only=True)
class InvActConfig(LabelerConfig):
    """A trained InvAct encoder and a quantizer."""

    encoder: Path = Path("runs/encoder")  # run of `invact encoder train`, or an encoder folder
    # what the codes are cut from: embedding | displacement (of the encoder's displacement head) | both,
    # which quantizer split deals its codes to
    vector: Vector = "embedding"
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
        quantizer = fitted_quantizer(
            self.quantizer, self.fitted, folder, training,
            lambda pairs: embed(model, pairs.frames, self.vector),
        )  # fmt: skip
        return InvActLabeler(model, quantizer, hash_tree(encoder), self.vector)


class InvActLabeler(EmbeddingLabeler):
    """An encoder and a fitted quantizer that label."""

    def __init__(
        self,
        model: InvActEncoder,
        quantizer: Quantizer,
        encoder_hash: str,
        vector: Vector = "embedding",
    ) -> None:
        self.model = model
        frames = model.config.frames
        name = encoder_hash if vector == "embedding" else f"{encoder_hash} {vector}"
        super().__init__("invact", frames, partial(embed, model, vector=vector), quantizer, name)


def embed(model: InvActEncoder, frames: np.ndarray, vector: Vector = "embedding") -> np.ndarray:
    """Windows uint8 (B, T, H, W, 3) -> float32 (B, D), in batches of one shape."""
    widths = model.config.embedding, model.config.displacement
    batches = full_batches(window(frames, model.config.frames), BATCH, model.device)
    parts = [model.embed(batch, BATCH, vector=vector)[:count] for batch, count in batches]
    return np.concatenate([*parts, np.zeros((0, vector_width(*widths, vector)), np.float32)])
