"""Properties of the commit block: what makes committed tokens unable to leak."""

import pytest
import torch

from latent_actions.encoder.attention import attend
from latent_actions.encoder.commit import CommitBlock, CommitConfig, gated_read
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.routing import Routing, RoutingAssignments

HARD = Routing(hard=True, noise=False)


def make_block(seed=0, **options):
    torch.manual_seed(seed)
    block = CommitBlock(
        16, 2, 2.0, "matmul", CommitConfig(registers=3, start=0, router_width=8, **options)
    )
    for parameter in (
        block.router_query.weight,
        block.router_key.weight,
        block.null_key,
        block.null_value,
    ):
        torch.nn.init.normal_(parameter, std=1.0)
    return block


def tokens(seed=1, patches=10):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, patches, 16, generator=generator), torch.randn(
        2, 4, 16, generator=generator
    )


def null_of(width=8, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(3, 1, width, generator=generator) for _ in range(2)]


def test_gated_read_is_masked_softmax():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 11, 8), torch.randn(2, 3, 11, 8)
    mask, null = torch.rand(2, 1, 4, 11) < 0.4, null_of()
    mask[0, 0, 0] = False  # reads the null key alone
    read = gated_read(q, k, v, mask.float(), *null)
    keys, values = (
        torch.cat([n.expand(2, -1, -1, -1), t], dim=2) for n, t in zip(null, (k, v), strict=True)
    )
    bias = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
    expected = attend(q, keys, values, torch.nn.functional.pad(bias, (1, 0)))
    torch.testing.assert_close(read, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(read[0, :, 0], null[1][:, 0])


@pytest.mark.parametrize("estimator", ["st_gumbel", "st_argmax", "topk"])
def test_no_path_from_register_patches_to_the_action_token(estimator):
    blocks = [make_block(i, estimator=estimator) for i in range(2)]
    patches, special_tokens = tokens()
    rows = blocks[0](patches, special_tokens, HARD)[2]
    fixed = RoutingAssignments(rows.soft.detach(), rows.used.detach(), True)
    patches.requires_grad_()
    x, s = patches, special_tokens
    for block in blocks:
        x, s, _ = block(x, s, HARD, kept=fixed)
    (gradient,) = torch.autograd.grad(s[:, 0].square().sum(), patches)
    is_action = fixed.used[..., 0] == 1
    assert is_action.any() and not is_action.all()
    assert gradient[~is_action].abs().max() == 0
    assert (gradient[is_action].abs().sum(dim=-1) > 0).all()


def test_full_patch_attention_does_leak():
    block = make_block(patch_attention="full")
    patches, special_tokens = tokens()
    rows = block(patches, special_tokens, HARD)[2]
    fixed = RoutingAssignments(rows.soft.detach(), rows.used.detach(), True)
    patches.requires_grad_()
    x, s, _ = block(patches, special_tokens, HARD, kept=fixed)
    _, s, _ = block(x, s, HARD, kept=fixed)
    (gradient,) = torch.autograd.grad(s[:, 0].square().sum(), patches)
    assert gradient[fixed.used[..., 0] == 0].abs().max() > 0


def test_router_learns_from_uncommitted_pairs():
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 3, 4, 8), torch.randn(1, 3, 6, 8), torch.randn(1, 3, 6, 8)
    gate = torch.zeros(1, 1, 4, 6, requires_grad=True)  # only the null key is open
    gated_read(q, k, v, gate, *null_of()).square().sum().backward()
    assert (gate.grad.abs() > 0).all()


def test_the_gradient_of_a_closed_gate_is_bounded():
    """Only an unlikely key is open: by the exact derivative, opening a likely one changes the read
    more than a million times as much as one vector is worth; beside all keys, by one vector."""
    q, k, v = torch.ones(1, 1, 1, 8), torch.zeros(1, 1, 2, 8), torch.randn(1, 1, 2, 8)
    k[0, 0, 0], k[0, 0, 1] = 10.0, -10.0
    null = torch.full((1, 1, 8), -10.0), torch.zeros(1, 1, 8)
    gate = torch.tensor([[[[0.0, 1.0]]]], requires_grad=True)
    read = gated_read(q, k, v, gate, *null)
    torch.testing.assert_close(read[0, 0, 0], v[0, 0, 1] / 2)  # the open key and the null, alike
    (found,) = torch.autograd.grad(read.sum(), gate)
    torch.testing.assert_close(found[0, 0, 0, 0], (v[0, 0, 0] - read[0, 0, 0]).sum().detach())
    exact = torch.autograd.grad(gated_read(q, k, v, gate, *null, hard=False).sum(), gate)[0]
    assert exact.abs().max() > 1e6 * found.abs().max()


@pytest.mark.parametrize("estimator", ["st_gumbel", "st_argmax", "topk", "soft"])
def test_every_estimator_trains_the_router(estimator):
    block = make_block(estimator=estimator)
    patches, special_tokens = tokens()
    _, s, _ = block(patches, special_tokens, Routing(hard=True, noise=True))
    s[:, 0].square().sum().backward()
    assert (
        block.router_query.weight.grad.abs().max() > 0
        and block.router_key.weight.grad.abs().max() > 0
    )


