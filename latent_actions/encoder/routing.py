"""Token routing: which special token each patch is committed to.

B clips, N patch tokens, S = 1 + R special tokens (0 is the action token). Straight-through
estimators after Bengio 2013 and Jang 2017 (Gumbel-softmax).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from invact_vla.training.distributed import gather, rank_info

Estimator = Literal["st_gumbel", "st_argmax", "topk", "soft", "none"]


@dataclass(frozen=True, kw_only=True)
class Routing:
    """How patches are routed in one forward pass."""

    hard: bool = True  # one-hot assignments (with an estimator that has them), else soft ones
    noise: bool = False  # Gumbel noise of st_gumbel: training only
    temperature: float = 1.0  # of soft assignments, later of the straight-through gradients


@dataclass(frozen=True)
class RoutingAssignments:
    """What the patches of one commit block are committed to, (B, N, S) fp32 that sum to 1 over S.

    soft: probabilities without noise (regularizers and diagnostics read these). used: what gates
    the block: `soft`, or one-hot with the soft ones' gradient. hard: whether `used` is one-hot.
    """

    soft: Tensor
    used: Tensor
    hard: bool


def route_tokens(
    logits: Tensor, estimator: Estimator, routing: Routing, topk_ratio: float = 0.3
) -> RoutingAssignments:
    """logits (B, N, S) -> assignments; topk_ratio: part that `topk` sends to the action token. In
    inference mode nobody reads probabilities: `soft` is the hard choice too."""
    logits = logits.float()
    if torch.is_inference_mode_enabled() and routing == Routing() and estimator != "soft":
        used = F.one_hot(_chosen(logits, estimator, topk_ratio), logits.shape[-1]).float()
        return RoutingAssignments(used, used, True)
    soft = F.softmax(logits, dim=-1)
    if not routing.hard:
        return RoutingAssignments(soft, F.softmax(logits / routing.temperature, dim=-1), False)
    if estimator == "soft":
        return RoutingAssignments(soft, soft, False)
    if estimator == "st_gumbel" and routing.noise:
        logits = logits + gumbel_like(logits)
    relaxed = F.softmax(logits / routing.temperature, dim=-1)
    picked = F.one_hot(_chosen(logits, estimator, topk_ratio), logits.shape[-1]).to(relaxed.dtype)
    return RoutingAssignments(soft, picked + (relaxed - relaxed.detach()), True)


def _chosen(logits: Tensor, estimator: Estimator, topk_ratio: float) -> Tensor:
    """Special token of each patch: (B, N, S) -> int64 (B, N)."""
    return best_action(logits, topk_ratio) if estimator == "topk" else logits.argmax(dim=-1)


def best_action(logits: Tensor, topk_ratio: float) -> Tensor:
    """Each clip's round(topk_ratio N) patches (at least one) of the largest odds of action go there,
    the others to their best register: (B, N, S) -> int64 (B, N).
    """
    registers = logits[..., 1:]
    odds = logits[..., 0] - registers.logsumexp(dim=-1)
    best = odds.topk(max(1, round(topk_ratio * odds.shape[1])), dim=1).indices
    return (1 + registers.argmax(dim=-1)).scatter(1, best, 0)


def gumbel_like(values: Tensor) -> Tensor:
    """Standard Gumbel noise of the shape of `values`, from torch's global generator.

    With several processes (seeded alike) all draw the noise of the global batch and keep their
    part, so that a clip's noise does not depend on the number of processes."""
    here = rank_info()
    shape = (len(values) * here.count, *values.shape[1:])
    drawn = values.new_empty(shape).exponential_()[here.slice(shape[0])]
    return -torch.log(drawn.clamp_min(1e-20))


def action_band(soft: Tensor, low: float, high: float) -> Tensor:
    """L_frac: squared distance of each clip's action share to the band [low, high], times 100.
    Scalar.
    """
    share = soft[..., 0].mean(dim=1)
    return 100 * (F.relu(low - share) ** 2 + F.relu(share - high) ** 2).mean()


def register_balance(chosen: RoutingAssignments) -> Tensor:
    """L_bal = R sum_j f_j p_j over registers (Switch-style): 1 when even, R when one register has
    all.

    f: hard share, p: mean soft share, both among what the registers hold. Scalar.
    """
    soft = chosen.soft[..., 1:]
    if soft.shape[-1] == 0:
        return chosen.soft.new_zeros(())
    picked = F.one_hot(soft.argmax(dim=-1), soft.shape[-1]).to(soft.dtype)
    weight = soft.detach().sum(dim=-1, keepdim=True)
    # sums of each clip, gathered: shares are of the global batch, whatever its number of processes
    held = [gather(part_held.sum(dim=1)).sum(dim=0) for part_held in (picked * weight, soft)]
    hard_fraction, soft_fraction = (sums / sums.sum().clamp_min(1e-6) for sums in held)
    return soft.shape[-1] * (hard_fraction * soft_fraction).sum()


@torch.no_grad()
def diagnostics(
    blocks: list[RoutingAssignments], motion: Tensor | None = None
) -> dict[str, Tensor]:
    """Fractions by argmax: `action_fraction` and `register_fraction_j` of the last commit block,
    `action_fraction_block_b` of every one, `switch_rate` (patches that change
    their special token from one commit block to the next), `routing_entropy` (nats),
    `action_motion` and `register_motion` (standardized |difference| of their patches; 0 is the
    clip's mean).
    """
    if not blocks:
        return {}
    choice = [chosen.used.argmax(dim=-1) for chosen in blocks]
    last, soft = choice[-1], blocks[-1].soft
    found = {"action_fraction": (last == 0).float().mean()}
    for index, chosen in enumerate(choice):
        found[f"action_fraction_block_{index}"] = (chosen == 0).float().mean()
    for j in range(1, soft.shape[-1]):
        found[f"register_fraction_{j}"] = (last == j).float().mean()
    changes = [(a != b).float().mean() for a, b in pairwise(choice)]
    found["switch_rate"] = torch.stack(changes).mean() if changes else soft.new_zeros(())
    found["routing_entropy"] = -(soft * soft.clamp_min(1e-12).log()).sum(dim=-1).mean()
    if motion is not None:
        action = (last == 0).float()
        found["action_motion"] = (action * motion).sum() / action.sum().clamp_min(1)
        found["register_motion"] = ((1 - action) * motion).sum() / (1 - action).sum().clamp_min(1)
    return found
