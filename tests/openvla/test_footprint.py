"""Costs from shapes, held against what torch counts and keeps, and against published figures."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from invact_vla.openvla.adapters.adapter import attach
from invact_vla.openvla.adapters.lora import LoraConfig, find_targets
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.footprint import Compute, Footprint
from invact_vla.openvla.model import OpenVLA, build_model
from tests.openvla.small import debug_config, pixels
from tests.paths import REPOSITORY


def config_named(name: str) -> OpenVLAConfig:
    return load_model_config(REPOSITORY / f"configs/vla/model_{name}.yaml")


def training_forward(model: OpenVLA, count: int, length: int, targets: int, bf16: bool) -> None:
    config = model.config
    dtype = next(model.parameters()).dtype
    ids = torch.randint(3, 300, (count, length))
    labels = ids.clone()
    labels[:, : length - targets] = -100
    with torch.autocast("cpu", torch.bfloat16, bf16):
        out = model(ids, None, pixels(count, config).to(dtype), labels, labels_only=True)
    assert out.loss is not None and out.loss.isfinite()


def saved_bytes(model: OpenVLA, count: int, length: int, targets: int, bf16: bool) -> int:
    """Bytes of the different storages that autograd keeps, weights not counted."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        training_forward(model, count, length, targets, bf16)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("name", ["debug", "cpu"])
@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
@pytest.mark.parametrize("compute", ["fp32", "bf16", "autocast"])
def test_activations_are_those_that_autograd_keeps(
    name: str, compute: Compute, attention: str
) -> None:
    config = config_named(name)
    model = build_model(config, 0, attention)  # type: ignore[arg-type]
    if compute == "bf16":
        model.to(torch.bfloat16)
    # per sample: what stays, such as weights cast once, falls out of the difference
    sizes = [saved_bytes(model, n, 24, 8, compute == "autocast") for n in (2, 6)]
    measured = (sizes[1] - sizes[0]) / 4
    footprint = Footprint(config)
    ours = footprint.activation_bytes(
        footprint.sample(16, 8), compute, scores=attention == "matmul"
    )
    assert 0.8 < ours / measured < 1.25, (ours, measured)


@pytest.mark.parametrize("targets", ["sane", "published"])
def test_adapters_add_what_they_keep(targets: str) -> None:
    config = config_named("cpu")
    model = build_model(config, 0, "sdpa").to(torch.bfloat16)
    footprint = Footprint(config)
    names = find_targets(footprint.model, LoraConfig(targets=targets))  # type: ignore[arg-type]
    attach(model, LoraConfig(rank=4, targets=targets))  # type: ignore[arg-type]
    trained = sum(p.numel() for n, p in model.named_parameters() if ".lora_" in n)
    assert footprint.lora_parameters(4, names) == trained
    sizes = [saved_bytes(model, n, 24, 8, False) for n in (2, 6)]
    measured = (sizes[1] - sizes[0]) / 4
    sample = footprint.sample(16, 8)
    ours = footprint.activation_bytes(sample, "bf16") + footprint.lora_bytes(4, names, sample)
    assert 0.75 < ours / measured < 1.33, (ours, measured)


def test_checkpointing_keeps_less() -> None:
    footprint = Footprint(config_named("base"))
    sample = footprint.sample(32)
    whole = footprint.activation_bytes(sample, "bf16")
    assert footprint.activation_bytes(sample, "bf16", checkpointing=True) < 0.35 * whole


@pytest.mark.parametrize("name", ["debug", "cpu", "base"])
def test_flops_are_those_that_torch_counts(name: str) -> None:
    config = config_named(name)
    with torch.device("meta"):
        model = OpenVLA(config, "matmul")
    footprint = Footprint(config)
    sample = footprint.sample(16, 8)
    ids = torch.zeros(1, 24, dtype=torch.long, device="meta")
    images = torch.zeros(1, 6, config.image_size, config.image_size, device="meta")
    with FlopCounterMode(display=False) as counter:
        model(ids, None, images)  # the head over all places
    head = 2 * config.text_config.hidden_size * config.text_config.vocab_size
    expected = counter.get_total_flops() - head * (sample.length - sample.targets)
    assert abs(footprint.forward_flops(sample) / expected - 1) < 0.01


def test_the_published_size_costs_what_is_published() -> None:
    """Counts of openvla-7b; FLOP and bytes worked out by hand from its shapes."""
    footprint = Footprint(config_named("7b"))
    assert footprint.parameters == 7_541_237_184
    assert footprint.read_per_token == 6_476_005_376 + 32064 * 4096
    assert footprint.cache_bytes(1) == 524_288
    vision = footprint.vision_flops()
    for name, giga in (("tower0", 157.8), ("tower1", 210.9), ("projector", 36.5)):
        assert abs(vision[name] / 1e9 / giga - 1) < 0.01, name
    for prompt in (20, 35):
        flops, steps = footprint.decoding(footprint.sample(prompt, 8))
        assert steps == 6 and 4.0e12 < flops < 4.4e12
    from dataclasses import replace

    from invact_vla.openvla.config import OftHeadConfig

    config = config_named("7b")
    for cameras, proprio, low, high in ((1, 0, 4.8, 5.1), (2, 8, 8.7, 9.0)):
        own = replace(
            config.invact,
            head=OftHeadConfig(),
            chunk=8,
            cameras=("agentview", "wrist")[:cameras],
            proprio_dim=proprio,
        )
        flops, steps = (f := Footprint(replace(config, invact=own))).decoding(f.sample(30))
        assert steps == 0 and low < flops / 1e12 < high, flops


def test_samples_count_every_token() -> None:
    config = debug_config(chunk=3, proprio_dim=8, cameras=("agentview", "wrist"))
    sample = Footprint(config).sample(10)
    assert (sample.extra, sample.prompt, sample.targets) == (2 * 4 + 1, 10, 3 * 7 + 1)
    assert Footprint(debug_config()).sample(10, 5).length == 4 + 15
