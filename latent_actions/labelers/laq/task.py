"""What the training loop needs of LAQ: a module with its collapse guard, and batches of pairs."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invact_vla.training.distributed import rank_info
from latent_actions.labelers.guard.collapse import CollapseConfig
from latent_actions.labelers.guard.guarded import GuardedTask, TrainingStep
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer, to_video


class LaqTask(GuardedTask):
    """LAQ under the guard; a batch is uint8 (B, 2, H, W, 3)."""

    def __init__(self, config: LaqConfig, guard: CollapseConfig, steps: int, seed: int) -> None:
        model = TrainableLaq(config)
        super().__init__(model, guard, config.code_seq_len, config.codebook_size, steps, seed)

    @property
    def laq(self) -> LatentActionQuantizer:
        return self.model


class TrainableLaq(LatentActionQuantizer):
    """LAQ with its loss: the mean squared error of the predicted second frame, with NSVQ noise."""

    @property
    def reseedable(self) -> Tensor | None:
        return self.vq.reseedable

    def training_step(self, batch: Tensor) -> TrainingStep:
        video = to_video(batch)
        output = self(video, noise=True)
        first, target = video[:, :, 0], video[:, :, 1]
        error = F.mse_loss(output.reconstruction.float(), target)
        copy = F.mse_loss(first, target).clamp_min(1e-9)
        return TrainingStep(
            loss=error + output.quantized.loss,
            quantized=output.quantized,
            change=(target - first).abs().mean(dim=(1, 2, 3)),
            metrics={"r2_vs_copy": 1 - error.detach() / copy},
        )


@dataclass(frozen=True, kw_only=True)
class PairAugmentConfig:
    """How strongly pairs are changed, both frames alike, so that the motion stays what it was; the
    defaults change nothing.

    LAPA trains without any; a few synthetic scenes have too few textures for that, and the decoder then
    predicts noise on backgrounds that it has not seen."""

    gain: float = 0.0  # each color channel is scaled by a factor in [1 - gain, 1 + gain]
    offset: float = 0.0  # and shifted by up to this share of the full range
    permute: bool = False  # color channels in a random order
    flip: bool = False  # mirrored left to right, half of the time

    def __post_init__(self) -> None:
        if not 0 <= self.gain < 1 or not 0 <= self.offset < 1:
            raise ValueError(f"gain and offset must be in [0, 1), got {self.gain}, {self.offset}")


def augment(frames: np.ndarray, config: PairAugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """uint8 (B, 2, H, W, 3) -> the same shape, each pair changed in its own way."""
    if config == PairAugmentConfig():
        return frames
    frames = frames.copy()
    for pair in frames:
        if config.flip and rng.random() < 0.5:
            pair[:] = pair[:, :, ::-1].copy()
        if config.permute:
            pair[:] = pair[..., rng.permutation(3)]
        gain = 1 + config.gain * rng.uniform(-1, 1, 3)
        offset = 255 * config.offset * rng.uniform(-1, 1, 3)
        # a look-up table per channel: 256 values instead of a float image
        levels = np.arange(256)[:, None] * gain + offset
        table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        for channel in range(3):
            pair[..., channel] = table[:, channel][pair[..., channel]]
    return frames


def batches(
    frames: np.ndarray,
    batch_size: int,
    seed: int,
    change: PairAugmentConfig = PairAugmentConfig(),
) -> Callable[[int], Tensor]:
    """step -> this rank's part of uint8 (batch_size, 2, H, W, 3), drawn with replacement from frames
    (N, 2, H, W, 3)."""
    info = rank_info()

    def batch_at(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        chosen = rng.integers(len(frames), size=batch_size)
        batch = augment(frames[np.sort(chosen)], change, rng)
        return torch.from_numpy(batch[info.slice(batch_size)])

    return batch_at
