"""`invact bench train`: time of a training step, beside a plain PyTorch loop over the same modules.

- plain: bf16 autocast (fp32 on a CPU without such products), `scaled_dot_product_attention` in towers
  and language model and convolutions for patches, as timm and transformers choose, AdamW
- ours: the same weights and batch, with the attention and patch embedding that this package chooses

Both run OFT's head on random pictures; the sides take turns, so that the load of the machine hits both,
and their losses are compared.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from invact_vla.core.machine import device_name, multiplies_bf16
from invact_vla.core.run_folder import save_result
from invact_vla.core.timing import Ratio, take_turns
from invact_vla.openvla import vision_backbones
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.config import OftHeadConfig, OpenVLAConfig
from invact_vla.openvla.model import OpenVLA, build_model
from invact_vla.openvla.random_model import random_inputs
from invact_vla.training.device import place, resolve_device
from invact_vla.training.optimizers import build_optimizer

PLAIN, OURS = "plain", "ours"
PROMPT_IDS, THREADS = 27, 1  # length of a prompt; torch threads


@dataclass(frozen=True, kw_only=True)
class BenchTrainConfig:
    """What to measure, and how often."""

    model: Path = Path("configs/vla/model_cpu.yaml")  # size
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
    batch_size: int = 32  # samples per step
    chunk: int = 8  # actions of a sample, a learned slot each
    rounds: int = 10  # steps of each side; one more warms up
    seed: int = 0  # of weights and samples
    out: Path | None = None  # run folder for bench.json, every number

    def __post_init__(self) -> None:
        if min(self.batch_size, self.chunk, self.rounds) < 1:
            raise ValueError("need batch_size, chunk, rounds >= 1")


def main(config: BenchTrainConfig) -> int:
    """Measure and print; returns 0."""
    found = measure(config)
    faster = found["faster"]
    for name in (PLAIN, OURS):
        print(f"{name:6} {found['samples_per_s'][name]:8.1f} samples/s")
    print(
        f"ours is {faster['median']:.2f} [{faster['low']:.2f}, {faster['high']:.2f}] times faster; "
        f"losses differ by at most {found['loss_difference']:.1e}; {found['precision']}, {found['name']}"
    )
    if config.out is not None:
        save_result(config.out, config, "bench.json", found)
    return 0


def measure(config: BenchTrainConfig) -> dict[str, Any]:
    """All numbers, as they are written."""
    torch.set_num_threads(THREADS)
    device = resolve_device(config.device)
    model_config = with_head(load_model_config(config.model), config.chunk)
    ours = build_model(model_config, config.seed).to(device).train()
    plain = OpenVLA(model_config, "sdpa").to(device).train()
    plain.load_state_dict(copy.deepcopy(ours.state_dict()))
    batch = samples(ours, config)
    losses: dict[str, list[float]] = {PLAIN: [], OURS: []}
    sides = {
        PLAIN: stepper(plain, batch, losses[PLAIN], _convolutions),
        OURS: stepper(ours, batch, losses[OURS], contextlib.nullcontext),
    }
    timings = take_turns(sides, config.rounds, device, "bench")
    clock = {name: timing.clock for name, timing in timings.items()}
    pairs = zip(losses[PLAIN], losses[OURS], strict=True)
    precision = "bf16" if multiplies_bf16(device.type) else "fp32"
    return {
        "model": str(config.model), "parameters": sum(p.numel() for p in ours.parameters()),
        "batch_size": config.batch_size, "rounds": config.rounds, "threads": THREADS,
        "name": device_name(device), "precision": precision,
        "torch": torch.__version__, "seconds": clock,
        "samples_per_s": {n: config.batch_size / median(v) for n, v in clock.items()},
        "faster": asdict(Ratio.of(clock[OURS], clock[PLAIN])),
        "loss_difference": max(abs(a - b) for a, b in pairs),
    }  # fmt: skip


def with_head(config: OpenVLAConfig, chunk: int) -> OpenVLAConfig:
    """The model as the OFT recipe trains it."""
    head, cameras = OftHeadConfig(slots_per_action=1, learned_slots=True), ("agentview", "wrist")
    own = replace(config.invact, head=head, chunk=chunk, proprio_dim=8, cameras=cameras)
    return replace(config, invact=own)


def samples(model: OpenVLA, config: BenchTrainConfig) -> dict[str, Tensor]:
    """A batch of random samples: the model's keyword arguments."""
    own, slots, count = model.config.invact, model.config.slots, config.batch_size
    batch = random_inputs(model, count, PROMPT_IDS + slots + 1, config.seed)
    rng = torch.Generator().manual_seed(config.seed)
    actions = torch.rand(count, own.chunk, own.action_dim, generator=rng) * 2 - 1
    places = (PROMPT_IDS + torch.arange(slots)).repeat(count, 1)
    mask = torch.ones_like(batch["input_ids"])
    more = place({"attention_mask": mask, "slots": places, "actions": actions}, model.device)
    return batch | more


def stepper(
    model: OpenVLA, batch: dict[str, Tensor], losses: list[float], how: Callable[[], Any]
) -> Callable[[int], None]:
    """One optimizer step of a model; `how` gives the context that it runs in."""
    optimizer = build_optimizer(model, "adamw", 1e-3, 0.01, (0.9, 0.95))
    device = next(model.parameters()).device.type

    def step(number: int) -> None:
        with how(), torch.autocast(device, torch.bfloat16, multiplies_bf16(device)):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())

    return step


@contextlib.contextmanager
def _convolutions() -> Iterator[None]:
    """Patches are embedded as timm does it."""
    with mock.patch.object(vision_backbones, "embed_patches", lambda embed, images: embed(images)):
        yield
