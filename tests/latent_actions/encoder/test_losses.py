"""The scene-aware loss against a loop that spells it out, and its special cases."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from latent_actions.encoder.losses import (
    BatchLabels,
    ContrastConfig,
    contrastive_loss,
    multi_positive_infonce,
    scene_leakage,
    scene_loss,
)
from latent_actions.encoder.model import LossConfig


def items(n=24, seed=0, verbs=4, scenes=3):
    g = torch.Generator().manual_seed(seed)
    verb = torch.randint(verbs, (n // 2,), generator=g).repeat_interleave(2)
    scene = torch.randint(scenes, (n // 2,), generator=g).repeat_interleave(2)
    view = torch.arange(n) % 2
    moment = torch.arange(n // 2).repeat_interleave(2)
    return BatchLabels(verb, verb.clone(), scene, view, moment)


def vectors(n=24, seed=1):
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def spelled_out(z, it, tau, *, w_v, beta, hard_fraction):
    """The formula, one pair at a time."""
    losses = []
    for i in range(len(z)):
        e = [math.exp(float(z[i] @ z[j]) / tau) for j in range(len(z))]
        others = [j for j in range(len(z)) if it.verb[j] != it.verb[i]]
        hard = [j for j in others if it.scene[j] == it.scene[i]]
        easy = [j for j in others if it.scene[j] != it.scene[i]]
        b = beta or min(
            16, max(1, hard_fraction / (1 - hard_fraction) * len(easy) / max(len(hard), 1))
        )
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
    config = ContrastConfig(beta=beta, view_weight=w_v, hard_fraction=share)
    loss, skipped = contrastive_loss(vectors(), items(), torch.tensor(0.2), config)
    expected, expected_skipped = spelled_out(
        vectors(), items(), 0.2, w_v=w_v, beta=beta, hard_fraction=share
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    assert float(skipped) == pytest.approx(expected_skipped, abs=1e-6)


def test_supcon_ignores_scenes():
    a, b = items(seed=0), items(seed=0)
    b = BatchLabels(b.verb, b.verb_root, torch.zeros_like(b.scene), b.view, b.moment)
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


def test_verbs_of_one_root_do_not_repel():
    z, it = vectors(), items()
    merged = BatchLabels(it.verb, torch.zeros_like(it.verb_root), it.scene, it.view, it.moment)
    loss, _ = contrastive_loss(z, merged, torch.tensor(0.2), ContrastConfig())
    assert float(loss) == pytest.approx(0.0, abs=1e-6)  # no negatives are left
    kept, _ = contrastive_loss(z, merged, torch.tensor(0.2), ContrastConfig(negative_mask="none"))
    assert float(kept) > 1


def test_no_positive_and_no_negative_are_finite():
    one = BatchLabels(*(torch.arange(4) for _ in range(5)))
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


def test_positives_in_the_denominator_are_supervised_contrastive_learning():
    """L_out of Khosla et al.: the denominator holds every other item, positives included."""
    z, it, tau = vectors(), items(), 0.2
    total, count = 0.0, 0
    for i in range(len(z)):
        e = {j: math.exp(float(z[i] @ z[j]) / tau) for j in range(len(z)) if j != i}
        same = [j for j in e if it.verb[j] == it.verb[i]]
        if same:
            total -= sum(math.log(e[j] / sum(e.values())) for j in same) / len(same)
            count += 1
    config = ContrastConfig(kind="supcon", positives_in_denominator=True)
    loss, _ = contrastive_loss(z, it, torch.tensor(tau), config)
    assert float(loss) == pytest.approx(total / count, rel=1e-5)


def test_text_mask_softens_negatives_that_mean_the_same():
    z, it, tau = vectors(), items(), 0.2
    verb_embedding = F.normalize(torch.eye(4)[it.verb] + 0.8, dim=-1)  # cosines between 0.7 and 1
    it = BatchLabels(
        it.verb, it.verb_root, it.scene, it.view, it.moment, verb_embedding=verb_embedding
    )
    alike = float(verb_embedding[it.verb == 0][0] @ verb_embedding[it.verb == 1][0])
    negative_weight = 1 - (alike - 0.7) / 0.3
    assert 0 < negative_weight < 1
    config = ContrastConfig(negative_mask="text", beta=1.0)
    loss, _ = contrastive_loss(z, it, torch.tensor(tau), config)
    losses = []
    for i in range(len(z)):
        e = [math.exp(float(z[i] @ z[j]) / tau) for j in range(len(z))]
        mass = negative_weight * sum(e[j] for j in range(len(z)) if it.verb[j] != it.verb[i])
        total = weight = 0.0
        for j in range(len(z)):
            if j != i and it.verb[j] == it.verb[i]:
                same_scene, same_view = it.scene[j] == it.scene[i], it.view[j] == it.view[i]
                w = 0.0 if same_scene and same_view else (0.5 if same_scene else 1.0)
                total, weight = total - w * math.log(e[j] / (e[j] + mass)), weight + w
        if weight:
            losses.append(total / weight)
    assert float(loss) == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    with pytest.raises(ValueError, match="text features"):
        contrastive_loss(z, items(), torch.tensor(tau), config)


@pytest.mark.parametrize("kind", ["scene_aware", "supcon", "infonce_pair"])
def test_every_kind_pulls_the_pairs_of_views_together(kind):
    free = vectors(seed=5).requires_grad_()
    config, tau, it = ContrastConfig(kind=kind), torch.tensor(0.2), items()
    first, _ = contrastive_loss(F.normalize(free, dim=-1), it, tau, config)
    first.backward()
    assert free.grad is not None and torch.isfinite(free.grad).all()
    moved = F.normalize(free.detach() - 0.3 * free.grad / free.grad.norm(), dim=-1)
    assert contrastive_loss(moved, it, tau, config)[0] < first


def test_ramps_raise_a_weight_over_the_steps():
    config = LossConfig(video_text=0.4, ramps={"video_text": (0.2, 0.6), "contrast": (0.5, 0.5)})
    got = [config.weights(p)["video_text"] for p in (0.0, 0.2, 0.4, 0.6, 1.0)]
    assert got == pytest.approx([0.0, 0.0, 0.2, 0.4, 0.4])
    assert config.weights(0.49)["contrast"] == 0 and config.weights(0.5)["contrast"] == 1
    assert config.weights(0.0)["verb_class"] == 0.5
    for bad in ({"pictures": (0.0, 1.0)}, {"balance": (0.5, 0.2)}):
        with pytest.raises(ValueError, match="a ramp is"):
            LossConfig(ramps=bad)


def test_bad_configs():
    for bad in ({"temperature": 0.001}, {"beta": -1.0}, {"hard_fraction": 1.0}):
        with pytest.raises(ValueError):
            ContrastConfig(**bad)
    with pytest.raises(ValueError, match=r"give loss\.scene a weight"):
        LossConfig(scene_leakage=0.1)


@pytest.mark.parametrize("kind", ["scene_aware", "supcon"])
def test_a_clip_shown_backwards_repels_its_own_action_and_nothing_else(kind):
    it, config = items(), ContrastConfig(kind=kind)
    time_reversed = torch.zeros(len(it.verb), dtype=torch.bool)
    time_reversed[4:6] = True
    it = replace(it, time_reversed=time_reversed)
    z = vectors().requires_grad_()
    (gradient,) = torch.autograd.grad(
        contrastive_loss(z, it, torch.tensor(0.2), config)[0], z, create_graph=True
    )
    # how the pull on each clip changes with the vector of the time_reversed one
    others = torch.arange(len(z)) // 2 != 2
    own = (it.verb == it.verb[4]) & others
    (mixed,) = torch.autograd.grad((gradient[4] * torch.randn(8)).sum(), z)
    touched = mixed.abs().sum(dim=1) > 1e-8
    assert touched[own].any()
    (alone,) = torch.autograd.grad(
        contrastive_loss(z[4:6], it.map(lambda x: x[4:6]), torch.tensor(0.2), config)[0], z
    )
    assert alone.abs().max() == 0  # two clips shown time_reversed are nothing to each other


def test_a_clip_shown_backwards_is_pushed_away():
    it = replace(items(verbs=2), time_reversed=torch.arange(24) >= 22)
    z = vectors()
    near, far = z.clone(), z.clone()
    anchor = int(torch.nonzero(it.verb[:22] == it.verb[22])[0])
    near[22], far[22] = z[anchor], -z[anchor]
    losses = [contrastive_loss(x, it, torch.tensor(0.2), ContrastConfig())[0] for x in (near, far)]
    assert losses[0] > losses[1]


def test_the_scene_loss_is_the_contrast_with_action_and_scene_exchanged():
    it = items(verbs=3, scenes=4)
    exchanged = replace(it, verb=it.scene, verb_root=it.scene, scene=it.verb)
    z = vectors()
    same_moment = it.moment[:, None] == it.moment[None]
    expected = []
    for i in range(len(z)):
        e = torch.exp(z @ z[i] / 0.1)
        others = exchanged.verb != exchanged.verb[i]
        hard = others & (exchanged.scene == exchanged.scene[i])
        easy = others & ~hard
        beta = min(16.0, max(1.0, float(easy.sum()) / max(1.0, float(hard.sum()))))
        mass = e[easy].sum() + beta * e[hard].sum()
        positive = ~others & ~same_moment[i]
        if positive.any():
            expected.append((-(e[positive] / (e[positive] + mass)).log()).mean())
    found = scene_loss(z, it, 0.1)
    torch.testing.assert_close(found, torch.stack(expected).mean(), atol=1e-4, rtol=1e-4)


def test_scene_leakage_is_what_a_linear_map_can_read():
    g = torch.Generator().manual_seed(0)
    it = items(n=4000, verbs=4, scenes=8)
    place = torch.randn(8, 6, generator=g)[it.scene]
    of_action = torch.randn(4, 6, generator=g)[it.verb]
    noise = torch.randn(4000, 6, generator=g)
    floor = 6 / 4000
    assert scene_leakage(of_action + noise, place, it) < 2 * floor  # the action alone: nothing
    # scenes that go with actions are no leakage: what counts is within one action
    tied = replace(it, scene=it.verb)
    mixed = torch.randn(4, 6, generator=g)[tied.scene] + 0.5 * torch.randn(4000, 6, generator=g)
    assert scene_leakage(of_action + noise, mixed, tied) < 2 * floor
    assert scene_leakage(of_action + noise + place, place, it) > 50 * floor
    place.requires_grad_()
    scene_leakage(place + noise, place, it).backward()
    scene_only = place.detach().clone().requires_grad_()
    with pytest.raises(RuntimeError):
        scene_leakage(noise, scene_only, it).backward()
