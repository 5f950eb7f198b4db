"""Labels by the difference of frozen features: no model of motion is trained, only the quantizer fitted.

After StaMo (a compact state of each frame; the action is the change of state). The simplest labeler that
can mean an action: what a trained one does not beat was not worth its training.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch

from invact_vla.training.device import CPU
from latent_actions.labelers.embedding_labeler import EmbeddingLabeler, fitted_quantizer
from latent_actions.labelers.features import FeatureConfig, Features, RandomFeatureConfig
from latent_actions.labelers.labeler import Labeler, LabelerConfig, TrainingFrames, ends
from latent_actions.labelers.quantizers import ProductQuantizerConfig, QuantizerConfig


@LabelerConfig.register_subclass("feature_difference")
@dataclass(frozen=True, kw_only=True)
class FeatureDifferenceConfig(LabelerConfig):
    """Features of the last frame minus those of the first, cut into codes."""

    features: FeatureConfig = field(
        default_factory=lambda: RandomFeatureConfig(side=2)
    )  # whose change is taken
    fitted: Path | None = None  # folder of a fitted quantizer, or a labeling run; none: fit one
    quantizer: QuantizerConfig = field(default_factory=ProductQuantizerConfig)  # what to fit

    def parents(self) -> dict[str, Path]:
        fitted = {} if self.fitted is None else {"quantizer": self.fitted}
        return {**self.features.parents(), **fitted}

    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        features = self.features.build(device)
        embed = partial(feature_change, features)
        quantizer = fitted_quantizer(
            self.quantizer, self.fitted, folder, training, lambda pairs: embed(pairs.frames)
        )
        return EmbeddingLabeler("feature_difference", 2, embed, quantizer, features.hash)


def feature_change(features: Features, frames: np.ndarray) -> np.ndarray:
    """uint8 (B, T, H, W, 3) -> float32 (B, side * side * D)."""
    found = features(ends(frames))
    return (found[:, 1] - found[:, 0]).reshape(len(found), features.side**2 * features.width)
