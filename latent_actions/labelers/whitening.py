"""Decorrelates what several code positions are cut from, so that they can share a codebook.

N numbers of a pair: K code positions of width Q, one after another.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class Whiten(nn.Module):
    """Zero mean, unit variance and no correlation between the numbers of a batch, (B, N) -> (B, N), so
    that code positions, which are cut from them, can neither keep to a corner of a shared codebook nor
    repeat each other: number i is what those before it do not tell linearly (whitening by Cholesky's
    factor, arxiv.org/abs/1806.00420). In use, with the moments of the last hundred batches, or those
    that `settle` took. Batches should have several times N rows.

    What follows cannot tell the scale of the numbers, nor whether they are nearly copies, so in a long
    training both drift until nothing is left to whiten in fp32. `ill_conditioned` is what to add to the
    loss against that.
    """

    mean: Tensor
    covariance: Tensor
    batches: Tensor
    shrink = 1e-3  # of the correlations: bounds what numbers that are copies are stretched by
    against_drift = 0.01  # weight of ill_conditioned: ten times as much takes from what codes tell

    def __init__(self, width: int) -> None:
        super().__init__()
        self.drift: Tensor | float = 0.0  # of the last training batch, until it is asked for
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("covariance", torch.eye(width))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        with torch.autocast(values.device.type, enabled=False):
            values = values.float()
            mean, covariance = self.mean, self.covariance
            if self.training:
                mean = values.mean(dim=0)
                covariance = (values - mean).t() @ (values - mean) / len(values)
                self._remember(mean.detach(), covariance.detach())
                self.drift = self.against_drift * _drift(covariance)
            floor = 1e-7 * (1 + mean.detach().square())  # a number that varies less is a constant
            return (values - mean) @ self._factor(covariance, floor).t()

    def forget(self) -> None:
        """Begin the moments anew."""
        self.batches.zero_()

    @torch.no_grad()
    def _remember(self, mean: Tensor, covariance: Tensor) -> None:
        weight = (1 / (1 + self.batches)).clamp_min(0.01)
        self.mean.lerp_(mean, weight)
        self.covariance.lerp_(covariance, weight)
        self.batches.add_(1)

    def _factor(self, covariance: Tensor, floor: Tensor) -> Tensor:
        """The lower triangular matrix that whitens vectors of this covariance, (N, N)."""
        scale = covariance.diagonal().maximum(floor).sqrt()
        correlation = covariance / (scale[:, None] * scale)
        one = torch.eye(len(scale), device=scale.device)
        root, _ = torch.linalg.cholesky_ex(torch.lerp(correlation, one, self.shrink))
        found = torch.linalg.solve_triangular(root, one, upper=False)
        variance = ((found @ correlation) * found).sum(dim=1)  # below 1: what was shrunk
        return found / (variance.clamp_min(1e-6).sqrt()[:, None] * scale)


def _drift(covariance: Tensor) -> Tensor:
    """How far a covariance (N, N) is from the identity: the mean of log(deviation)^2, and the squared
    correlations of a number with all others (after VICReg's terms, arxiv.org/abs/2105.04906)."""
    scale = covariance.diagonal().clamp_min(1e-12).sqrt()
    correlation = covariance / (scale[:, None] * scale)
    others = correlation - torch.diag(correlation.diagonal())
    return scale.log().square().mean() + others.square().sum() / len(scale)


def ill_conditioned(model: nn.Module) -> Tensor | float:
    """To add to the loss of a batch, once, in units of an error: keeps what each Whiten of a model gets
    near unit variance and less correlated; 0 for a model without."""
    found = [module for module in model.modules() if isinstance(module, Whiten)]
    total = sum(module.drift for module in found)
    for module in found:
        module.drift = 0.0  # it holds the graph of the batch
    return total


@torch.no_grad()
def settle(model: nn.Module, batches: Iterable[Any], use: Callable[[Any], object]) -> None:
    """Give every Whiten of a trained model the moments of its final weights, on batches that `use` shows
    it: those that it gathered are of weights that changed meanwhile, and numbers that are nearly copies
    of others come out of them far too small. Leaves the model in eval mode."""
    model.eval()
    found = [module for module in model.modules() if isinstance(module, Whiten)]
    for module in found:
        module.forget()
        module.train()
    for batch in batches if found else ():
        use(batch)
    model.eval()
