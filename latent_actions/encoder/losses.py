"""The unified scene-aware contrastive loss, its special cases, and the auxiliary losses.

Same action across scenes attracts (across views too), different actions repel, those of the same
scene more. B items; masks and weights are (B, B) with the anchor in the row.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from invact_vla.training.distributed import gather

_LARGEST_BETA = 16.0
_ALIKE = 0.7  # cosine of two verbs' texts above which they start to be one action


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    """Contrastive loss over clip embeddings."""

    # scene_aware | supcon (all of one verb attract) | infonce_pair (the two views of a moment)
    kind: Literal["scene_aware", "supcon", "infonce_pair"] = "scene_aware"
    temperature: float = 0.1  # start of the temperature, which is trained within [0.01, 0.5]
    view_weight: float = 0.5  # w_v, of a positive that differs in view only; 0 = no view term
    beta: float = 0.0  # weight of same-scene negatives; 0 = auto: they carry `hard_fraction`
    hard_fraction: float = 0.5  # of the expected negative mass, with beta auto (clipped to [1, 16])
    # softer negatives: none | verb_root (same first word: ignored) | text (alike in text: weaker)
    negative_mask: Literal["none", "verb_root", "text"] = "verb_root"
    # all positives in the denominator, as SupCon's L_out has them
    positives_in_denominator: bool = False

    def __post_init__(self) -> None:
        if not 0.01 <= self.temperature <= 0.5:
            raise ValueError(f"temperature must be in [0.01, 0.5], got {self.temperature}")
        if self.view_weight < 0 or self.beta < 0 or not 0 < self.hard_fraction < 1:
            raise ValueError("view_weight and beta must be >= 0 and hard_fraction in (0, 1)")


@dataclass(frozen=True)
class BatchLabels:
    """What is known of the items of a batch: integer ids, int64 (B,) each, and the verb's text."""

    verb: Tensor
    verb_root: Tensor  # first word of the verb
    scene: Tensor
    view: Tensor
    moment: Tensor
    # bool (B,): shown time_reversed, so a negative of its own action and nothing else; None: none is
    time_reversed: Tensor | None = None
    # (B, F) unit text features of the verb, for negative_mask text
    verb_embedding: Tensor | None = None

    def map(self, change: Callable[[Tensor], Tensor]) -> "BatchLabels":
        """The same change made to every column."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{n: change(c) for n, c in columns.items() if c is not None})

    def gathered(self) -> "BatchLabels":
        """The items of all processes, in rank order."""
        return self.map(gather)


@dataclass(frozen=True)
class PairMasks:
    """What anchors (rows) do with items: weights of positives, weight of negatives in
    [0, 1], and which negatives are hard (same scene)."""

    positive: Tensor
    negative: Tensor
    hard: Tensor


def contrastive_loss(
    embedding: Tensor, items: BatchLabels, temperature: Tensor, config: ContrastConfig
) -> tuple[Tensor, Tensor]:
    """embedding: (B, D) of unit length -> (loss, share of anchors without a positive, which are
    skipped).

    L = - mean_i sum_p w_ip log( e_ip / (e_ip + sum_easy k_in e_in + beta_i sum_hard k_in e_in) ) /
    sum_p w_ip, e = exp(similarity / temperature). supcon: every same-verb item a positive of weight
    1, no item hard. infonce_pair: the positive is the other view of the same moment, all other
    moments are negatives (the ego-exo InfoNCE of the view-invariant encoder).
    """
    return _infonce(embedding @ embedding.T / temperature, pair_masks(items, config), config)


def pair_masks(items: BatchLabels, config: ContrastConfig) -> PairMasks:
    """Who attracts and repels whom, by the kind of the loss."""
    nothing_hard = torch.zeros_like(_same(items.verb))
    if config.kind == "infonce_pair":
        same_moment = _same(items.moment)
        positive = same_moment & ~_same(items.view) & _forward(items)
        return PairMasks(positive.float(), (~same_moment).float(), nothing_hard)
    same_verb, negative = _same(items.verb) & _forward(items), _negative_weight(items, config)
    if config.kind == "supcon":
        itself = torch.eye(len(items.verb), dtype=torch.bool, device=items.verb.device)
        return PairMasks((same_verb & ~itself).float(), negative, nothing_hard)
    same_scene = _same(items.scene)
    across_scene = (same_verb & ~same_scene).float()
    across_view = (same_verb & same_scene & ~_same(items.view)).float()
    return PairMasks(across_scene + config.view_weight * across_view, negative, same_scene)


def scene_loss(vectors: Tensor, items: BatchLabels, temperature: float) -> Tensor:
    """What the registers are for: clips of one place attract, other places repel, those that show
    the same action there as much as all others together.

    vectors: (B, D) of unit length, made of the registers -> scalar. The contrast of
    `contrastive_loss` with action and scene in each other's place (compare the scene slot of DEVIAS,
    arxiv.org/abs/2312.00826).
    """
    same_scene, same_moment = _same(items.scene), _same(items.moment)
    positive = (same_scene & ~same_moment).float()
    masks = PairMasks(positive, (~same_scene).float(), _same(items.verb))
    return _infonce(vectors @ vectors.T / temperature, masks, ContrastConfig())[0]


def scene_leakage(action: Tensor, scene: Tensor, items: BatchLabels) -> Tensor:
    """How much of the scene can be read off the action token by a linear map: the mean over its
    dimensions of the sum of squared correlations with the dimensions of the scene vector; about
    D / B where there is nothing to read.

    action (B, d), scene (B, D), which is only read (no gradient) -> scalar. Both are taken relative
    to the batch's mean of the same action, since in training actions and scenes go together.
    """
    mean_of_verb = F.normalize(_same(items.verb).float(), p=1, dim=1)
    a, s = (_standard(x - mean_of_verb @ x) for x in (action, scene.detach()))
    return (a.T @ s / len(a)).square().sum(dim=1).mean()


def _standard(x: Tensor) -> Tensor:
    """Columns of mean square 1."""
    return x * x.square().mean(dim=0).clamp_min(1e-6).rsqrt()


def multi_positive_infonce(similarity: Tensor, positive: Tensor) -> Tensor:
    """- mean over rows of log( sum_pos e / sum_all e ): logits (N, M), mask (N, M) -> scalar
    (EgoNCE's form).
    """
    chosen = similarity.masked_fill(~positive, float("-inf"))
    return (torch.logsumexp(similarity, dim=1) - torch.logsumexp(chosen, dim=1)).mean()


def _infonce(logits: Tensor, masks: PairMasks, config: ContrastConfig) -> tuple[Tensor, Tensor]:
    """The formula of `contrastive_loss` for given masks."""
    positive, negative, hard = masks.positive, masks.negative, masks.hard
    bias = _beta(negative, hard, config).log()[:, None] * hard + negative.clamp_min(1e-6).log()
    masked = (logits + bias).masked_fill(negative == 0, float("-inf"))
    # log-sum-exp of nothing is -inf: an anchor without negatives has loss 0 for each positive
    total = torch.logsumexp(masked, dim=1, keepdim=True).clamp_min(-1e4)
    if config.positives_in_denominator:
        inside = logits.masked_fill(positive == 0, float("-inf"))
        below = torch.logsumexp(inside, dim=1, keepdim=True).clamp_min(-1e4)
        each = torch.logaddexp(total, below) - logits
    else:
        each = F.softplus(total - logits)
    mass = positive.sum(dim=1)
    kept = mass > 0
    per_anchor = (positive * each).sum(dim=1) / mass.clamp_min(1e-6)
    return per_anchor[kept].sum() / kept.sum().clamp_min(1), 1 - kept.float().mean()


def _negative_weight(items: BatchLabels, config: ContrastConfig) -> Tensor:
    """Weight of each negative: 1 = a full negative, 0 = ignored. A clip in reverse is a negative of
    its own action shown forwards; what it is beside other actions is not known.
    """
    different = _difference(items, config)
    if items.time_reversed is None:
        return different
    own = (_same(items.verb) & items.time_reversed[None]).float()
    return torch.where(_forward(items), different, own)


def _forward(items: BatchLabels) -> Tensor:
    """Pairs of clips both shown forwards: bool (B, B)."""
    if items.time_reversed is None:
        return torch.ones_like(_same(items.verb))
    return ~items.time_reversed[:, None] & ~items.time_reversed[None]


def _difference(items: BatchLabels, config: ContrastConfig) -> Tensor:
    """Weight of each pair of different verbs as negatives, both shown forwards."""
    if config.negative_mask == "verb_root":
        return (~_same(items.verb_root)).float()
    different = (~_same(items.verb)).float()
    if config.negative_mask == "none":
        return different
    if items.verb_embedding is None:
        raise ValueError("negative_mask text needs the text features of the items' verbs")
    alike = items.verb_embedding @ items.verb_embedding.T
    return different * (1 - F.relu(alike - _ALIKE) / (1 - _ALIKE)).clamp(0, 1)


def _beta(negative: Tensor, hard: Tensor, config: ContrastConfig) -> Tensor:
    """Weight of each anchor's hard negatives, (B,). Auto counts them as they are softened."""
    if config.beta > 0:
        return torch.full((len(negative),), config.beta, device=negative.device)
    ratio = config.hard_fraction / (1 - config.hard_fraction)
    n_hard = (negative * hard).sum(dim=1)
    n_easy = negative.sum(dim=1) - n_hard
    return (ratio * n_easy / n_hard.clamp_min(1)).clamp(1, _LARGEST_BETA)


def _same(ids: Tensor) -> Tensor:
    return ids[:, None] == ids[None]
