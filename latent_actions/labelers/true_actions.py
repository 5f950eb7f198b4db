"""Upper bounds: labels that know true actions.

true_actions   the true action of each pair, cut into codes: what a perfect labeler could say
vpt            an inverse dynamics model, trained on few pairs with true actions, names the action of
               all pairs (Video PreTraining, arxiv.org/abs/2206.11795); its predictions are cut
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json, hash_tree, read_json, write_json
from invact_vla.core.limits import short
from invact_vla.training.device import CPU, exact
from invact_vla.training.loop import fit
from latent_actions.labelers.actions import ActionsConfig, pair_actions
from latent_actions.labelers.embedding_labeler import (
    QUANTIZER_PART,
    EmbeddingLabeler,
    fitted_quantizer,
)
from latent_actions.labelers.labeler import (
    FrameSpec,
    Labeler,
    LabelerConfig,
    TrainingFrames,
    ends,
    full_batches,
    subfolder_or_self,
)
from latent_actions.labelers.lapo import PairEncoder, to_images
from latent_actions.labelers.quantizers import (
    ProductQuantizerConfig,
    Quantizer,
    QuantizerConfig,
    ResidualQuantizerConfig,
    load_quantizer,
    save_quantizer,
)
from latent_actions.labelers.trained import (
    BATCH,
    FitConfig,
    draw,
    load_network,
    save_network,
    tell,
    trained_part,
    training_ends,
)
from latent_actions.video.records import PairRecord

SCALE_FILE = "action_scale.json"  # beside the fitted quantizer


@LabelerConfig.register_subclass("true_actions")
@dataclass(frozen=True, kw_only=True)
class TrueActionsConfig(LabelerConfig):
    """Clusters of the true actions, each dimension brought to unit variance: meters, radians and a grip
    count alike."""

    actions: ActionsConfig = field(default_factory=ActionsConfig)  # of all pairs
    fitted: Path | None = None  # labeling run that fitted a quantizer; none: fit one
    # what to fit; the default keeps most of what so many codes can, and a linear probe can undo it
    quantizer: QuantizerConfig = field(default_factory=ResidualQuantizerConfig)

    def parents(self) -> dict[str, Path]:
        return {} if self.fitted is None else {"quantizer": self.fitted}

    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        place = self.fitted or folder
        if self.fitted is None and not (folder / QUANTIZER_PART / "quantizer.json").exists():
            parts = [pair_actions(pairs.records, self.actions) for pairs in training()]
            actions = np.concatenate(parts)
            spread = np.maximum(actions.std(axis=0), 1e-9)
            write_json(folder / SCALE_FILE, spread.tolist())
            save_quantizer(self.quantizer.fit(actions / spread), folder / QUANTIZER_PART)
        quantizer = load_quantizer(subfolder_or_self(place, QUANTIZER_PART))
        return TrueActionLabeler(quantizer, self.actions, _scale(place / SCALE_FILE))


class TrueActionLabeler:
    """Looks up the action of a pair."""

    name = "true_actions"
    n_frames = 0

    def __init__(self, quantizer: Quantizer, actions: ActionsConfig, scale: np.ndarray) -> None:
        """scale: (A,) what actions are divided by."""
        self.quantizer, self.actions, self.scale = quantizer, actions, scale
        self.hash = hash_json(["true_actions", actions.array, quantizer.hash, scale.tolist()])
        self.code_length = quantizer.code_length
        self.codebook_size = quantizer.codebook_size

    def codes(self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None) -> np.ndarray:
        """Codes of the true actions; frames are not looked at."""
        if pairs is None:
            raise ValueError("the true_actions labeler needs the pairs, not the frames")
        if not len(pairs):
            return np.zeros((0, self.code_length), np.int64)
        return self.quantizer.encode(pair_actions(pairs, self.actions) / self.scale)


def _scale(path: Path) -> np.ndarray:
    """The spread of each dimension of the training actions, (A,). UserError for a file that holds
    none."""
    values = read_json(path)
    try:
        scale = np.array(values, np.float64)
        if scale.ndim != 1 or not np.all(np.isfinite(scale) & (scale > 0)):
            raise ValueError("not a list of positive numbers")
    except (ValueError, TypeError, OverflowError) as error:
        raise UserError(f"{path}: expected the spreads of actions ({short(error)})") from error
    return scale


MIN_R2 = 0.01  # of the actions of the training pairs, below which nothing was learned


@dataclass(frozen=True, kw_only=True)
class InverseDynamicsConfig:
    """Sizes of the inverse dynamics model."""

    size: int = 64  # side of the frames, pixels; a multiple of 8
    width: int = 32  # channels of the first stage
    actions: int = 7  # dimensions of an action

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096 or self.size % 8 or not 1 <= self.width <= 4096:
            raise ValueError("size must be a multiple of 8 of at most 4096, width in 1..4096")
        if not 1 <= self.actions <= 4096:
            raise ValueError("actions must be in 1..4096")


@LabelerConfig.register_subclass("vpt")
@dataclass(frozen=True, kw_only=True)
class VptConfig(LabelerConfig):
    """An inverse dynamics model trained on few true actions."""

    actions: ActionsConfig = field(
        default_factory=ActionsConfig
    )  # of the training pairs that it sees
    labeled_pairs: int = 256  # training pairs whose true actions it sees, drawn by seed
    trained: Path | None = None  # labeling run that trained one, or its model folder; none: train
    fitted: Path | None = None  # folder of a fitted quantizer, or a labeling run; none: fit one
    model: InverseDynamicsConfig = field(default_factory=InverseDynamicsConfig)  # what to train
    training: FitConfig = field(default_factory=FitConfig)  # how it is trained
    # what to fit
    quantizer: QuantizerConfig = field(default_factory=lambda: ProductQuantizerConfig(dims=7))

    def __post_init__(self) -> None:
        if self.labeled_pairs < 1:
            raise ValueError(f"labeled_pairs must be at least 1, got {self.labeled_pairs}")

    def parents(self) -> dict[str, Path]:
        named = {"model": self.trained, "quantizer": self.fitted}
        return {name: path for name, path in named.items() if path is not None}

    def frame_spec(self) -> FrameSpec:
        return FrameSpec(self.model.size)

    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        place = trained_part(
            self.trained, folder, lambda place: self._train(place, folder, training, device)
        )
        model: InverseDynamics = load_network(InverseDynamics, InverseDynamicsConfig, place, device)
        quantizer = fitted_quantizer(
            self.quantizer, self.fitted, folder, training, lambda pairs: model.actions(pairs.frames)
        )
        return EmbeddingLabeler("vpt", 2, model.actions, quantizer, hash_tree(place))

    def _train(
        self, place: Path, folder: Path, training: TrainingFrames, device: torch.device
    ) -> None:
        frames, records = training_ends(training, self.training.guard.max_static)
        rng = np.random.default_rng([self.training.seed, 2])
        rows = np.sort(rng.permutation(len(frames))[: self.labeled_pairs])
        actions = pair_actions([records[row] for row in rows], self.actions)
        if actions.shape[1] != self.model.actions:
            raise UserError(
                f"{self.actions.folder} has actions of {actions.shape[1]} dimensions: set "
                f"--labeler.model.actions {actions.shape[1]}"
            )
        torch.manual_seed(self.training.seed)
        model = InverseDynamics(self.model)
        model.standardize(actions)
        loop = self.training.loop
        arrays = {"frames": frames[rows], "actions": actions.astype(np.float32)}
        part = folder / "training"
        part.mkdir(parents=True, exist_ok=True)
        batch_at = draw(arrays, loop.batch_size, loop.seed)
        fit(model, inverse_loss, batch_at, loop, part, None, "train VPT", device)
        wanted = (arrays["actions"] - model.mean.cpu().numpy()) / model.std.cpu().numpy()
        error = np.square(model.actions(arrays["frames"]) - wanted).mean()
        r2 = float(1 - error / max(wanted.var(), 1e-9))
        problem = (
            f"it predicts the actions of its own training pairs no better than their mean (R2 "
            f"{r2:.2f}): lower training.loop.learning_rate, or train longer"
        )
        report = {"r2": r2, "problems": [problem] if r2 < MIN_R2 else []}
        tell(folder, self.name, [f"R2 of the actions {r2:.2f}"], report)
        save_network(model, self.model, place)


class InverseDynamics(nn.Module):
    """The action between two frames: uint8 (B, 2, H, W, 3) -> float (B, A), standardized."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: InverseDynamicsConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = PairEncoder(config.size, config.width, config.actions)
        self.register_buffer("mean", torch.zeros(config.actions))
        self.register_buffer("std", torch.ones(config.actions))

    def standardize(self, actions: np.ndarray) -> None:
        """Take the scale of actions (N, A)."""
        self.mean.copy_(torch.from_numpy(actions.mean(axis=0)))
        self.std.copy_(torch.from_numpy(np.maximum(actions.std(axis=0), 1e-6)))

    def forward(self, frames: Tensor) -> Tensor:
        return self.encoder(to_images(frames, self.config.size))

    @exact()
    @torch.no_grad()
    def actions(self, frames: np.ndarray) -> np.ndarray:
        """Predicted actions of windows uint8 (B, T, H, W, 3): float32 (B, A), standardized."""
        device = self.mean.device
        found = [np.zeros((0, self.config.actions), np.float32)]
        for batch, count in full_batches(ends(frames), BATCH, device):
            found.append(self(torch.from_numpy(batch).to(device))[:count].cpu().numpy())
        return np.concatenate(found)


def inverse_loss(
    model: nn.Module, batch: Mapping[str, Tensor], step: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss function for the loop: mean squared error of standardized actions."""
    inner: Any = getattr(model, "module", model)
    wanted = (batch["actions"] - inner.mean) / inner.std
    loss = F.mse_loss(model(batch["frames"]), wanted)
    return loss, {"r2": 1 - loss.detach() / wanted.square().mean().clamp_min(1e-9)}
