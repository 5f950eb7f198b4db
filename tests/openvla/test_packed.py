"""Packed weights: the same numbers, and no way to lose a model by saving it."""

import pytest
import torch
from torch import nn

from invact_vla.core.errors import UserError
from invact_vla.openvla.bench.action import shared_copy
from invact_vla.openvla.checkpoints.checkpoint import save_model
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.inference.int8 import PackedLinear, can_pack, quantize_model
from invact_vla.openvla.inference.policy import OpenVLAPolicy
from invact_vla.openvla.random_model import random_model
from tests.openvla.small import debug_config, pixels, tiny_folder

CPU = torch.device("cpu")
BF16 = torch.bfloat16
pytestmark = pytest.mark.skipif(
    not can_pack(nn.Linear(8, 8, dtype=BF16)), reason="this processor has no 16-bit products"
)


@torch.inference_mode()
@pytest.mark.parametrize("shape", [(1, 96), (280, 96), (2, 3, 96)])
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_equal(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(96, 40, bias=bias, dtype=BF16)
    x = torch.randn(shape).to(BF16)
    assert torch.equal(PackedLinear(layer)(x), layer(x))


@torch.inference_mode()
def test_a_model_decodes_the_same_and_cannot_be_saved(tmp_path) -> None:
    config = debug_config()
    model = random_model(config, CPU, BF16, seed=1)
    packed = shared_copy(model)
    quantize_model(packed, "none")
    changed = [m for m in packed.modules() if type(m) is PackedLinear]
    assert len(changed) == 7 * config.text_config.num_hidden_layers
    assert all(type(m) is not PackedLinear for m in model.modules())
    ids = torch.randint(3, 100, (2, 9), generator=torch.Generator().manual_seed(0))
    images = pixels(2, config).to(BF16)
    theirs, ours = (greedy_decode(m, ids, 5, images) for m in (model, packed))
    assert torch.equal(theirs[0], ours[0]) and torch.equal(theirs[1], ours[1])
    with pytest.raises(UserError, match="cannot be saved"):
        save_model(packed, tmp_path)


def test_a_policy_of_16_bits_is_packed_and_one_of_32_is_not(tmp_path) -> None:
    folder = tiny_folder(tmp_path / "model")
    for dtype, expected in (("bf16", True), ("fp32", False)):
        model = OpenVLAPolicy.from_pretrained(folder, dtype=dtype).pretrained.model
        assert any(type(m) is PackedLinear for m in model.modules()) == expected
