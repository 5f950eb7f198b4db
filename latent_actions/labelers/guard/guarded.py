"""Training of a model of latent actions under the collapse guard, and whether it is healthy after it:
are its codes used, by position and together, and do its predictions need them?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from invact_vla.training.device import exact
from latent_actions.labelers.guard.codebook_usage import CodebookStats, codebook_stats
from latent_actions.labelers.guard.collapse import (
    STATIC_ADVICE,
    STATIC_CHANGE,
    CollapseConfig,
    CollapseGuard,
)
from latent_actions.labelers.vector_quantizers import Quantized

MAX_STATIC = 0.9  # see CollapseConfig


@dataclass(frozen=True)
class TrainingStep:
    """What one batch gives. loss: scalar; quantized: the latent actions of the batch; change: (B,) mean
    absolute difference of the two frames, of 1; metrics: by name."""

    loss: Tensor
    quantized: Quantized
    change: Tensor
    metrics: Mapping[str, Tensor]


@dataclass(frozen=True)
class Prediction:
    """first, second: frames or their features, (B, ...); guess: the predicted second one, alike; change:
    (B,) mean absolute difference of the two frames, of 1."""

    first: Tensor
    second: Tensor
    guess: Tensor
    change: Tensor


class LatentActionModel(Protocol):
    """What the guard asks of a model, which is a torch module."""

    @property
    def reseedable(self) -> Tensor | None:
        """The codebook (C, Q) in which dead codes may move; None: there is none."""
        ...

    def training_step(self, batch: Any) -> TrainingStep:
        """Loss and latent actions of a batch."""
        ...

    def look_up(self, batch: Any) -> tuple[Tensor, Tensor]:
        """(codes, int64 (B, K); their vectors, (B, K, Q)) of a batch."""
        ...

    def predicted(self, batch: Any, vectors: Tensor) -> Prediction:
        """What the first frames and code vectors (B, K, Q) make of the second frames."""
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


@dataclass(frozen=True)
class ModelReport:
    """What a trained model makes of some pairs.

    r2_*: 1 - MSE(prediction, second frame) / MSE(first frame, second frame) with the true codes, with
    codes of other pairs, and with zero vectors; 0 is as good as predicting no change. Features in the
    place of frames for a model that predicts those.
    moving_*: the same on pairs that are not static; NaN where there are none, as r2_* where no pair
    changes at all. static_fraction: part of static pairs.
    """

    health: CodebookStats
    r2_true: float
    r2_shuffled: float
    r2_zero: float
    moving_true: float
    moving_shuffled: float
    static_fraction: float

    def lines(self) -> list[str]:
        """The same in words."""
        return [
            *self.health.lines(),
            f"reconstruction r2_vs_copy {self.r2_true:.3f} with true codes, "
            f"{self.r2_shuffled:.3f} shuffled, {self.r2_zero:.3f} zero; on moving pairs "
            f"{self.moving_true:.3f} true, {self.moving_shuffled:.3f} shuffled "
            f"({100 * self.static_fraction:.0f} % static)",
        ]

    def problems(self) -> list[str]:
        """Why its codes should not be used, in words; empty for a healthy model."""
        found = []
        if self.static_fraction > MAX_STATIC:
            found.append(f"{100 * self.static_fraction:.0f} % of the pairs: {STATIC_ADVICE}")
        found += self.health.problems()
        if self.r2_true <= self.r2_zero:
            found.append(
                f"the true codes reconstruct no better than zero codes (r2_vs_copy {self.r2_true:.3f} "
                f"and {self.r2_zero:.3f}): the decoder does not use them; train longer or lower "
                "loop.learning_rate"
            )
        if self.r2_true < 0:
            found.append(
                f"the predictions are worse than the first frame itself (r2_vs_copy {self.r2_true:.3f}):"
                " lower loop.learning_rate, train longer, or set model.residual (a LAQ)"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, for summary.json; null where a number is not defined."""
        values = {k: v for k, v in asdict(self).items() if k != "health"}
        values = {k: None if math.isnan(v) else v for k, v in values.items()}
        return {**values, "health": self.health.to_json(), "problems": self.problems()}


def measure(model: Any, batches: Sequence[Any], codebook_size: int, seed: int) -> ModelReport:
    """Measure a LatentActionModel on batches of pairs, see `pair_errors`."""
    codes, error = pair_errors(model, batches, seed)
    moves, copy = error["change"] >= STATIC_CHANGE, error["copy"]
    return ModelReport(
        health=codebook_stats(codes, codebook_size),
        r2_true=_r2(error["true"], copy),
        r2_shuffled=_r2(error["shuffled"], copy),
        r2_zero=_r2(error["zero"], copy),
        moving_true=_r2(error["true"][moves], copy[moves]),
        moving_shuffled=_r2(error["shuffled"][moves], copy[moves]),
        static_fraction=float(1 - moves.mean()),
    )


@torch.no_grad()
@exact()
def pair_errors(
    model: Any, batches: Sequence[Any], seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Codes, int64 (N, K), of a LatentActionModel on batches that lie where it does, and mean squared
    errors of the second frame, float64 (N,): as predicted with the `true` codes, with those of other
    pairs (`shuffled`) and with `zero` vectors, and of the first frame in its place (`copy`); `change`:
    see Prediction."""
    model.eval()
    found = [model.look_up(batch) for batch in batches]
    codes, vectors = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = _derangement(len(codes), np.random.default_rng([seed, 0]))
    other = vectors[torch.from_numpy(order).to(vectors.device)]
    used = {"true": vectors, "shuffled": other, "zero": torch.zeros_like(vectors)}
    parts = {name: v.split([len(codes) for codes, _ in found]) for name, v in used.items()}
    rows: dict[str, list[Tensor]] = {name: [] for name in (*used, "copy", "change")}
    for number, batch in enumerate(batches):
        for name, split in parts.items():
            seen = model.predicted(batch, split[number])
            rows[name].append((seen.guess - seen.second).square().flatten(1).mean(dim=1))
        rows["copy"].append((seen.first - seen.second).square().flatten(1).mean(dim=1))
        rows["change"].append(seen.change)
    errors = {name: torch.cat(values).cpu().double().numpy() for name, values in rows.items()}
    return codes.cpu().numpy(), errors


def _r2(error: np.ndarray, change: np.ndarray) -> float:
    return float(1 - error.mean() / change.mean()) if change.any() else math.nan


def _derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation that moves every item: a cycle through a random order."""
    order = rng.permutation(count)
    moved = np.empty(count, np.int64)
    moved[order] = np.roll(order, 1)
    return moved
