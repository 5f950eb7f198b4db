"""Attention kernels, and divided space-time attention."""

import pytest
import torch
import torch.nn.functional as F

from latent_actions.encoder.attention import Block, attend, gate_bias
from latent_actions.encoder.divided import DividedBlock

PLACES, FRAMES, SPECIALS = 6, 3, 2


def divided(seed=0):
    torch.manual_seed(seed)
    return DividedBlock(16, 2, 2.0, "matmul", PLACES)


def tokens(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, SPECIALS + FRAMES * PLACES, 16, generator=generator)


@pytest.mark.parametrize("kernel", ["matmul", "sdpa"])
def test_a_soft_gate_scales_the_weights_before_they_are_normalised(kernel):
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 8) for _ in range(3))
    gate = torch.rand(2, 1, 7, 7)
    weight = gate * (q @ k.transpose(-1, -2) * 8**-0.5).exp()
    expected = weight / weight.sum(dim=-1, keepdim=True) @ v
    found = attend(q, k, v, gate_bias(gate), kernel)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_patches_of_a_divided_block_see_their_place_and_the_frames_those_pass_through():
    block, x = divided(), tokens().requires_grad_()
    update = block._over_time(x[:, SPECIALS:])
    (gradient,) = torch.autograd.grad(update[0, PLACES + 4].square().sum(), x)
    seen = gradient[0].abs().sum(dim=-1) > 0
    assert seen[SPECIALS:].nonzero().flatten().tolist() == [4, PLACES + 4, 2 * PLACES + 4]
    update = block._over_space(x, SPECIALS)
    (gradient,) = torch.autograd.grad(update[0, SPECIALS + PLACES + 4].square().sum(), x)
    seen = gradient[0].abs().sum(dim=-1) > 0
    frame = range(SPECIALS + PLACES, SPECIALS + 2 * PLACES)
    assert seen.nonzero().flatten().tolist() == [*range(SPECIALS), *frame]


def test_specials_of_a_divided_block_average_what_they_read_of_each_frame():
    block, x = divided(), tokens()
    update = block._over_space(x, SPECIALS)[:, :SPECIALS]
    frames = x[:, SPECIALS:].unflatten(1, (FRAMES, PLACES))
    each = [
        block._over_space(torch.cat([x[:, :SPECIALS], frames[:, t]], dim=1), SPECIALS)
        for t in range(FRAMES)
    ]
    expected = torch.stack([part[:, :SPECIALS] for part in each]).mean(dim=0)
    torch.testing.assert_close(update, expected)


def test_one_frame_with_a_silent_time_step_is_an_ordinary_block():
    block, plain = divided(), Block(16, 2, 2.0, "sdpa")
    plain.load_state_dict(
        {n: t for n, t in block.state_dict().items() if not n.startswith(("time", "norm_time"))}
    )
    torch.nn.init.zeros_(block.time_out.weight)
    torch.nn.init.zeros_(block.time_out.bias)
    x = tokens()[:, : SPECIALS + PLACES]
    torch.testing.assert_close(block(x, SPECIALS), plain(x, SPECIALS), atol=1e-5, rtol=1e-5)


def test_both_kernels_agree_with_and_without_a_bias():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 8) for _ in range(3))
    for bias in (None, F.logsigmoid(torch.randn(2, 1, 7, 7))):
        one, other = attend(q, k, v, bias, "matmul"), attend(q, k, v, bias, "sdpa")
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
