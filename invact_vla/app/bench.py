"""`invact bench`: ratios measured side by side in one run. No figure here is a test.

- one training step of a small OpenVLA with each attention kernel, in bf16 and fp32
- greedy decoding of a chunk with the key-value cache against repeated full forward passes
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from invact_vla.openvla.attention import AttentionImpl
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.model import OpenVLA, build_model

TEXT_IDS = 88  # length of the text, targets included
ATTENTION: tuple[AttentionImpl, ...] = ("matmul", "sdpa")


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """What to measure, and how often."""

    model: Path = Path("configs/vla/model_cpu.yaml")  # size
    batch_size: int = 32  # of the training step
    tokens: int = 56  # ids to decode
    repeats: int = 5  # of each measurement; the median counts


def main(config: BenchConfig) -> int:
    """Measure and print; returns 0."""
    torch.set_num_threads(1)
    model_config = load_model_config(config.model)
    model_config = replace(model_config, invact=replace(model_config.invact, proprio_dim=0))
    for dtype in (torch.bfloat16, torch.float32):
        seconds = {
            kind: median_s(training_step(build_model(model_config, 0, kind), config, dtype), config)
            for kind in ATTENTION
        }
        report(f"training step, {str(dtype).removeprefix('torch.')}", seconds)
    model = build_model(model_config, 0).eval()
    cached, repeated = decoders(model, config)
    seconds = {"cached": median_s(cached, config), "full passes": median_s(repeated, config)}
    report(f"decoding {config.tokens} ids", seconds)
    return 0


def training_step(model: OpenVLA, config: BenchConfig, dtype: torch.dtype) -> Callable[[], None]:
    """One forward and backward pass over random input."""
    ids, pixels = inputs(model, config.batch_size, TEXT_IDS)
    model.train()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, dtype == torch.bfloat16):
            loss = model(ids, pixel_values=pixels, labels=ids, labels_only=True).loss
        loss.backward()
        model.zero_grad()

    return step


def decoders(model: OpenVLA, config: BenchConfig) -> tuple[Callable[[], None], Callable[[], None]]:
    """The same ids, with and without a key-value cache."""
    ids, pixels = inputs(model, 1, TEXT_IDS - config.tokens)

    def cached() -> None:
        greedy_decode(model, ids, config.tokens, pixels)

    @torch.no_grad()
    def repeated() -> None:
        sequence = ids
        for _ in range(config.tokens):
            logits = model(sequence, pixel_values=pixels, last_only=True).logits
            sequence = torch.cat([sequence, logits[:, -1:].argmax(-1)], dim=1)

    return cached, repeated


def inputs(model: OpenVLA, batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids and images."""
    generator = torch.Generator().manual_seed(0)
    size, channels = model.config.image_size, 3 * model.config.n_towers
    ids = torch.randint(3, model.config.vocab_size, (batch, length), generator=generator)
    return ids, torch.randn(batch, channels, size, size, generator=generator)


def median_s(action: Callable[[], None], config: BenchConfig) -> float:
    """Median seconds of an action, after one warm-up."""
    action()
    seconds = []
    for _ in range(config.repeats):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)[len(seconds) // 2]


def report(what: str, seconds: dict[str, float]) -> None:
    """One line: each figure, and the ratio of the second to the first."""
    first, second = seconds.values()
    figures = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
    print(f"{what}: {figures}; ratio {second / first:.2f}")
