"""Is a trained LAQ healthy? Code usage and use of the codes by predictions, on held-out pairs."""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from invact_vla.core.files import atomic_file
from invact_vla.training.device import CPU, exact
from latent_actions.labelers.codebook_usage import CodebookStats, codebook_stats
from latent_actions.labelers.collapse import STATIC_ADVICE, STATIC_CHANGE
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.labelers.laq.task import to_video

BATCH = 64
MIN_PERPLEXITY, MAX_STATIC = 2.0, 0.9  # see CollapseConfig
PICTURED = 8  # pairs in the grid


@dataclass(frozen=True)
class LaqReport:
    """Held-out measurements.

    r2_*: 1 - MSE(prediction, second frame) / MSE(first frame, second frame) with the true codes, with
    codes of other pairs, and with zero vectors; 0 is as good as predicting no change.
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
            found.append(
                f"{100 * self.static_fraction:.0f} % of the held-out pairs: {STATIC_ADVICE}"
            )
        if min(self.health.perplexity) < MIN_PERPLEXITY:
            found.append(
                f"the codes collapsed: perplexity {min(self.health.perplexity):.2f} at one position, "
                f"expected at least {MIN_PERPLEXITY:g}: lower loop.learning_rate or train longer"
            )
        if self.r2_true <= self.r2_zero:
            found.append(
                f"the true codes reconstruct no better than zero codes (r2_vs_copy {self.r2_true:.3f} "
                f"and {self.r2_zero:.3f}): the decoder does not use them; train longer or lower "
                "loop.learning_rate"
            )
        if self.r2_true < 0:
            found.append(
                f"the predictions are worse than the first frame itself (r2_vs_copy {self.r2_true:.3f}):"
                " lower loop.learning_rate, train longer, or set model.residual"
            )
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values, for summary.json; null where a number is not defined."""
        values = {k: v for k, v in asdict(self).items() if k != "health"}
        values = {k: None if math.isnan(v) else v for k, v in values.items()}
        return {**values, "health": self.health.to_json(), "problems": self.problems()}


@torch.no_grad()
@exact()
def evaluate(model: LatentActionQuantizer, frames: np.ndarray, seed: int) -> LaqReport:
    """Measure on held-out pairs, uint8 (N, 2, H, W, 3), where the model is. Shuffled codes come from
    other pairs."""
    codes, errors = pair_errors(model, frames, seed)
    change = errors["copy"]
    pairs = [(v[:, :, 0], v[:, :, 1]) for v in _videos(frames, CPU)]
    moved = [(first - second).abs().mean(dim=(1, 2, 3)).numpy() for first, second in pairs]
    static = np.concatenate(moved) < STATIC_CHANGE
    moving = ~static
    return LaqReport(
        health=codebook_stats(codes, model.config.codebook_size),
        r2_true=_r2(errors["true"], change),
        r2_shuffled=_r2(errors["shuffled"], change),
        r2_zero=_r2(errors["zero"], change),
        moving_true=_r2(errors["true"][moving], change[moving]),
        moving_shuffled=_r2(errors["shuffled"][moving], change[moving]),
        static_fraction=float(static.mean()),
    )


@torch.no_grad()
@exact()
def pair_errors(
    model: LatentActionQuantizer, frames: np.ndarray, seed: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Codes, int64 (N, K), of pairs, uint8 (N, 2, H, W, 3), and mean squared errors of the second frame,
    float64 (N,): as predicted with the `true` codes, with those of other pairs (`shuffled`) and with
    `zero` vectors, and of the first frame in its place (`copy`)."""
    model.eval()
    device = model.device
    found = torch.cat([model.codes(video) for video in _videos(frames, device)])
    vectors, codes = model.vq.decode(found), found.cpu().numpy()
    other = torch.from_numpy(derangement(len(codes), np.random.default_rng([seed, 0]))).to(device)
    copies = [_square(video[:, :, 0], video[:, :, 1]) for video in _videos(frames, CPU)]
    return codes, {
        "true": _errors(model, frames, lambda i: vectors[i]),
        "shuffled": _errors(model, frames, lambda i: vectors[other[i]]),
        "zero": _errors(model, frames, lambda i: torch.zeros_like(vectors[i])),
        "copy": np.concatenate(copies),
    }


@torch.no_grad()
def save_grid(model: LatentActionQuantizer, frames: np.ndarray, path: Path) -> None:
    """PNG of some pairs, evenly spaced over `frames`: first, second, predicted second frame."""
    from PIL import Image

    chosen = np.linspace(0, len(frames) - 1, min(PICTURED, len(frames))).astype(int)
    video = to_video(frames[chosen], model.device)
    predicted = model(video).reconstruction.clamp(0, 1)
    rows = torch.stack([video[:, :, 0], video[:, :, 1], predicted])
    sheet = rearrange(rows, "r n c h w -> (r h) (n w) c").mul(255).round().to(torch.uint8)
    with atomic_file(path) as temporary:
        Image.fromarray(sheet.cpu().numpy()).save(temporary, format="PNG")


def _videos(frames: np.ndarray, device: torch.device) -> Iterator[Tensor]:
    for start in range(0, len(frames), BATCH):
        yield to_video(frames[start : start + BATCH], device)


def _errors(
    model: LatentActionQuantizer, frames: np.ndarray, vectors: Callable[[slice], Tensor]
) -> np.ndarray:
    """Mean squared error of each prediction: float (N,)."""
    found = []
    for number, video in enumerate(_videos(frames, model.device)):
        rows = slice(number * BATCH, number * BATCH + len(video))
        found.append(_square(model.predict(video[:, :, 0], vectors(rows)), video[:, :, 1]))
    return np.concatenate(found)


def _square(one: Tensor, other: Tensor) -> np.ndarray:
    return (one - other).square().mean(dim=(1, 2, 3)).cpu().double().numpy()


def _r2(error: np.ndarray, change: np.ndarray) -> float:
    return float(1 - error.mean() / change.mean()) if change.any() else math.nan


def derangement(count: int, rng: np.random.Generator) -> np.ndarray:
    """A permutation that moves every item: a cycle through a random order."""
    order = rng.permutation(count)
    moved = np.empty(count, np.int64)
    moved[order] = np.roll(order, 1)
    return moved
