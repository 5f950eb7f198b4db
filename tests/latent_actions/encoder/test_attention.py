"""Attention kernels, and the gate of soft commitment."""

import pytest
import torch
import torch.nn.functional as F

from latent_actions.encoder.attention import attend
from latent_actions.encoder.commit import _block_bias
from latent_actions.encoder.routing import RoutingAssignments


@pytest.mark.parametrize("kernel", ["matmul", "sdpa"])
def test_a_soft_gate_scales_the_weights_before_they_are_normalized(kernel):
    torch.manual_seed(0)
    q, v = torch.randn(2, 3, 7, 8), torch.randn(2, 3, 9, 8)
    k = torch.randn(2, 3, 9, 8)
    soft = torch.rand(2, 7, 2).softmax(dim=-1)  # 7 patches, 2 special tokens
    gate = torch.cat([soft, soft @ soft.transpose(1, 2)], dim=-1)[:, None]
    weight = gate * (q @ k.transpose(-1, -2) * 8**-0.5).exp()
    expected = weight / weight.sum(dim=-1, keepdim=True) @ v
    found = attend(q, k, v, _block_bias(RoutingAssignments(soft, soft, False)), kernel)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_both_kernels_agree_with_and_without_a_bias():
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 7, 8) for _ in range(3))
    for bias in (None, F.logsigmoid(torch.randn(2, 1, 7, 7))):
        one, other = attend(q, k, v, bias, "matmul"), attend(q, k, v, bias, "sdpa")
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
