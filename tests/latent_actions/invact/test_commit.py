"""Properties of the commit block: what makes committed tokens unable to leak."""

import pytest
import torch

from latent_actions.invact.attention import attend
from latent_actions.invact.commit import CommitBlock, CommitConfig, gated_read
from latent_actions.invact.encoder import EncoderConfig, InvActEncoder
from latent_actions.invact.routing import (
    Routing,
    Rows,
    action_band,
    choose_rows,
    register_balance,
)

HARD = Routing(hard=True, noise=False)


def make_block(seed=0, **options):
    torch.manual_seed(seed)
    block = CommitBlock(
        16, 2, 2.0, "matmul", CommitConfig(registers=3, start=0, router_width=8, **options)
    )
    for parameter in (block.row.weight, block.column.weight, block.null_key, block.null_value):
        torch.nn.init.normal_(parameter, std=1.0)
    return block


def tokens(seed=1, patches=10):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, patches, 16, generator=generator), torch.randn(
        2, 4, 16, generator=generator
    )


@pytest.mark.parametrize("estimator", ["st_gumbel", "st_argmax"])
def test_rows_are_one_hot(estimator):
    rows = choose_rows(
        torch.randn(3, 50, 5), estimator, Routing(hard=True, noise=True, temperature=0.7)
    )
    assert rows.hard
    assert torch.equal(rows.used.sum(dim=-1), torch.ones(3, 50))
    assert set(rows.used.unique().tolist()) == {0.0, 1.0}


def test_soft_rows_are_probabilities_and_rows_without_noise_are_the_argmax():
    logits = torch.randn(2, 9, 4)
    soft = choose_rows(logits, "soft", HARD)
    assert not soft.hard and torch.allclose(soft.used.sum(dim=-1), torch.ones(2, 9))
    assert not choose_rows(logits, "st_gumbel", Routing(hard=False)).hard
    chosen = choose_rows(logits, "st_gumbel", HARD)
    assert torch.equal(chosen.used.argmax(dim=-1), logits.argmax(dim=-1))


def test_gated_read_is_masked_softmax():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 11, 8), torch.randn(2, 3, 11, 8)
    mask = torch.rand(2, 1, 4, 11) < 0.4
    mask[..., 0] = True  # the null key
    read = gated_read(q, k, v, mask.float())
    bias = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
    torch.testing.assert_close(read, attend(q, k, v, bias), atol=1e-6, rtol=0)


@pytest.mark.parametrize("estimator", ["st_gumbel", "st_argmax"])
def test_no_path_from_register_patches_to_the_action_token(estimator):
    blocks = [make_block(i, estimator=estimator, schedule="once") for i in range(2)]
    patches, specials = tokens()
    rows = blocks[0](patches, specials, HARD)[2]
    fixed = Rows(rows.soft.detach(), rows.used.detach(), True)
    patches.requires_grad_()
    x, s = patches, specials
    for block in blocks:
        x, s, _ = block(x, s, HARD, last=fixed)
    (gradient,) = torch.autograd.grad(s[:, 0].square().sum(), patches)
    is_action = fixed.used[..., 0] == 1
    assert is_action.any() and not is_action.all()
    assert gradient[~is_action].abs().max() == 0
    assert (gradient[is_action].abs().sum(dim=-1) > 0).all()


def test_full_patch_attention_does_leak():
    block = make_block(patch_attention="full", schedule="once")
    patches, specials = tokens()
    rows = block(patches, specials, HARD)[2]
    fixed = Rows(rows.soft.detach(), rows.used.detach(), True)
    patches.requires_grad_()
    x, s, _ = block(patches, specials, HARD, last=fixed)
    _, s, _ = block(x, s, HARD, last=fixed)
    (gradient,) = torch.autograd.grad(s[:, 0].square().sum(), patches)
    assert gradient[fixed.used[..., 0] == 0].abs().max() > 0


def test_router_learns_from_uncommitted_pairs():
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 2, 4, 8), torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)
    gate = torch.zeros(1, 1, 4, 6)
    gate[..., 0] = 1  # only the null key is open
    gate.requires_grad_()
    gated_read(q, k, v, gate).square().sum().backward()
    assert (gate.grad[..., 1:].abs() > 0).all()


