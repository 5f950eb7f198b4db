"""`invact bench`: ratios measured side by side in one run. No figure here is a test.

- one training step of a small OpenVLA with each attention kernel, in bf16 and fp32
- greedy decoding of a chunk with the key-value cache against repeated full forward passes
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from invact_vla.core.machine import multiplies_bf16
from invact_vla.core.timing import take_turns
from invact_vla.openvla.attention import AttentionImpl
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.model import OpenVLA, build_model
from invact_vla.openvla.random_model import random_inputs

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
    size = load_model_config(config.model)
    size = replace(size, invact=replace(size.invact, proprio_dim=0))
    for dtype in (torch.bfloat16, torch.float32):
        if dtype == torch.bfloat16 and not multiplies_bf16("cpu"):
            print("training step, bfloat16: left out, this CPU has no such products")
            continue
        steps = {
            kind: training_step(build_model(size, 0, kind), config.batch_size, dtype)
            for kind in ATTENTION
        }
        compare(f"training step, {str(dtype).removeprefix('torch.')}", steps, config.repeats)
    decoding = decoders(build_model(size, 0).eval(), config.tokens)
    compare(f"decoding {config.tokens} ids", decoding, config.repeats)
    return 0


def training_step(model: OpenVLA, batch_size: int, dtype: torch.dtype) -> Callable[[int], None]:
    """One forward and backward pass over random input."""
    inputs = random_inputs(model.train(), batch_size, TEXT_IDS)

    def step(number: int) -> None:
        with torch.autocast("cpu", torch.bfloat16, dtype == torch.bfloat16):
            loss = model(**inputs, labels=inputs["input_ids"], labels_only=True).loss
        loss.backward()
        model.zero_grad()

    return step


def decoders(model: OpenVLA, count: int) -> dict[str, Callable[[int], object]]:
    """The same ids, with and without a key-value cache."""
    inputs: dict[str, Any] = random_inputs(model, 1, TEXT_IDS - count)

    @torch.no_grad()
    def repeated(number: int) -> None:
        ids = inputs["input_ids"]
        for _ in range(count):
            logits = model(**{**inputs, "input_ids": ids}, last_only=True).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)

    cached = lambda number: greedy_decode(model, n_tokens=count, **inputs)
    return {"cached": cached, "full passes": repeated}


def compare(what: str, sides: Mapping[str, Callable[[int], object]], rounds: int) -> None:
    """Print one line: each figure, and the ratio of the second to the first."""
    timings = take_turns(sides, rounds, torch.device("cpu"), what)
    first, second = seconds = [median(timing.clock) for timing in timings.values()]
    figures = [f"{name} {1000 * s:.1f} ms" for name, s in zip(sides, seconds, strict=True)]
    print(f"{what}: {', '.join(figures)}; ratio {second / first:.2f}")