def test_under_fixed_rows_the_action_token_reads_its_own_patches_alone():
    block = make_block()
    patches, special_tokens = tokens()
    rows = block(patches, special_tokens, HARD)[2]
    fixed = RoutingAssignments(rows.soft.detach(), rows.used.detach(), True)
    other = patches + tokens(seed=2)[0] * (1 - fixed.used[..., :1])
    for mine, changed in zip(patches, other, strict=True):
        assert not torch.equal(mine, changed)
    before = block(patches, special_tokens, HARD, kept=fixed)
    after = block(other, special_tokens, HARD, kept=fixed)
    torch.testing.assert_close(before[1][:, 0], after[1][:, 0])
    is_action = fixed.used[..., 0] == 1
    torch.testing.assert_close(before[0][is_action], after[0][is_action])
    assert not torch.allclose(before[1][:, 1:], after[1][:, 1:])


def test_permuting_patches_permutes_them_and_leaves_the_specials():
    block, (patches, special_tokens) = make_block(), tokens()
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    x, s, rows = block(patches, special_tokens, HARD)
    y, t, permuted = block(patches[:, order], special_tokens, HARD)
    torch.testing.assert_close(y, x[:, order])
    torch.testing.assert_close(t, s)
    assert torch.equal(permuted.used, rows.used[:, order])


@pytest.mark.parametrize("patch_attention", ["block", "full", "none"])
def test_empty_action_set_is_finite(patch_attention):
    block = make_block(patch_attention=patch_attention)
    patches, special_tokens = tokens()
    with torch.no_grad():
        block.action_bias.fill_(-1e4)
    patches.requires_grad_()
    x, s, rows = block(patches, special_tokens, HARD)
    assert rows.used[..., 0].sum() == 0
    assert torch.isfinite(s).all() and torch.isfinite(x).all()
    s.square().sum().backward()
    assert torch.isfinite(patches.grad).all()


def test_patch_attention_none_leaves_the_patches():
    patches, special_tokens = tokens()
    x, s, _ = make_block(patch_attention="none")(patches, special_tokens, HARD)
    assert torch.equal(x, patches) and not torch.equal(s, special_tokens)


def test_special_tokens_do_not_read_each_other():
    patches, special_tokens = tokens()
    block = make_block()
    chosen = block(patches, special_tokens, HARD)[2]
    fixed = RoutingAssignments(chosen.soft.detach(), chosen.used.detach(), True)
    wanted = special_tokens.clone().requires_grad_()
    s, _ = block._mix(patches, wanted, fixed)
    (gradient,) = torch.autograd.grad(s[:, 0].square().sum(), wanted)
    assert gradient[:, 1:].abs().max() == 0 and gradient[:, 0].abs().max() > 0


@pytest.mark.parametrize(
    ("schedule", "in_training", "in_eval"),
    [("per_block", 3, 3), ("once_in_eval", 3, 1), ("once", 1, 1)],
)
def test_how_often_patches_are_routed(schedule, in_training, in_eval):
    torch.manual_seed(0)
    commit = CommitConfig(start=1, schedule=schedule)
    encoder = InvActEncoder(
        EncoderConfig(frames=2, size=16, width=16, heads=2, depth=4, commit=commit)
    )
    clips = torch.rand(2, 2, 16, 16, 3)
    for training, wanted in [(True, in_training), (False, in_eval)]:
        found = encoder.train(training)(clips).assignments
        assert len(found) == 3 and len({id(chosen) for chosen in found}) == wanted


def test_motion_prior_draws_moving_patches_to_the_action_token():
    patches, special_tokens = tokens()
    motion = torch.zeros(2, 10)
    motion[:, 3] = 1
    rows = make_block(motion_prior=1e4)(patches, special_tokens, HARD, motion)[2]
    assert (rows.used[:, 3, 0] == 1).all()


def test_bf16_and_fp32_choose_the_same_rows():
    torch.manual_seed(0)
    config = EncoderConfig(size=32, patch=4, width=64, depth=2, commit=CommitConfig(start=1))
    encoder = InvActEncoder(config).eval()
    clips = torch.rand(8, 8, 32, 32, 3)
    exact = encoder(clips).assignments[0].used.argmax(dim=-1)
    patches, special_tokens = torch.randn(8, 256, 64), encoder.special_tokens.expand(8, -1, -1)
    block = encoder.commit_blocks[0]
    whole = block(patches, special_tokens, HARD)[2].used.argmax(dim=-1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = block(patches, special_tokens, HARD)[2].used.argmax(dim=-1)
    assert (whole == half).float().mean() >= 0.999
    assert exact.shape == (8, 256)


def test_without_registers_every_patch_is_action():
    torch.manual_seed(0)
    block = CommitBlock(16, 2, 2.0, "matmul", CommitConfig(registers=0, start=0))
    patches, special_tokens = tokens()
    x, s, rows = block(patches, special_tokens[:, :1], Routing(noise=True))
    assert (rows.used == 1).all() and torch.isfinite(x).all() and torch.isfinite(s).all()


@pytest.mark.parametrize(
    "options", [{"estimator": "topk", "registers": 0}, {"topk_ratio": 1.0}, {"registers": -1}]
)
def test_impossible_commitments_are_refused(options):
    with pytest.raises(ValueError):
        CommitConfig(**options)
