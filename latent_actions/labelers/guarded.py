"""Training of a model of latent actions under the collapse guard, and in the one training loop."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from latent_actions.labelers.collapse import CollapseConfig, CollapseGuard
from latent_actions.labelers.vector_quantizers import Quantized


@dataclass(frozen=True)
class TrainingStep:
    """What one batch gives. loss: scalar; quantized: the latent actions of the batch; change: (B,) mean
    absolute difference of the two frames, of 1; metrics: by name."""

    loss: Tensor
    quantized: Quantized
    change: Tensor
    metrics: Mapping[str, Tensor]


class LatentActionModel(Protocol):
    """What the guard asks of a model, which is a torch module."""

    @property
    def reseedable(self) -> Tensor | None:
        """The codebook (C, Q) in which dead codes may move; None: there is none."""
        ...

    def training_step(self, batch: Any) -> TrainingStep:
        """Loss and latent actions of a batch."""
        ...


class GuardedTask(nn.Module):
    """A model and its guard, whose counters are saved in the same checkpoint."""

    def __init__(
        self,
        model: nn.Module,
        guard: CollapseConfig,
        positions: int,
        codes: int,
        steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.model: Any = model  # a LatentActionModel
        self.guard = CollapseGuard(guard, positions, codes, steps, seed)
        self.outputs = torch.zeros(0)  # encoder outputs of the last batch, for re-seeding
        self.change = torch.zeros(0)  # mean change of each pair of the last batch

    def forward(self, batch: Any, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch, and metrics."""
        found: TrainingStep = self.model.training_step(batch)
        self.guard.observe(found.quantized.codes, step)
        self.outputs = found.quantized.delta.detach().flatten(0, 1).float()
        self.change = found.change.detach()
        perplexity = self.guard.perplexity()
        return found.loss, {
            **found.metrics,
            "perplexity_min": perplexity.min(),
            "perplexity_mean": perplexity.mean(),
            "delta_norm": self.outputs.norm(dim=-1).mean(),
        }


def guarded_loss(model: nn.Module, batch: Any, step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss function for the loop."""
    return model(batch, step)


def after_step(model: nn.Module, step: int, metrics: dict[str, float]) -> None:
    """Hook for the loop: re-seed dead codes, or stop a collapsed run."""
    assert isinstance(model, GuardedTask)
    model.guard.act(step, model.model.reseedable, model.outputs, model.change)
