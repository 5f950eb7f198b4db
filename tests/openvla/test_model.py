"""What must hold for every OpenVLA, on tiny random weights."""

import copy
from dataclasses import replace

import pytest
import torch
from transformers import LlamaForCausalLM

from invact_vla.core.errors import UserError
from invact_vla.openvla.checkpoints.config_file import config_from_json, load_model_config
from invact_vla.openvla.config import OpenVLAConfig, llama_config
from invact_vla.openvla.heads.tokens import TokensHead
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.model import IGNORED, OpenVLA, build_model
from tests.openvla.small import debug_config, pixels, tiny
from tests.paths import REPOSITORY


@pytest.fixture(scope="module")
def model() -> OpenVLA:
    return tiny().model


def ids_of(count: int, length: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 100, (count, length), generator=generator)
    ids[:, 0] = 1
    return ids


def stock_logits(model: OpenVLA, ids: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The same numbers from stock timm and transformers parts, put together anew."""
    features = []
    for tower, part in zip(model.vision_backbone.towers, images.split(3, dim=1), strict=True):
        last = len(tower.blocks) - 2
        features.append(tower.get_intermediate_layers(part, n=[last])[0])
    patches = model.projector(torch.cat(features, dim=2))
    config = copy.deepcopy(model.language_model.config)
    config._attn_implementation = "eager"
    stock = LlamaForCausalLM(config).eval()
    stock.load_state_dict(model.language_model.state_dict())
    embedded = stock.model.embed_tokens(ids)
    embedded = torch.cat([embedded[:, :1], patches, embedded[:, 1:]], dim=1)
    return stock(inputs_embeds=embedded).logits


@torch.inference_mode()
@pytest.mark.parametrize("fused", [True, False])
def test_equals_stock_parts(fused: bool) -> None:
    config = debug_config()
    if not fused:
        config = replace(config, use_fused_vision_backbone=False, towers=config.towers[1:])
    text = replace(config.text_config, num_key_value_heads=1)
    model = build_model(replace(config, text_config=text), 3).eval()
    ids, images = ids_of(2, 9), pixels(2, config)
    assert hasattr(model.projector, "fc3") == fused
    torch.testing.assert_close(
        model(ids, pixel_values=images).logits, stock_logits(model, ids, images), atol=1e-5, rtol=0
    )


@torch.inference_mode()
def test_attention_choices_agree() -> None:
    config, ids = debug_config(), ids_of(2, 9)
    outputs = [
        build_model(config, 0, a).eval()(ids, pixel_values=pixels(2, config)).logits
        for a in ("sdpa", "matmul", "auto")
    ]
    for other in outputs[1:]:
        torch.testing.assert_close(outputs[0], other, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_black_and_white_images_differ(model: OpenVLA) -> None:
    """The image reaches the logits, in a plain pass and in cached decoding."""
    ids, black = ids_of(1, 8), -torch.ones_like(pixels(1, model.config))
    _, dark = greedy_decode(model, ids, 3, black)
    _, light = greedy_decode(model, ids, 3, -black)
    assert (dark[:, 0] - light[:, 0]).abs().max() > 1e-3
    plain = model(ids, pixel_values=black).logits - model(ids, pixel_values=-black).logits
    assert plain[:, -1].abs().max() > 1e-3


@torch.inference_mode()
def test_batch_of_two_equals_two_singles(model: OpenVLA) -> None:
    ids, images = ids_of(2, 8), pixels(2, model.config)
    both_ids, both = greedy_decode(model, ids, 7, images)
    for i in range(2):
        one_ids, one = greedy_decode(model, ids[i : i + 1], 7, images[i : i + 1])
        assert torch.equal(both_ids[i : i + 1], one_ids)
        torch.testing.assert_close(both[i : i + 1], one, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_cached_greedy_equals_full_passes(model: OpenVLA) -> None:
    ids, images = ids_of(2, 8, seed=4), pixels(2, model.config)
    cached, logits = greedy_decode(model, ids, 7, images)
    full = ids
    for step in range(7):
        last = model(full, pixel_values=images).logits[:, -1]
        torch.testing.assert_close(logits[:, step], last, atol=1e-5, rtol=0)
        full = torch.cat([full, last.argmax(-1, keepdim=True)], dim=1)
    assert torch.equal(full[:, 8:], cached)


@torch.inference_mode()
def test_allowed_ids_constrain_the_choice(model: OpenVLA) -> None:
    allowed = torch.arange(128, 384)
    ids, _ = greedy_decode(model, ids_of(3, 6), 7, pixels(3, model.config), allowed=allowed)
    assert ids.min() >= 128 and ids.max() < 384


@torch.inference_mode()
def test_padding_changes_nothing(model: OpenVLA) -> None:
    ids, images = ids_of(2, 8), pixels(2, model.config)
    padded = torch.cat([ids, ids.new_full((2, 5), model.config.pad_token_id)], dim=1)
    mask = (padded != model.config.pad_token_id).long()
    labels = padded.where(mask.bool(), torch.tensor(IGNORED))
    short = model(ids, torch.ones_like(ids), images, ids)
    long = model(padded, mask, images, labels)
    torch.testing.assert_close(long.logits[:, :-5], short.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(long.loss, short.loss)


@torch.inference_mode()
def test_loss_over_labels_alone_is_the_same(model: OpenVLA) -> None:
    ids, images = ids_of(3, 10), pixels(3, model.config)
    labels = ids.clone()
    labels[:, :6] = IGNORED
    full = model(ids, None, images, labels)
    few = model(ids, None, images, labels, labels_only=True)
    torch.testing.assert_close(full.loss, few.loss)
    assert few.logits.shape[0] == few.targets.numel() == 12


@torch.inference_mode()
def test_text_only_batch_and_unequal_counts(model: OpenVLA) -> None:
    assert model(ids_of(2, 6)).logits.shape == (2, 6, 448)
    with pytest.raises(ValueError, match="1 images for 2 texts"):
        model(ids_of(2, 6), pixel_values=pixels(1, model.config))
    with pytest.raises(ValueError, match="pixel_values"):
        model(ids_of(2, 6), pixel_values=torch.zeros(2, 3, 32, 32))


def test_parameters_that_are_never_run_have_no_gradient(model: OpenVLA) -> None:
    tower = model.vision_backbone.featurizer
    assert not any(p.requires_grad for p in tower.blocks[-1].parameters())
    ids, config = ids_of(2, 10), model.config
    with torch.enable_grad():
        model(ids, None, pixels(2, config), ids, labels_only=True).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    model.zero_grad(set_to_none=True)


@torch.inference_mode()
def test_two_cameras_and_state() -> None:
    config = debug_config(cameras=("agentview", "wrist"), proprio_dim=8)
    model = build_model(config, 0).eval()
    ids, images, state = ids_of(2, 6), pixels(2, config), torch.randn(2, 8)
    assert model.vision_features(images).shape == (2, 2 * 4, 32)
    out = model(ids, pixel_values=images, proprio=state).logits
    assert out.shape[1] == 6 + 2 * 4 + 1
    moved = model(ids, pixel_values=images, proprio=-state).logits
    assert (out[:, -1] - moved[:, -1]).abs().max() > 1e-6
    with pytest.raises(ValueError, match="state token"):
        model(ids, pixel_values=images)


def test_metrics_name_what_the_batch_has(model: OpenVLA) -> None:
    ids, config = ids_of(2, 12), model.config
    ids[:, -3:] = 300
    labels = torch.full_like(ids, IGNORED)
    labels[:, -3:] = 300
    batch = {"input_ids": ids, "labels": labels, "pixel_values": pixels(2, config)}
    loss, metrics = TokensHead(config, tiny().sequences).loss(model, batch)
    assert loss.requires_grad and set(metrics) == {"action_accuracy", "action_l1"}


def test_an_empty_text_config_means_the_published_llama() -> None:
    value = {
        "text_config": {"model_type": "llama", "vocab_size": 32064},
        "timm_model_ids": ["a", "b"],
    }
    text = config_from_json(value, "config.json").text_config
    assert text == llama_config()
    assert (text.rms_norm_eps, text.max_position_embeddings) == (1e-6, 2048)


@pytest.mark.parametrize("size", ["debug", "cpu", "base"])
def test_sizes_leave_room_for_latent_tokens(size: str) -> None:
    config = load_model_config(REPOSITORY / f"configs/vla/model_{size}.yaml")
    assert config.text_config.vocab_size - config.first_free_row >= 16
    assert config.pad_token_id == config.vocab_size


def test_unknown_tower_is_a_user_error() -> None:
    config = OpenVLAConfig(timm_model_ids=("vit_nowhere", "vit_small_patch16_224"))
    with pytest.raises(UserError, match="vit_nowhere"):
        OpenVLA(config)
