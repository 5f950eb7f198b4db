"""Int8 weights: what they cost in precision, what they leave alone, and where they are refused."""

import pytest
import torch
from torch import nn

from invact_vla.core.errors import UserError
from invact_vla.openvla.bench.action import shared_copy
from invact_vla.openvla.checkpoints.checkpoint import save_model
from invact_vla.openvla.inference import int8
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.inference.int8 import Int8Linear, quantize_model, quantize_rows, zero_point
from invact_vla.openvla.inference.policy import OpenVLAPolicy
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.random_model import random_model
from tests.openvla.small import debug_config, pixels, tiny_folder

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif(not int8.has_onednn(), reason="int8 layers are oneDNN's, on x86")


def layer_of(bias: bool = True, seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(96, 40, bias=bias)


@pytest.fixture(params=[0, 64, 128], ids=["amx", "without", "vnni"])
def _levels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != 64 and zero_point() == 64:
        pytest.skip("this processor has neither AMX nor VNNI and sums pairs of products in int16")
    monkeypatch.setattr(int8, "zero_point", lambda: request.param)


@torch.inference_mode()
@pytest.mark.usefixtures("_levels")
@pytest.mark.parametrize("rows", [1, 2, 33])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_is_that_of_rounding(rows: int, dtype: torch.dtype) -> None:
    layer = layer_of()
    x = torch.randn(2, rows, 96).to(dtype)
    exact = layer(x.float())
    ours = Int8Linear(layer)(x)
    assert ours.dtype == dtype and ours.shape == exact.shape
    error = (ours.float() - exact).norm() / exact.norm()
    assert error < 0.03, f"relative error {error}"


@torch.inference_mode()
@pytest.mark.usefixtures("_levels")
def test_whole_numbers_are_exact() -> None:
    """Sums of products of the largest numbers, of both signs: nothing overflows, nothing is shifted."""
    level = int8.levels()
    layer = layer_of(bias=False)
    layer.weight.copy_(torch.randint(-127, 128, (40, 96)).float())
    layer.weight[:, 0] = 127  # the scale of each channel is 1
    layer.weight[0], layer.weight[1] = 127, -127
    x = torch.randint(-level, level + 1, (5, 96)).float()
    x[:, 1] = level
    x[0], x[1] = level, -level
    x[:, 1] = level
    torch.testing.assert_close(Int8Linear(layer)(x), layer(x), atol=0.5, rtol=1e-6)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_numbers_keep_their_precision(dtype: torch.dtype) -> None:
    layer = layer_of(bias=False)
    x = (1e-7 * torch.randn(3, 96)).to(dtype)
    exact = layer(x.float())
    assert (Int8Linear(layer)(x).float() - exact).norm() < 0.03 * exact.norm()
    layer.weight.mul_(1e-7)
    ours, exact = Int8Linear(layer)(x).float(), layer(x.float())
    assert (ours - exact).norm() < 0.03 * exact.norm()


@torch.inference_mode()
def test_a_row_of_large_numbers_leaves_other_rows_alone() -> None:
    layer = Int8Linear(layer_of())
    x = torch.randn(4, 96)
    large = x.clone()
    large[2] *= 1e4
    other = [0, 1, 3]
    assert torch.equal(layer(x)[other], layer(large)[other])
    assert torch.equal(layer(torch.zeros(1, 96))[0], layer._bias)
    rows, scale = quantize_rows(x)
    back = (rows.int() - zero_point()) * scale
    assert (back - x).abs().max() <= scale.max() / 2 * 1.001


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_agrees_and_keeps_its_other_parts(dtype: torch.dtype) -> None:
    config = debug_config()
    model = random_model(config, CPU, dtype, seed=1)
    small = shared_copy(model)
    quantize_model(small, "int8")
    changed = {name for name, m in small.named_modules() if type(m) is Int8Linear}
    inside = "language_model.model.layers."
    linears = {n for n, m in model.named_modules() if type(m) is nn.Linear and n.startswith(inside)}
    assert changed == linears and len(changed) == 7 * config.text_config.num_hidden_layers
    assert small.language_model.lm_head.weight is model.language_model.lm_head.weight
    assert all(type(m) is not Int8Linear for m in model.modules())
    ids = torch.randint(3, 100, (2, 9), generator=torch.Generator().manual_seed(0))
    images = pixels(2, config).to(dtype)
    theirs, ours = (m(ids, pixel_values=images).logits.float() for m in (model, small))
    assert (ours - theirs).norm() / theirs.norm() < 0.1
    chosen, logits = greedy_decode(small, ids, 5, images)  # the same layers, driven by ourselves
    full = small(torch.cat([ids, chosen[:, :-1]], dim=1), pixel_values=images).logits[:, -5:]
    assert (logits.float() - full.float()).norm() / full.float().norm() < 0.05


def test_what_is_refused(tmp_path) -> None:
    model = random_model(debug_config(), CPU, torch.float32)
    with pytest.raises(UserError, match="expected none or int8"):
        quantize_model(model, "int4")  # type: ignore[arg-type]
    quantize_model(model, "none")
    assert all(type(m) is not Int8Linear for m in model.modules())
    with torch.device("meta"):
        elsewhere = OpenVLA(debug_config())
    with pytest.raises(UserError, match="for the CPU, not meta"):
        quantize_model(elsewhere, "int8")
    quantize_model(model, "int8")
    with pytest.raises(UserError, match="cannot be saved"):
        save_model(model, tmp_path)


def test_a_policy_is_loaded_with_int8_weights(tmp_path) -> None:
    folder = tiny_folder(tmp_path / "model")
    policy = OpenVLAPolicy.from_pretrained(folder, quantize="int8")
    layers = policy.pretrained.model.language_model.model.layers
    assert any(type(m) is Int8Linear for m in layers.modules())
    assert not any(type(m) is nn.Linear for m in layers.modules())
