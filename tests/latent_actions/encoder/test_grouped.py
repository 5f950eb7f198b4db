"""Grouped attention: masked attention at the cost of the groups, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from latent_actions.encoder import grouped
from latent_actions.encoder.attention import attend, split_heads
from latent_actions.encoder.commit import CommitBlock, CommitConfig
from latent_actions.encoder.grouped import _jagged, grouped_attention, sort_groups
from latent_actions.encoder.routing import Routing, RoutingAssignments

HEADS, WIDTH = 3, 24


@pytest.fixture(autouse=True, params=["sorted", "masked"])
def way(request, monkeypatch):
    """Every test goes the way of many tokens and that of few."""
    monkeypatch.setattr(grouped, "_FEWEST", {"sorted": 0, "masked": 1000}[request.param])


def masked(packed, groups):
    """The same by softmax over all tokens with the mask [group_i = group_j]."""
    q, k, v = packed.unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
    same = groups[:, None, :, None] == groups[:, None, None, :]
    mixed = attend(q, k, v, torch.zeros(same.shape).masked_fill(~same, float("-inf")))
    return mixed.transpose(1, 2).flatten(2)


def tokens(seed=0, clips=3, count=40, groups=5):
    generator = torch.Generator().manual_seed(seed)
    packed = torch.randn(clips, count, 3 * WIDTH, generator=generator, requires_grad=True)
    return packed, torch.randint(groups, (clips, count), generator=generator)


def with_gradient(attention, packed, groups):
    mixed = attention(packed, groups)
    weight = torch.linspace(-1, 1, mixed.numel()).view_as(mixed)
    (gradient,) = torch.autograd.grad((mixed * weight).sum(), packed)
    return mixed, gradient


@pytest.mark.parametrize("kernel", ["matmul", "sdpa"])
@pytest.mark.parametrize("groups", [1, 2, 5, 40])
def test_equals_masked_attention_forward_and_backward(kernel, groups):
    packed, which = tokens(groups=groups)
    found = with_gradient(lambda p, g: grouped_attention(p, g, HEADS, kernel), packed, which)
    for mine, dense in zip(found, with_gradient(masked, packed, which), strict=True):
        torch.testing.assert_close(mine, dense, atol=1e-5, rtol=1e-5)


def test_groups_that_a_clip_does_not_use():
    packed, which = tokens()
    which[0], which[1], which[2] = 0, 4, torch.arange(40) % 2 * 3
    found = grouped_attention(packed, which, HEADS, "matmul")
    torch.testing.assert_close(found, masked(packed, which), atol=1e-5, rtol=1e-5)


def test_one_variable_length_call_equals_run_by_run():
    packed, which = tokens()
    order, sizes = sort_groups(which)
    found = torch.empty(which.numel(), WIDTH)
    found[order] = _jagged(packed.flatten(0, 1)[order], sizes, HEADS)
    expected = masked(packed, which).flatten(0, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_sorting_keeps_clips_apart_and_leaves_no_empty_run():
    order, sizes = sort_groups(torch.tensor([[2, 0, 2], [1, 1, 1]]))
    assert order.tolist() == [1, 0, 2, 3, 4, 5] and sizes.tolist() == [1, 2, 3]


def test_a_token_sees_its_own_group_alone():
    packed, which = tokens()
    mixed = grouped_attention(packed, which, HEADS, "matmul")
    (gradient,) = torch.autograd.grad(mixed[0, 7].sum(), packed)
    seen = gradient.abs().sum(dim=-1) > 0
    assert torch.equal(seen[0], which[0] == which[0, 7])
    assert not seen[1:].any()


def test_permuting_tokens_permutes_the_output():
    packed, which = tokens()
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    expected = grouped_attention(packed, which, HEADS, "matmul")[:, order]
    found = grouped_attention(packed[:, order], which[:, order], HEADS, "matmul")
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def dense_block(block, patches, special_tokens, rows):
    """The patches of a commit block, by a mask over all of its tokens."""
    groups = torch.cat([torch.arange(special_tokens.shape[1]).expand(len(special_tokens), -1),
                        rows.used.argmax(dim=-1)], dim=1)  # fmt: skip
    both = torch.cat([special_tokens, patches], dim=1)
    q, k, v = split_heads(block.project(both), block.heads)
    same = groups[:, None, :, None] == groups[:, None, None, :]
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=same).transpose(1, 2).flatten(2)
    both = both + block.out(mixed)
    return (both + block.mlp(block.norm_mlp(both)))[:, special_tokens.shape[1] :]


@pytest.mark.parametrize("kernel", ["matmul", "sdpa"])
def test_commit_block_equals_the_masked_dense_version(kernel):
    torch.manual_seed(0)
    block = CommitBlock(24, 3, 2.0, kernel, CommitConfig(registers=3, start=0))
    patches, special_tokens = torch.randn(2, 30, 24, requires_grad=True), torch.randn(2, 4, 24)
    rows = block(patches, special_tokens, Routing(noise=True))[2]
    rows = RoutingAssignments(rows.soft.detach(), rows.used.detach(), True)
    assert len(rows.used.argmax(dim=-1).unique()) > 1
    found = block(patches, special_tokens, Routing(), kept=rows)[0]
    expected = dense_block(block, patches, special_tokens, rows)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    mine = torch.autograd.grad(found.square().sum(), [patches, block.qkv.weight])
    theirs = torch.autograd.grad(expected.square().sum(), [patches, block.qkv.weight])
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
