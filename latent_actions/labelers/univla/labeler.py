"""Labels by UniVLA's latent action model: published weights, or both stages trained on the run's
pairs."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_file, hash_json
from invact_vla.training.device import CPU
from latent_actions.labelers.features import FeatureConfig, Features, vit_features
from latent_actions.labelers.guard.collapse import pair_change
from latent_actions.labelers.guard.guarded import Prediction, TrainingStep
from latent_actions.labelers.labeler import (
    CODEBOOK_SIZE,
    DEFAULT_SIZE,
    FrameSpec,
    Labeler,
    LabelerConfig,
    TrainingFrames,
    subfolder_or_self,
)
from latent_actions.labelers.trained import (
    MODEL_PART,
    CodeLabeler,
    FitConfig,
    fit_guarded,
    trained_part,
    training_ends,
)
from latent_actions.labelers.univla.checkpoint import (
    PICKLED,
    load_univla,
    read_checkpoint,
    save_univla,
    univla_weights_of,
)
from latent_actions.labelers.univla.config import UnivlaConfig
from latent_actions.labelers.univla.dinov2 import PUBLISHED_SIZE, dinov2_of, has_dinov2
from latent_actions.labelers.univla.model import UnivlaModel
from latent_actions.labelers.univla.text import instruction_tokens
from latent_actions.labelers.whitening import ill_conditioned


def small_model() -> UnivlaConfig:
    """A model of a few million parameters; its dino_dim is set to that of the features."""
    return UnivlaConfig(
        model_dim=128, latent_dim=4, num_latents=CODEBOOK_SIZE, context_latents=CODEBOOK_SIZE,
        enc_blocks=3, dec_blocks=3, num_heads=4, text_dim=128, whiten=True, residual=True,
    )  # fmt: skip


@LabelerConfig.register_subclass("univla")
@dataclass(frozen=True, kw_only=True)
class UnivlaLabelerConfig(LabelerConfig):
    """UniVLA's two stages over frozen features; its task-centric codes are the labels."""

    weights: Path | None = None  # lam-stage-2.ckpt, a model folder or a labeling run; none: train
    features: FeatureConfig | None = None  # of the frames; none: the DINOv2 in the checkpoint
    text: Path | None = None  # folder of a T5 encoder for stage 1; none: hashed words
    model: UnivlaConfig = field(default_factory=small_model)  # what to train
    stage_1: FitConfig = field(
        default_factory=FitConfig
    )  # how the task-irrelevant codes are trained
    stage_2: FitConfig = field(default_factory=FitConfig)  # how the task-centric codes are trained

    def parents(self) -> dict[str, Path]:
        weights = {} if self.weights is None else {"weights": self.weights}
        return {**({} if self.features is None else self.features.parents()), **weights}

    def frame_spec(self) -> FrameSpec:
        if self.features is None:
            return FrameSpec(PUBLISHED_SIZE)
        size = getattr(self.features, "size", None)
        return FrameSpec(size or DEFAULT_SIZE)

    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        if self.weights is None and self.features is None:
            raise UserError(
                "univla trains on frozen features: set labeler.features.type to vit (with its folder), "
                "vjepa or random, or give published weights (labeler.weights lam-stage-2.ckpt)"
            )
        given = None if self.weights is None else _weights_path(self.weights)
        features = self._features(given, device)
        place = given or trained_part(
            None, folder, lambda place: self._train(place, folder, features, training, device)
        )
        model = load_univla(place, device)
        if features.width != model.config.dino_dim:
            raise UserError(
                f"{place} reads features of {model.config.dino_dim} dimensions, labeler.features gives "
                f"{features.width}"
            )

        def prepare(frames: np.ndarray) -> Tensor:
            return torch.from_numpy(features(frames))

        sizes = (model.config.num_codes, model.config.num_latents)
        labeler = CodeLabeler("univla", model, sizes, place, prepare, device)
        labeler.hash = hash_json([labeler.hash, features.hash])
        return labeler

    def _features(self, weights: Path | None, device: torch.device) -> Features:
        if self.features is not None:
            return self.features.build(device)
        assert weights is not None
        file = univla_weights_of(weights)
        tensors = read_checkpoint(file) if file.suffix in PICKLED else {}
        if not has_dinov2(tensors):
            raise UserError(
                f"{file} holds no DINOv2: give labeler.features.type vit and the folder of DINOv2 with "
                "registers, ViT-B/14, in transformers' layout"
            )
        tower = dinov2_of(tensors)
        side = PUBLISHED_SIZE // tower.config.patch_size
        return vit_features(tower, PUBLISHED_SIZE, side, hash_file(file), device)

    def _train(
        self,
        place: Path,
        folder: Path,
        features: Features,
        training: TrainingFrames,
        device: torch.device,
    ) -> None:
        frames, records = training_ends(training, self.stage_1.guard.max_static)
        arrays = {"features": features(frames), "change": pair_change(frames).astype(np.float32)}
        shape = replace(self.model, dino_dim=features.width)
        texts = [record.text for record in records]
        text, seen = instruction_tokens(texts, shape.text_dim, self.text, device)
        first = self._stage(replace(shape, stage=1), None, arrays | {"text": text, "seen": seen},
                            folder, device)  # fmt: skip
        save_univla(self._stage(replace(shape, stage=2), first, arrays, folder, device), place)

    def _stage(
        self,
        shape: UnivlaConfig,
        first: UnivlaModel | None,
        arrays: Mapping[str, np.ndarray],
        folder: Path,
        device: torch.device,
    ) -> UnivlaModel:
        config = self.stage_1 if first is None else self.stage_2
        torch.manual_seed(config.seed)
        model = TrainableUnivla(shape)
        if first is not None:
            model.take_stage_1(first)
        sizes = (shape.num_codes, shape.num_latents)
        name = f"univla_stage_{shape.stage}"
        fit_guarded(model, *sizes, arrays, config, folder, name, device)
        return model


class TrainableUnivla(UnivlaModel):
    """The model with its loss. A batch: features (B, 2, N, D), change (B,) and, in stage 1, text and
    seen."""

    @property
    def reseedable(self) -> Tensor | None:
        """The codebook in which dead codes may move."""
        return self.action_quantizer.reseedable

    def training_step(self, batch: Mapping[str, Tensor]) -> TrainingStep:
        """See guarded.py."""
        features = batch["features"]
        output = self(features, batch.get("text"), batch.get("seen"))
        error = F.mse_loss(output.prediction.detach().float(), features[:, 1])
        copy = F.mse_loss(features[:, 0], features[:, 1]).clamp_min(1e-9)
        return TrainingStep(
            loss=output.loss(features[:, 1], copy if self.config.whiten else 1.0)
            + copy * ill_conditioned(self),
            quantized=output.action,
            change=batch["change"],
            metrics={"r2_vs_copy": 1 - error / copy},
        )

    def look_up(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        action, _ = self.encode(batch["features"], *self._language(batch))
        return action.codes, action.vectors

    def predicted(self, batch: Mapping[str, Tensor], vectors: Tensor) -> Prediction:
        features = batch["features"]
        _, context = self.encode(features, *self._language(batch))
        guess = self.decode(features[:, :1], vectors, context, *self._language(batch))
        return Prediction(features[:, 0], features[:, 1], guess.float(), batch["change"])

    def _language(self, batch: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        text = batch.get("text")
        return None if text is None else self.lang_proj(text), batch.get("seen")


def _weights_path(path: Path) -> Path:
    return Path(path) if Path(path).is_file() else subfolder_or_self(path, MODEL_PART)
