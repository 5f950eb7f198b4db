"""Quantizers that are trained with a network: vectors in, codes and vectors out, a loss beside them.

    straight_through  nearest code, gradients copied past it (VQ-VAE, arxiv.org/abs/1711.00937)
    ema               the same; codes follow moving averages of what chose them (its appendix A.1)
    nsvq              the error is replaced by noise of its length (Vali and Backstrom 2022; LAPA)
    sinkhorn          in training, batches are spread evenly over the codes by optimal transport
                      (Asano et al., arxiv.org/abs/1911.05371); in use, the nearest code
    residual          K levels over the whole label, each quantizes what those before left
    fsq               one bounded number per position, rounded to C levels: no codebook that could
                      collapse (arxiv.org/abs/2309.15505)

Axis letters: B batch, K code positions, Q width of a code, C codes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from invact_vla.training.distributed import gather

VectorQuantization = Literal["straight_through", "ema", "nsvq", "sinkhorn", "residual", "fsq"]
COMMITMENT = 0.25  # weight of the commitment loss (VQ-VAE, UniVLA)
LENGTH_FLOOR = 1e-12  # keeps the noise ratio finite


@dataclass(frozen=True)
class Quantized:
    """delta: (B, K, Q) before the look-up; codes: int64 (B, K); vectors: (B, K, Q) to decode; loss:
    scalar to add to that of the network."""

    delta: Tensor
    codes: Tensor
    vectors: Tensor
    loss: Tensor | float = 0.0


class StraightThrough(nn.Module):
    """One codebook for all positions, `codebook.weight` (C, Q); gradients of the chosen vectors go to
    the input."""

    def __init__(self, positions: int, codes: int, width: int) -> None:
        super().__init__()
        self.positions, self.codes_count, self.width = positions, codes, width
        self.codebook = nn.Embedding(*self._shape())
        nn.init.uniform_(self.codebook.weight, -1 / codes, 1 / codes)

    def _shape(self) -> tuple[int, int]:
        return self.codes_count, self.width

    @property
    def reseedable(self) -> Tensor | None:
        """The codebook in which dead codes may move to outputs of width Q; None: there is none."""
        return self.codebook.weight.data

    def forward(self, delta: Tensor) -> Quantized:
        """float (B, K, Q) -> Quantized; uses batch statistics only in training."""
        codes = self.assign(delta.detach().float()) if self.training else self.codes(delta)
        vectors = self.decode(codes)
        loss = F.mse_loss(vectors, delta.detach()) + COMMITMENT * F.mse_loss(
            delta, vectors.detach()
        )
        return Quantized(delta, codes, delta + (vectors - delta).detach(), loss)

    def codes(self, delta: Tensor) -> Tensor:
        """The nearest codes, int64 (B, K), a function of each vector alone; ties to the lower."""
        return squared_distances(delta.float(), self.codebook.weight).argmin(dim=-1)

    def assign(self, delta: Tensor) -> Tensor:
        """The codes of a training batch."""
        return self.codes(delta)

    def decode(self, codes: Tensor) -> Tensor:
        """int64 (B, K) -> (B, K, Q)."""
        return self.codebook(codes)


class Ema(StraightThrough):
    """Codes are moving averages over the batches of all ranks; no gradient reaches them."""

    counts: Tensor
    sums: Tensor
    decay = 0.99

    def __init__(self, positions: int, codes: int, width: int) -> None:
        super().__init__(positions, codes, width)
        self.codebook.weight.requires_grad_(False)
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", self.codebook.weight.detach().clone())

    def forward(self, delta: Tensor) -> Quantized:
        found = super().forward(delta)
        if self.training:
            self._follow(delta.detach().float(), found.codes)
        loss = COMMITMENT * F.mse_loss(delta, self.decode(found.codes).detach())
        return Quantized(delta, found.codes, found.vectors, loss)

    @torch.no_grad()
    def _follow(self, delta: Tensor, codes: Tensor) -> None:
        chosen = F.one_hot(codes.flatten(), self.codes_count).float()
        counts, sums = chosen.sum(dim=0), chosen.t() @ delta.flatten(0, 1)
        moved = (self.codebook.weight - self.sums / self.counts[:, None]).abs().amax(dim=1) > 1e-5
        self.sums[moved] = self.codebook.weight[moved] * self.counts[moved, None]  # re-seeded codes
        self.counts.mul_(self.decay).add_(gather(counts[None]).sum(dim=0), alpha=1 - self.decay)
        self.counts.clamp_(min=1e-5)
        self.sums.mul_(self.decay).add_(gather(sums[None]).sum(dim=0), alpha=1 - self.decay)
        self.codebook.weight.copy_(self.sums / self.counts[:, None])


class Nsvq(StraightThrough):
    """Noise substitution: no straight-through, no loss of its own."""

    def forward(self, delta: Tensor) -> Quantized:
        codes = self.codes(delta)
        vectors = self.decode(codes)
        return Quantized(
            delta, codes, substitute_noise(delta, vectors) if self.training else vectors
        )


class SinkhornBalanced(StraightThrough):
    """In training every code gets about an equal part of the batch."""

    epsilon, rounds = 0.05, 3

    def assign(self, delta: Tensor) -> Tensor:
        flat = delta.flatten(0, 1)
        cost = squared_distances(flat, self.codebook.weight.detach())
        plan = sinkhorn(-cost / cost.mean().clamp_min(1e-9), self.epsilon, self.rounds)
        return plan.argmax(dim=1).view(delta.shape[:2])


class Residual(StraightThrough):
    """Level k holds rows k C .. (k + 1) C of the codebook, whose width is that of a whole label."""

    def _shape(self) -> tuple[int, int]:
        return self.positions * self.codes_count, self.positions * self.width

    @property
    def reseedable(self) -> None:
        return None

    def _levels(self) -> Tensor:
        return rearrange(self.codebook.weight, "(k c) q -> k c q", k=self.positions)

    def codes(self, delta: Tensor) -> Tensor:
        rest, found = delta.detach().float().flatten(1), []
        for level in self._levels():
            found.append(squared_distances(rest, level).argmin(dim=-1))
            rest = rest - level[found[-1]]
        return torch.stack(found, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        rows = codes + self.codes_count * torch.arange(self.positions, device=codes.device)
        return rearrange(self.codebook(rows).sum(dim=1), "b (k q) -> b k q", k=self.positions)


class Fsq(nn.Module):
    """Finite scalar quantization: K numbers of C levels each, rounded with straight-through."""

    def __init__(self, positions: int, codes: int, width: int) -> None:
        super().__init__()
        self.positions, self.codes_count, self.width = positions, codes, width
        self.down, self.up = nn.Linear(width, 1), nn.Linear(1, width)

    @property
    def reseedable(self) -> None:
        return None

    def forward(self, delta: Tensor) -> Quantized:
        bounded = self._bounded(delta)
        rounded = bounded + (bounded.round() - bounded).detach()
        return Quantized(delta, self._index(bounded), self.up(self._scaled(rounded)[..., None]))

    def codes(self, delta: Tensor) -> Tensor:
        return self._index(self._bounded(delta))

    def decode(self, codes: Tensor) -> Tensor:
        levels = codes.to(self.up.weight.dtype) - self.codes_count // 2
        return self.up(self._scaled(levels)[..., None])

    def _bounded(self, delta: Tensor) -> Tensor:
        """(B, K) in a range of C integers; shifted for even C, as its authors do."""
        half = (self.codes_count - 1) * (1 + 1e-3) / 2
        offset = 0.0 if self.codes_count % 2 else 0.5
        shift = math.atanh(offset / half)
        return torch.tanh(self.down(delta).squeeze(-1) + shift) * half - offset

    def _index(self, bounded: Tensor) -> Tensor:
        return (bounded.round().long() + self.codes_count // 2).clamp(0, self.codes_count - 1)

    def _scaled(self, levels: Tensor) -> Tensor:
        return levels / (self.codes_count // 2)


TrainedQuantizer = StraightThrough | Fsq
_KINDS: dict[str, Callable[[int, int, int], TrainedQuantizer]] = {
    "straight_through": StraightThrough, "ema": Ema, "nsvq": Nsvq, "sinkhorn": SinkhornBalanced,
    "residual": Residual, "fsq": Fsq,
}  # fmt: skip
assert tuple(_KINDS) == get_args(VectorQuantization)


def vector_quantizer(
    kind: VectorQuantization, positions: int, codes: int, width: int
) -> TrainedQuantizer:
    """A quantizer of K positions, C codes and vectors of width Q. ValueError for an unknown kind."""
    if kind not in _KINDS:
        raise ValueError(f"quantizer must be one of {', '.join(_KINDS)}, got {kind!r}")
    return _KINDS[kind](positions, codes, width)


def squared_distances(vectors: Tensor, codebook: Tensor) -> Tensor:
    """(..., Q) and (C, Q) -> (..., C), by the expanded square."""
    cross = vectors @ codebook.t()
    return vectors.square().sum(-1, keepdim=True) - 2 * cross + codebook.square().sum(-1)


def substitute_noise(delta: Tensor, vectors: Tensor) -> Tensor:
    """delta + |delta - vectors| * (random direction); torch's global generator gives the noise."""
    noise = torch.randn_like(delta)
    error = (delta - vectors).square().sum(dim=-1, keepdim=True).clamp_min(LENGTH_FLOOR).sqrt()
    length = noise.square().sum(dim=-1, keepdim=True).clamp_min(LENGTH_FLOOR).sqrt()
    return delta + error / length * noise


def sinkhorn(scores: Tensor, epsilon: float, rounds: int) -> Tensor:
    """Scores (N, C) -> a plan whose rows sum to 1/N and whose columns sum to about 1/C."""
    plan = ((scores - scores.max()) / epsilon).exp()
    for _ in range(rounds):
        plan = plan / plan.sum(dim=0, keepdim=True).clamp_min(1e-30) / plan.shape[1]
        plan = plan / plan.sum(dim=1, keepdim=True).clamp_min(1e-30) / len(plan)
    return plan
