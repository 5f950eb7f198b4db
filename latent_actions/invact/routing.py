"""Row-wise token routing: which special token each patch is committed to.

B clips, N patch tokens (rows), S = 1 + R special tokens (columns; 0 is the action token).
Straight-through estimators after Bengio 2013 and Jang 2017 (Gumbel-softmax).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Estimator = Literal["st_gumbel", "st_argmax", "soft", "none"]


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How rows are chosen in one forward pass."""

    hard: bool = True  # one-hot rows (with an estimator that has them), else soft rows
    noise: bool = False  # Gumbel noise of st_gumbel: training only
    temperature: float = 1.0  # of the rows whose gradient is passed straight through


@dataclass(frozen=True)
class Rows:
    """Rows of one commit block, each (B, N, S) fp32 with rows that sum to 1.

    soft: probabilities without noise (regularisers and diagnostics read these). used: what gates
    the block: `soft`, or one-hot with the soft rows' gradient. hard: whether `used` is one-hot.
    """

    soft: Tensor
    used: Tensor
    hard: bool


def choose_rows(logits: Tensor, estimator: Estimator, routing: Routing) -> Rows:
    """logits: (B, N, S) -> Rows. Straight-through value onehot(argmax Y) + Y - stopgrad(Y)."""
    logits = logits.float()
    soft = F.softmax(logits, dim=-1)
    if estimator == "soft" or not routing.hard:
        return Rows(soft, soft, False)
    noisy = logits
    if estimator == "st_gumbel" and routing.noise:
        noisy = logits + gumbel_like(logits)
    relaxed = F.softmax(noisy / routing.temperature, dim=-1)
    chosen = F.one_hot(noisy.argmax(dim=-1), logits.shape[-1]).to(relaxed.dtype)
    return Rows(soft, chosen + (relaxed - relaxed.detach()), True)


def gumbel_like(values: Tensor) -> Tensor:
    """Standard Gumbel noise of the shape of `values`, from torch's global generator."""
    return -torch.log(torch.empty_like(values).exponential_().clamp_min(1e-20))


def action_band(soft: Tensor, low: float, high: float) -> Tensor:
    """L_frac: squared distance of each clip's action share to the band [low, high], times 100.
    Scalar.
    """
    share = soft[..., 0].mean(dim=1)
    return 100 * (F.relu(low - share) ** 2 + F.relu(share - high) ** 2).mean()


def register_balance(rows: Rows) -> Tensor:
    """L_bal = R sum_j f_j p_j over registers (Switch-style): 1 when even, R when one register has
    all.

    f: hard share, p: mean soft share, both among what the registers hold. Scalar.
    """
    soft = rows.soft[..., 1:]
    if soft.shape[-1] == 0:
        return rows.soft.new_zeros(())
    picked = F.one_hot(soft.argmax(dim=-1), soft.shape[-1]).to(soft.dtype)
    weight = soft.detach().sum(dim=-1, keepdim=True)
    hard_share = (picked * weight).sum(dim=(0, 1)) / weight.sum().clamp_min(1e-6)
    soft_share = soft.sum(dim=(0, 1)) / soft.sum().clamp_min(1e-6)
    return soft.shape[-1] * (hard_share * soft_share).sum()


@torch.no_grad()
def diagnostics(rows: list[Rows], motion: Tensor | None = None) -> dict[str, Tensor]:
    """Shares by argmax: `action_share`, `register_share_j`, `switch_rate` (patches that change
    their special from one commit block to the next), `row_entropy` (nats), `action_motion`
    (standardised |difference| of action patches; 0 is the clip's mean).
    """
    if not rows:
        return {}
    choice = [r.used.argmax(dim=-1) for r in rows]
    last = choice[-1]
    found = {"action_share": (last == 0).float().mean()}
    for j in range(1, rows[-1].soft.shape[-1]):
        found[f"register_share_{j}"] = (last == j).float().mean()
    changes = [(a != b).float().mean() for a, b in pairwise(choice)]
    found["switch_rate"] = torch.stack(changes).mean() if changes else torch.zeros(())
    soft = rows[-1].soft
    found["row_entropy"] = -(soft * soft.clamp_min(1e-12).log()).sum(dim=-1).mean()
    if motion is not None:
        action = (last == 0).float()
        found["action_motion"] = (action * motion).sum() / action.sum().clamp_min(1)
    return found
