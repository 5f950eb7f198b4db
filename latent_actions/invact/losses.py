"""The unified scene-aware contrastive loss and its special cases.

Same action across scenes attracts (across views too), different actions repel, those of the same
scene more. B items; masks and weights are (B, B) with the anchor in the row.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

LossKind = Literal["scene_aware", "supcon", "infonce_pair"]


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """Contrastive loss over clip embeddings."""

    kind: LossKind = (
        "scene_aware"  # scene_aware | supcon (labels only) | infonce_pair (ego-exo pairs only)
    )
    temperature: float = 0.1  # start of the learnable temperature, kept in [0.01, 0.5]
    view_weight: float = (
        0.5  # w_v, weight of a positive that differs in view only; 0 = no view term
    )
    beta: float = 0.0  # weight of same-scene negatives; 0 = auto, so that they carry `hard_share`
    hard_share: float = 0.5  # of the expected negative mass, with beta auto (clipped to [1, 16])
    mask_head_verb: bool = True  # ignore negatives with the same first word ("pick" and "pick up")

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature <= 0.5:
            raise ValueError(f"temperature must be in [0.01, 0.5], got {self.temperature}")
        if self.view_weight < 0 or self.beta < 0 or not 0 < self.hard_share < 1:
            raise ValueError("view_weight and beta must be >= 0 and hard_share in (0, 1)")


@dataclass(frozen=True)
class Items:
    """What is known of the items of a batch, integer ids, int64 (B,) each."""

    verb: Tensor
    head: Tensor  # first word of the verb
    scene: Tensor
    view: Tensor
    moment: Tensor


def contrastive_loss(
    embedding: Tensor, items: Items, temperature: Tensor, config: ContrastConfig
) -> tuple[Tensor, Tensor]:
    """embedding: (B, D) of unit length -> (loss, share of anchors without a positive, which are
    skipped).

    L = - mean_i sum_p w_ip log( e_ip / (e_ip + sum_easy e_in + beta_i sum_hard e_in) ) / sum_p
    w_ip, e = exp(similarity / temperature). kind supcon: beta 1, every same-verb item a positive of
    weight 1. kind infonce_pair: the positive is the other view of the same moment, all other
    moments are negatives.
    """
    similarity = embedding @ embedding.T / temperature
    positive, easy, hard = _relations(items, config)
    bias = _beta(easy, hard, config).log()[:, None] * hard
    closed = ~(easy | hard)
    negatives = (similarity + bias).masked_fill(closed, float("-inf"))
    # log-sum-exp of nothing is -inf: an anchor without negatives has loss 0 for each positive
    total = torch.logsumexp(negatives, dim=1, keepdim=True).clamp_min(-1e4)
    each = F.softplus(total - similarity)
    mass = positive.sum(dim=1)
    kept = mass > 0
    per_anchor = (positive * each).sum(dim=1) / mass.clamp_min(1e-6)
    return per_anchor[kept].sum() / kept.sum().clamp_min(1), 1 - kept.float().mean()


def _relations(items: Items, config: ContrastConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of positives (float), masks of easy and of hard (same-scene) negatives."""
    same_moment = _same(items.moment)
    other = ~torch.eye(len(items.verb), dtype=torch.bool, device=items.verb.device)
    if config.kind == "infonce_pair":
        positive = (same_moment & ~_same(items.view)).float()
        return positive, ~same_moment, torch.zeros_like(same_moment)
    same_verb, same_scene = _same(items.verb), _same(items.scene)
    different = ~_same(items.head) if config.mask_head_verb else ~same_verb
    if config.kind == "supcon":
        return (same_verb & other).float(), different, torch.zeros_like(different)
    across_scene = (same_verb & ~same_scene).float()
    across_view = (same_verb & same_scene & ~_same(items.view)).float()
    positive = across_scene + config.view_weight * across_view
    return positive, different & ~same_scene, different & same_scene


def _beta(easy: Tensor, hard: Tensor, config: ContrastConfig) -> Tensor:
    """Weight of each anchor's hard negatives, (B,)."""
    if config.beta > 0:
        return torch.full((len(easy),), config.beta, device=easy.device)
    ratio = config.hard_share / (1 - config.hard_share)
    n_easy, n_hard = easy.sum(dim=1), hard.sum(dim=1)
    return (ratio * n_easy / n_hard.clamp_min(1)).clamp(1, 16)


def _same(ids: Tensor) -> Tensor:
    return ids[:, None] == ids[None]


def multi_positive_infonce(similarity: Tensor, positive: Tensor) -> Tensor:
    """- mean over rows of log( sum_pos e / sum_all e ): logits (N, M), mask (N, M) -> scalar
    (EgoNCE's form).
    """
    chosen = similarity.masked_fill(~positive, float("-inf"))
    return (torch.logsumexp(similarity, dim=1) - torch.logsumexp(chosen, dim=1)).mean()
