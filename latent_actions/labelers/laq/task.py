"""What the training loop needs of LAQ: a module with its collapse guard, a loss, a step hook."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from latent_actions.labelers.collapse import CollapseConfig, CollapseGuard
from latent_actions.labelers.laq.augment import PairAugmentConfig, augment
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer


def to_video(frames: np.ndarray | Tensor, device: torch.device | None = None) -> Tensor:
    """uint8 (B, 2, H, W, 3) -> float (B, 3, 2, H, W) in [0, 1]; device: where to, None: where it is.
    Bytes travel, a quarter of what floats would."""
    if not isinstance(frames, Tensor):
        frames = torch.from_numpy(np.array(frames))  # a copy: memory maps are read-only
    return rearrange(frames.to(device), "b t h w c -> b c t h w") / 255.0


class LaqTask(nn.Module):
    """The model and the guard, whose counters are saved in the same checkpoint."""

    def __init__(self, config: LaqConfig, guard: CollapseConfig, steps: int, seed: int) -> None:
        super().__init__()
        self.laq = LatentActionQuantizer(config)
        self.guard = CollapseGuard(guard, config.code_seq_len, config.codebook_size, steps, seed)
        self.outputs = torch.zeros(0)  # encoder outputs of the last batch, for re-seeding
        self.change = torch.zeros(0)  # mean change of each pair of the last batch

    def forward(self, video: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean squared error of the predicted second frame, with NSVQ noise; and metrics."""
        output = self.laq(video, noise=True)
        target, first = video[:, :, 1], video[:, :, 0]
        loss = F.mse_loss(output.reconstruction.float(), target)
        self.guard.observe(output.quantized.codes, step)
        self.outputs = output.quantized.delta.detach().flatten(0, 1).float()
        self.change = (target - first).abs().mean(dim=(1, 2, 3))
        perplexity = self.guard.perplexity()
        return loss, {
            "r2_vs_copy": 1 - loss.detach() / F.mse_loss(first, target).clamp_min(1e-9),
            "perplexity_min": perplexity.min(),
            "perplexity_mean": perplexity.mean(),
            "delta_norm": self.outputs.norm(dim=-1).mean(),
        }


def laq_loss(model: nn.Module, batch: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss function for the loop. batch: uint8 (B, 2, H, W, 3)."""
    return model(to_video(batch), step)


def after_step(model: nn.Module, step: int, metrics: dict[str, float]) -> None:
    """Hook for the loop: re-seed dead codes, or stop a collapsed run."""
    assert isinstance(model, LaqTask)
    model.guard.act(step, model.laq.vq.codebooks.data, model.outputs, model.change)


def batches(
    frames: np.ndarray,
    batch_size: int,
    seed: int,
    change: PairAugmentConfig = PairAugmentConfig(),  # noqa: B008  (frozen)
) -> Callable[[int], Tensor]:
    """step -> uint8 (batch_size, 2, H, W, 3), with replacement from frames (N, 2, H, W, 3)."""

    def batch_at(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        chosen = rng.integers(len(frames), size=batch_size)
        return torch.from_numpy(augment(frames[np.sort(chosen)], change, rng))

    return batch_at
