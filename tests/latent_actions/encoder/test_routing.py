"""Routing: which special token each patch is committed to, and what their gradients are."""

import pytest
import torch
import torch.nn.functional as F

from latent_actions.encoder.routing import (
    Routing,
    RoutingAssignments,
    action_band,
    register_balance,
    route_tokens,
)

HARD = Routing(hard=True, noise=False)
HARD_ROWS = ["st_gumbel", "st_argmax", "topk"]
ALL = [*HARD_ROWS, "soft"]


def logits(seed=0, clips=3, patches=50, special_tokens=5):
    generator = torch.Generator().manual_seed(seed)
    return 2 * torch.randn(clips, patches, special_tokens, generator=generator)


@pytest.mark.parametrize("routing", [Routing(hard=False), HARD, Routing(noise=True)])
@pytest.mark.parametrize("estimator", ALL)
def test_rows_sum_to_one(estimator, routing):
    rows = route_tokens(logits(), estimator, routing)
    for values in (rows.used, rows.soft):
        torch.testing.assert_close(values.sum(dim=-1), torch.ones(3, 50))
        assert values.min() >= 0


@pytest.mark.parametrize("estimator", HARD_ROWS)
def test_hard_rows_are_one_hot_with_the_gradient_of_soft_ones(estimator):
    values = logits().requires_grad_()
    rows = route_tokens(values, estimator, Routing(noise=False, temperature=0.7))
    assert rows.hard and set(rows.used.unique().tolist()) == {0.0, 1.0}
    weight = logits(seed=1)
    (gradient,) = torch.autograd.grad((rows.used * weight).sum(), values)
    (expected,) = torch.autograd.grad((F.softmax(values / 0.7, dim=-1) * weight).sum(), values)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("estimator", ["st_gumbel", "st_argmax"])
def test_without_noise_the_choice_is_the_largest_logit(estimator):
    chosen = route_tokens(logits(), estimator, HARD).used.argmax(dim=-1)
    assert torch.equal(chosen, logits().argmax(dim=-1))


def test_gumbel_noise_draws_from_the_softmax():
    torch.manual_seed(0)
    row = torch.tensor([1.0, 0.0, -1.0])
    rows = route_tokens(row.expand(1, 20_000, 3), "st_gumbel", Routing(noise=True))
    torch.testing.assert_close(rows.used.mean(dim=1)[0], row.softmax(dim=0), atol=0.02, rtol=0)


@pytest.mark.parametrize("estimator", ALL)
def test_before_hardening_all_rows_are_soft_and_sharpen_with_the_temperature(estimator):
    warm = route_tokens(logits(), estimator, Routing(hard=False))
    sharp = route_tokens(logits(), estimator, Routing(hard=False, temperature=0.05))
    assert not warm.hard and torch.equal(warm.used, warm.soft)
    assert torch.equal(sharp.soft, warm.soft)
    assert (sharp.used.amax(dim=-1) > warm.used.amax(dim=-1)).all()


def test_topk_gives_the_action_token_its_share_of_every_clip():
    values = logits()
    used = route_tokens(values, "topk", HARD, topk_ratio=0.2).used
    assert (used[..., 0].sum(dim=1) == 10).all()
    odds = values[..., 0] - values[..., 1:].logsumexp(dim=-1)
    for clip in range(3):
        is_action = used[clip, :, 0] == 1
        assert odds[clip][is_action].min() >= odds[clip][~is_action].max()
    others = used[..., 0] == 0
    best = 1 + values[..., 1:].argmax(dim=-1)
    assert torch.equal(used.argmax(dim=-1)[others], best[others])


def test_action_band_is_zero_inside_and_squared_outside():
    soft = torch.full((2, 10, 3), 1 / 3)
    assert action_band(soft, 0.3, 0.4) == 0
    assert action_band(soft, 0.0, 0.1) == pytest.approx(100 * (1 / 3 - 0.1) ** 2, rel=1e-5)


def test_register_balance_is_one_when_even_and_their_number_when_one_has_all():
    even = torch.tensor([[[0.2, 0.5, 0.3], [0.2, 0.3, 0.5]]])
    one = torch.tensor([[[0.2, 0.8, 0.0], [0.2, 0.8, 0.0]]])
    assert register_balance(RoutingAssignments(even, even, False)) == pytest.approx(1.0)
    assert register_balance(RoutingAssignments(one, one, False)) == pytest.approx(2.0)
