"""What the training loop needs of LAQ: a module with its collapse guard, a loss, a step hook."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invact_vla.training.distributed import rank_info
from latent_actions.labelers.collapse import CollapseConfig
from latent_actions.labelers.guarded import GuardedTask, TrainingStep, after_step, guarded_loss
from latent_actions.labelers.laq.augment import PairAugmentConfig, augment
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer, to_video


class LaqTask(GuardedTask):
    """LAQ under the guard; a batch is uint8 (B, 2, H, W, 3)."""

    def __init__(self, config: LaqConfig, guard: CollapseConfig, steps: int, seed: int) -> None:
        laq = TrainableLaq(config)
        super().__init__(laq, guard, config.code_seq_len, config.codebook_size, steps, seed)

    @property
    def laq(self) -> LatentActionQuantizer:
        """The model."""
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


def batches(
    frames: np.ndarray,
    batch_size: int,
    seed: int,
    change: PairAugmentConfig = PairAugmentConfig(),  # noqa: B008  (frozen)
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


laq_loss = guarded_loss
__all__ = ["LaqTask", "after_step", "batches", "laq_loss", "to_video"]
