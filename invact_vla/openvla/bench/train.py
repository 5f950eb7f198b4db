"""`invact bench train`: time of a training step, beside a plain PyTorch loop over the same modules.

- plain: bf16 autocast, `scaled_dot_product_attention` in towers and language model and convolutions for
  patches, as timm and transformers choose, AdamW
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

from invact_vla.core.machine import device_name
from invact_vla.core.run_folder import save_result
from invact_vla.core.timing import Ratio, take_turns
from invact_vla.openvla import vision_backbones
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.config import OpenVLAConfig
from invact_vla.openvla.head_configs import OftHeadConfig
from invact_vla.openvla.model import OpenVLA, build_model
from invact_vla.training.device import resolve_device
from invact_vla.training.optimizers import build_optimizer

PLAIN, OURS = "plain", "ours"
PROMPT_IDS = 27  # length of a prompt


@dataclass(frozen=True, kw_only=True)
class BenchTrainConfig:
    """What to measure, and how often."""

    model: Path = Path("configs/vla/model_cpu.yaml")  # size
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
    batch_size: int = 32  # samples per step
    chunk: int = 8  # actions of a sample, a learned slot each
    rounds: int = 10  # steps of each side; one more warms up
    threads: int = 1  # torch threads
    seed: int = 0  # of weights and samples
    out: Path | None = None  # run folder for bench.json, every number

    def __post_init__(self) -> None:
        if min(self.batch_size, self.chunk, self.rounds, self.threads) < 1:
            raise ValueError("need batch_size, chunk, rounds, threads >= 1")


def main(config: BenchTrainConfig) -> int:
    """Measure and print; returns 0."""
    found = measure(config)
    faster = found["faster"]
    for name in (PLAIN, OURS):
        print(f"{name:6} {found['samples_per_s'][name]:8.1f} samples/s")
    print(
        f"ours is {faster['median']:.2f} [{faster['low']:.2f}, {faster['high']:.2f}] times faster; "
        f"losses differ by at most {found['loss_difference']:.1e}; {found['name']}"
    )
    if config.out is not None:
        save_result(config.out, config, "bench.json", found)
    return 0


def measure(config: BenchTrainConfig) -> dict[str, Any]:
    """All numbers, as they are written."""
    torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    model_config = with_head(load_model_config(config.model), config.chunk)
    ours = build_model(model_config, config.seed).to(device).train()
    plain = OpenVLA(model_config, "sdpa").to(device).train()
    plain.load_state_dict(copy.deepcopy(ours.state_dict()))
    batch = samples(model_config, config, device)
    losses: dict[str, list[float]] = {PLAIN: [], OURS: []}
    sides = {
        PLAIN: stepper(plain, batch, losses[PLAIN], _convolutions),
        OURS: stepper(ours, batch, losses[OURS], contextlib.nullcontext),
    }
    timings = take_turns(sides, config.rounds, device, "bench")
    clock = {name: timing.clock for name, timing in timings.items()}
    pairs = zip(losses[PLAIN], losses[OURS], strict=True)
    return {
        "model": str(config.model),
        "parameters": sum(p.numel() for p in ours.parameters()),
        "batch_size": config.batch_size,
        "rounds": config.rounds,
        "threads": config.threads,
        "name": device_name(device),
        "torch": torch.__version__,
        "seconds": clock,
        "samples_per_s": {n: config.batch_size / median(v) for n, v in clock.items()},
        "faster": asdict(Ratio.of(clock[OURS], clock[PLAIN])),
        "loss_difference": max(abs(a - b) for a, b in pairs),
    }


def with_head(config: OpenVLAConfig, chunk: int) -> OpenVLAConfig:
    """The model as the OFT recipe trains it."""
    head = OftHeadConfig(slots_per_action=1, learned_slots=True)
    own = replace(
        config.invact, head=head, chunk=chunk, proprio_dim=8, cameras=("agentview", "wrist")
    )
    return replace(config, invact=own)


def samples(
    config: OpenVLAConfig, bench: BenchTrainConfig, device: torch.device
) -> dict[str, Tensor]:
    """A batch of random samples: the model's keyword arguments."""
    rng = torch.Generator().manual_seed(bench.seed)
    count, length = bench.batch_size, PROMPT_IDS + config.slots + 1
    channels = 3 * config.n_towers * len(config.invact.cameras)
    size, own = config.image_size, config.invact
    ids = torch.randint(3, config.vocab_size, (count, length), generator=rng)
    ids[:, 0] = 1
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": torch.randn(count, channels, size, size, generator=rng),
        "proprio": torch.randn(count, own.proprio_dim, generator=rng),
        "slots": (PROMPT_IDS + torch.arange(config.slots)).repeat(count, 1),
        "actions": torch.rand(count, own.chunk, own.action_dim, generator=rng) * 2 - 1,
    }
    return {name: value.to(device) for name, value in batch.items()}


def stepper(
    model: OpenVLA, batch: dict[str, Tensor], losses: list[float], how: Callable[[], Any]
) -> Callable[[int], None]:
    """One optimizer step of a model; `how` gives the context that it runs in."""
    optimizer = build_optimizer(model, "adamw", 1e-3, 0.01, (0.9, 0.95))
    device = next(model.parameters()).device.type

    def step(number: int) -> None:
        with how(), torch.autocast(device, torch.bfloat16):
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
