"""The scene-aware loss against a loop that spells it out, and its special cases."""

import math

import pytest
import torch
import torch.nn.functional as F

from latent_actions.invact.losses import (
    ContrastConfig,
    Items,
    contrastive_loss,
    multi_positive_infonce,
)


def items(n=24, seed=0, verbs=4, scenes=3):
    g = torch.Generator().manual_seed(seed)
    verb = torch.randint(verbs, (n // 2,), generator=g).repeat_interleave(2)
    scene = torch.randint(scenes, (n // 2,), generator=g).repeat_interleave(2)
    view = torch.arange(n) % 2
    moment = torch.arange(n // 2).repeat_interleave(2)
    return Items(verb, verb.clone(), scene, view, moment)


def vectors(n=24, seed=1):
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def spelled_out(z, it, tau, *, w_v, beta, hard_share):
    """The formula, one pair at a time."""
    losses = []
    for i in range(len(z)):
        e = [math.exp(float(z[i] @ z[j]) / tau) for j in range(len(z))]
        others = [j for j in range(len(z)) if it.verb[j] != it.verb[i]]
        hard = [j for j in others if it.scene[j] == it.scene[i]]
        easy = [j for j in others if it.scene[j] != it.scene[i]]
        b = beta or min(16, max(1, hard_share / (1 - hard_share) * len(easy) / max(len(hard), 1)))
        mass = sum(e[j] for j in easy) + b * sum(e[j] for j in hard)
        total = weight = 0.0
        for j in range(len(z)):
            if j == i or it.verb[j] != it.verb[i]:
                continue
            same_scene, same_view = it.scene[j] == it.scene[i], it.view[j] == it.view[i]
            w = 0.0 if same_scene and same_view else (w_v if same_scene else 1.0)
            total += w * -math.log(e[j] / (e[j] + mass))
            weight += w
        if weight:
            losses.append(total / weight)
    return sum(losses) / len(losses), 1 - len(losses) / len(z)


@pytest.mark.parametrize(
    "beta,w_v,share", [(0.0, 0.5, 0.5), (4.0, 0.5, 0.5), (1.0, 0.0, 0.5), (0.0, 1.0, 0.7)]
)
def test_scene_aware_equals_the_formula(beta, w_v, share):
    config = ContrastConfig(beta=beta, view_weight=w_v, hard_share=share)
    loss, skipped = contrastive_loss(vectors(), items(), torch.tensor(0.2), config)
    expected, expected_skipped = spelled_out(
        vectors(), items(), 0.2, w_v=w_v, beta=beta, hard_share=share
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(skipped) == pytest.approx(expected_skipped, abs=1e-6)


def test_supcon_ignores_scenes():
    a, b = items(seed=0), items(seed=0)
    b = Items(b.verb, b.head, torch.zeros_like(b.scene), b.view, b.moment)
    config = ContrastConfig(kind="supcon")
    tau = torch.tensor(0.2)
    assert (
        contrastive_loss(vectors(), a, tau, config)[0]
        == contrastive_loss(vectors(), b, tau, config)[0]
    )


def test_pair_infonce_is_cross_entropy_over_the_other_moments():
    z, it, tau = vectors(), items(), 0.2
    config = ContrastConfig(kind="infonce_pair")
    total = 0.0
    for i in range(len(z)):
        partner = i + 1 - 2 * (i % 2)
        allowed = [j for j in range(len(z)) if it.moment[j] != it.moment[i]] + [partner]
        total -= float(torch.log_softmax(z[i] @ z[allowed].T / tau, dim=-1)[-1])
    loss, skipped = contrastive_loss(z, it, torch.tensor(tau), config)
    assert float(loss) == pytest.approx(total / len(z), rel=1e-5) and skipped == 0


def test_same_head_verbs_do_not_repel():
    z, it = vectors(), items()
    merged = Items(it.verb, torch.zeros_like(it.head), it.scene, it.view, it.moment)
    loss, _ = contrastive_loss(z, merged, torch.tensor(0.2), ContrastConfig())
    assert float(loss) == pytest.approx(0.0, abs=1e-6)  # no negatives are left
    kept, _ = contrastive_loss(z, merged, torch.tensor(0.2), ContrastConfig(mask_head_verb=False))
    assert float(kept) > 1


def test_no_positive_and_no_negative_are_finite():
    one = Items(*(torch.arange(4) for _ in range(5)))
    z = vectors(4).requires_grad_()
    loss, skipped = contrastive_loss(z, one, torch.tensor(0.1), ContrastConfig())
    loss.backward()
    assert loss == 0 and skipped == 1 and torch.isfinite(z.grad).all()


def test_perfect_embeddings_have_a_small_loss():
    it = items()
    z = torch.eye(8)[it.verb]
    loss, _ = contrastive_loss(z, it, torch.tensor(0.05), ContrastConfig())
    assert loss < 1e-4


def test_multi_positive_infonce():
    logits = torch.tensor([[2.0, 0.0, 0.0]])
    positive = torch.tensor([[True, True, False]])
    expected = -math.log((math.e**2 + 1) / (math.e**2 + 2))
    assert float(multi_positive_infonce(logits, positive)) == pytest.approx(expected)


def test_bad_configs():
    for bad in ({"temperature": 0.001}, {"beta": -1.0}, {"hard_share": 1.0}):
        with pytest.raises(ValueError):
            ContrastConfig(**bad)
