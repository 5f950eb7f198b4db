"""Decoding gives what transformers' own generate loop gives, in every shape that it is used in."""

import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from invact_vla.core.schema import Observation
from invact_vla.openvla.bench.action import plain_generate
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.inference.policy import OpenVLAPolicy
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.random_model import random_model
from invact_vla.openvla.vision_backbones import embed_patches
from tests.openvla.small import debug_config, pixels, tiny_folder

CPU = torch.device("cpu")


def model_of(config: OpenVLAConfig, dtype: torch.dtype = torch.float32, **text: object) -> OpenVLA:
    text_config = replace(config.text_config, **text)  # type: ignore[arg-type]
    return random_model(replace(config, text_config=text_config), CPU, dtype, seed=3)


def prompts(count: int, length: int, seed: int = 0) -> Tensor:
    ids = torch.randint(3, 100, (count, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = 1
    return ids


@torch.inference_mode()
@pytest.mark.parametrize("constrained", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        {},
        {"num_key_value_heads": 1},
        {"attention_bias": True, "mlp_bias": True},
        {"head_dim": 16},
        {"rope_theta": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": 16},
    ],
    ids=lambda text: ",".join(text) or "plain",
)
def test_equals_generate(text: dict[str, object], constrained: bool) -> None:
    config = debug_config(constrain_actions=constrained)
    model = model_of(config, **text)
    generate = plain_generate(model)
    for seed in range(3):
        ids, images = prompts(1, 9, seed), pixels(1, config, seed)
        theirs = generate({"input_ids": ids, "pixel_values": images})
        ours, logits = greedy_decode(model, ids, 7, images, allowed=model.config.allowed_ids)
        assert torch.equal(ours, theirs)
        assert logits.shape == (1, 7, 256 if constrained else 448)


@torch.inference_mode()
@pytest.mark.parametrize("key_heads", [None, 1])
def test_a_batch_of_unequal_prompts_equals_full_passes(key_heads: int | None) -> None:
    """Also the logits, to 1e-5, at every step of every row."""
    config = debug_config()
    model = model_of(config, num_key_value_heads=key_heads)
    images, lengths = pixels(3, config), [11, 4, 8]
    ids = prompts(3, 11, seed=5)
    mask = (torch.arange(11) < torch.tensor(lengths)[:, None]).long()
    ids = ids.where(mask.bool(), torch.tensor(config.pad_token_id))
    ours, logits = greedy_decode(model, ids, 9, images, attention_mask=mask)
    for row, length in enumerate(lengths):
        sequence = ids[row : row + 1, :length]
        for step in range(9):
            full = model(sequence, pixel_values=images[row : row + 1]).logits[:, -1]
            torch.testing.assert_close(logits[row : row + 1, step], full, atol=1e-5, rtol=0)
            assert full.argmax() == ours[row, step]
            sequence = torch.cat([sequence, full.argmax(-1, keepdim=True)], dim=1)


@torch.inference_mode()
def test_allowed_ids_in_any_order_and_all_logits() -> None:
    config = debug_config()
    model = model_of(config)
    ids, images = prompts(2, 7), pixels(2, config)
    allowed = torch.tensor([400, 130, 250, 131])
    few_ids, few = greedy_decode(model, ids, 5, images, allowed=allowed)
    all_ids, every = greedy_decode(model, ids, 5, images, allowed=allowed, all_logits=True)
    assert torch.equal(few_ids, all_ids) and set(few_ids.flatten().tolist()) <= set(
        allowed.tolist()
    )
    torch.testing.assert_close(every[:, :, allowed], few, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="at least 1"):
        greedy_decode(model, ids, 0, images)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_decoding_is_as_near_to_fp32_as_a_full_pass(dtype: torch.dtype) -> None:
    config = debug_config()
    model = model_of(config, dtype)
    exact = model_of(config, dtype).float()
    for seed in range(4):
        ids, images = prompts(1, 9, seed), pixels(1, config, seed)
        chosen, logits = greedy_decode(model, ids, 7, images.to(dtype))
        sequence = torch.cat([ids, chosen[:, :-1]], dim=1)
        right = exact(sequence, pixel_values=images.to(dtype).float()).logits[:, -7:]
        full = model(sequence, pixel_values=images.to(dtype)).logits[:, -7:].float()
        assert (logits.float() - right).abs().mean() <= 1.5 * (full - right).abs().mean() + 1e-4


@torch.inference_mode()
def test_adapters_around_layers_and_the_head_are_run() -> None:
    class Around(torch.nn.Module):
        def __init__(self, base: torch.nn.Linear) -> None:
            super().__init__()
            self.base = base

        @property
        def weight(self) -> Tensor:
            return self.base.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + 0.3 * x.mean(-1, keepdim=True)

    config = debug_config()
    model = model_of(config)
    language = model.language_model
    language.lm_head = Around(language.lm_head)  # type: ignore[assignment]
    language.model.layers[0].mlp.gate_proj = Around(language.model.layers[0].mlp.gate_proj)
    language.model.layers[-1].self_attn.k_proj = Around(language.model.layers[-1].self_attn.k_proj)
    ids, images = prompts(2, 8), pixels(2, config)
    chosen, logits = greedy_decode(model, ids, 4, images, allowed=torch.arange(100, 448))
    full = model(torch.cat([ids, chosen[:, :-1]], dim=1), pixel_values=images).logits[:, -4:]
    torch.testing.assert_close(logits, full[:, :, 100:], atol=1e-5, rtol=0)


def test_no_warning_reaches_a_user(tmp_path, capfd) -> None:
    policy = OpenVLAPolicy.from_pretrained(tiny_folder(tmp_path / "model"))
    frame = torch.zeros(32, 32, 3, dtype=torch.uint8).numpy()
    texts = ["pick up the book", "close the drawer now please"]
    state = torch.zeros(8).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        policy.act_batch([Observation(frame, frame, state, text) for text in texts])
    said = capfd.readouterr()
    assert said.out == "" and said.err == ""


@pytest.mark.parametrize("tower", [0, 1])
def test_patches_as_a_matrix_product_equal_the_convolution(tower: int) -> None:
    model = model_of(debug_config())
    embed = model.vision_backbone.towers[tower].patch_embed
    images = pixels(3, model.config)[:, :3]
    with torch.no_grad():
        torch.testing.assert_close(embed_patches(embed, images), embed(images), atol=1e-5, rtol=0)
    assert embed_patches(embed, images).requires_grad
    with pytest.raises(AssertionError):
        embed_patches(embed, images[:, :, :-1])