def test_hard_rows_train_the_router():
    block = make_block()
    patches, specials = tokens()
    _, s, _ = block(patches, specials, Routing(hard=True, noise=True))
    s[:, 0].square().sum().backward()
    assert block.row.weight.grad.abs().max() > 0 and block.column.weight.grad.abs().max() > 0


@pytest.mark.parametrize("patch_attention", ["block", "full", "none"])
def test_empty_action_set_is_finite(patch_attention):
    block = make_block(patch_attention=patch_attention)
    patches, specials = tokens()
    with torch.no_grad():
        block.action_bias.fill_(-1e4)
    patches.requires_grad_()
    x, s, rows = block(patches, specials, HARD)
    assert rows.used[..., 0].sum() == 0
    assert torch.isfinite(s).all() and torch.isfinite(x).all()
    s.square().sum().backward()
    assert torch.isfinite(patches.grad).all()


def test_patch_attention_none_leaves_the_patches():
    patches, specials = tokens()
    x, s, _ = make_block(patch_attention="none")(patches, specials, HARD)
    assert torch.equal(x, patches) and not torch.equal(s, specials)


def test_special_attention_full_mixes_specials():
    patches, specials = tokens()
    for kind, reaches in (("none", False), ("registers_read_action", False), ("full", True)):
        block = make_block(special_attention=kind)
        rows = block(patches, specials, HARD)[2]
        fixed = Rows(rows.soft.detach(), rows.used.detach(), True)
        wanted = specials.clone().requires_grad_()
        s, _ = block._mix(patches, wanted, fixed)
        (gradient,) = torch.autograd.grad(s[:, 0].square().sum(), wanted)
        assert (gradient[:, 1:].abs().max() > 0) == reaches, kind


def test_once_and_sticky_schedules():
    patches, specials = tokens()
    for schedule in ("once", "sticky"):
        blocks = [make_block(i, schedule=schedule, sticky=1e4) for i in range(2)]
        x, s, first = blocks[0](patches, specials, HARD)
        _, _, second = blocks[1](x, s, HARD, last=first)
        assert torch.equal(first.used.argmax(dim=-1), second.used.argmax(dim=-1))


def test_motion_prior_draws_moving_patches_to_the_action_token():
    patches, specials = tokens()
    motion = torch.zeros(2, 10)
    motion[:, 3] = 1
    rows = make_block(motion_prior=1e4)(patches, specials, HARD, motion)[2]
    assert (rows.used[:, 3, 0] == 1).all()


def test_bf16_and_fp32_choose_the_same_rows():
    torch.manual_seed(0)
    config = EncoderConfig(size=32, patch=4, width=64, depth=2, commit=CommitConfig(start=1))
    encoder = InvActEncoder(config).eval()
    clips = torch.rand(8, 8, 32, 32, 3)
    exact = encoder(clips).rows[0].used.argmax(dim=-1)
    patches, specials = torch.randn(8, 256, 64), encoder.special_tokens.expand(8, -1, -1)
    block = encoder.commit_blocks[0]
    whole = block(patches, specials, HARD)[2].used.argmax(dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = block(patches, specials, HARD)[2].used.argmax(dim=-1)
    assert (whole == half).float().mean() >= 0.999
    assert exact.shape == (8, 256)


def test_regularisers():
    soft = torch.full((2, 10, 3), 1 / 3)
    assert action_band(soft, 0.3, 0.4) == 0
    assert action_band(soft, 0.0, 0.1) == pytest.approx(100 * (1 / 3 - 0.1) ** 2, rel=1e-5)
    even = torch.tensor([[[0.2, 0.5, 0.3], [0.2, 0.3, 0.5]]])
    one = torch.tensor([[[0.2, 0.8, 0.0], [0.2, 0.8, 0.0]]])
    assert register_balance(Rows(even, even, False)) == pytest.approx(1.0)
    assert register_balance(Rows(one, one, False)) == pytest.approx(2.0)


def test_commitment_needs_registers():
    with pytest.raises(ValueError, match="at least one register"):
        CommitConfig(registers=0)
