"""`invact bench encoder`: what token commitment costs, and how fast clips are embedded, side by side.

- training: forward and backward of an InvAct encoder beside a plain ViT of the same depth, width
  and tokens, in fp32 and bf16, with the attention kernel that is faster for the plain ViT
- embedding: clips per second beside the class of V-JEPA 2 (transformers) at equal size, random
  weights, in fp32 and bf16; the action token has as many patches as in a trained encoder, since
  routed once only those are worked on further

The sides take turns (core/timing.py); ratios are medians over rounds, with their 95 % intervals.
Processor time is given beside the clock: of one thread, it depends least on what else runs.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from invact_vla.core.machine import multiplies_bf16
from invact_vla.core.run_folder import save_result
from invact_vla.core.timing import Ratio, Timing, take_turns
from invact_vla.training.device import Precision
from latent_actions.encoder.attention import Kernel
from latent_actions.encoder.commit import CommitBlock, CommitConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inference import before_commitment
from latent_actions.encoder.inputs.streams import planes
from latent_actions.encoder.routing import Routing

logger = logging.getLogger(__name__)
KERNELS: dict[Precision, Kernel] = {"fp32": "sdpa", "bf16": "matmul"}  # the faster one on a CPU
REFERENCE = "V-JEPA 2 class"
CPU = torch.device("cpu")
Step = Callable[[int], object]


@dataclass(frozen=True, kw_only=True)
class BenchEncoderConfig:
    """What to measure, and how often."""

    train: EncoderConfig = field(default_factory=EncoderConfig)  # size of the training step
    embed: EncoderConfig = field(default_factory=EncoderConfig)  # size of the embedding
    batch_size: int = 1  # clips of a training step
    embed_batch: int = 64  # clips of an embedding call
    # of all patches in the embedding, what the action token has: 0.3 is a trained encoder's part
    action_fraction: float = 0.3
    repeats: int = 5  # rounds; the median counts
    out: Path | None = None  # run folder for bench.json, every number

    def __post_init__(self) -> None:
        if min(self.batch_size, self.embed_batch, self.repeats) < 1:
            raise ValueError("batch sizes and repeats must be at least 1")
        if not 0 < self.action_fraction < 1:
            raise ValueError(f"action_fraction must be in (0, 1), got {self.action_fraction}")
        if "none" in (self.train.commit.estimator, self.embed.commit.estimator):
            raise ValueError("estimator none has no commitment whose cost could be measured")


def main(config: BenchEncoderConfig) -> int:
    """Measure and print; returns 0."""
    torch.set_num_threads(1)
    before = os.getloadavg()[0]
    found = {name: measure_training(config, name) for name in measured()}
    speed = measure_embedding(config)
    load = [before, os.getloadavg()[0]]
    print("\n".join([*report_training(config, found), *report_embedding(config, speed)]))
    print(f"load average {load[0]:.1f} before, {load[1]:.1f} after; {config.repeats} rounds")
    if config.out is not None:
        parts = {**found, "embedding": speed}
        plain = {n: {side: asdict(t) for side, t in sides.items()} for n, sides in parts.items()}
        numbers = {"load": load, "embedding": plain.pop("embedding"), "training": plain}
        save_result(config.out, config, "bench.json", numbers)
    return 0


def measured() -> list[Precision]:
    """fp32, and bf16 if this CPU has its products."""
    if multiplies_bf16("cpu"):
        return ["fp32", "bf16"]
    logger.warning("this CPU has no bfloat16 products: bf16 is left out")
    return ["fp32"]


def measure_training(config: BenchEncoderConfig, precision: Precision) -> dict[str, Timing]:
    """Forward and backward: a plain ViT, InvAct with hard routing as it comes, InvAct with all
    patches in one group (the most expensive case), and InvAct with soft routing, as at first.
    """
    shape = replace(config.train, kernel=KERNELS[precision])
    plain = replace(shape, commit=CommitConfig(estimator="none", registers=0))
    hard = Routing(noise=True)
    sides = {
        "plain ViT": (_encoder(plain), Routing()),
        "InvAct": (_encoder(shape), hard),
        "InvAct, one group has all": (_encoder(shape, collapsed=True), hard),
        "InvAct, soft routing": (_encoder(shape), Routing(hard=False)),
    }
    steps: dict[str, Step] = {
        name: training_step(encoder, config, routing, precision)
        for name, (encoder, routing) in sides.items()
    }
    return take_turns(steps, config.repeats, CPU, f"train {precision}")


def training_step(
    encoder: InvActEncoder, config: BenchEncoderConfig, routing: Routing, precision: Precision
) -> Step:
    """Forward and backward over random clips."""
    frames = torch.from_numpy(_clips(config.train, config.batch_size))

    def step(number: int) -> None:
        encoder.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            encoded = encoder(frames, routing)
        encoded.embedding.sum().backward()

    return step


def measure_embedding(config: BenchEncoderConfig) -> dict[str, Timing]:
    """Embedding of the same uint8 clips by V-JEPA 2's class, by InvAct, and by InvAct with the stem
    and the one stream that V-JEPA 2 has.
    """
    frames = _clips(config.embed, config.embed_batch)
    alike = replace(config.embed, stem="linear", streams=("rgb",))
    steps: dict[str, Step] = {}
    for precision in measured():
        steps[f"{precision} {REFERENCE}"] = vjepa2(config.embed, precision, frames)
        shapes = {"InvAct": config.embed, "InvAct, linear stem of rgb": alike}
        for name, shape in shapes.items():
            encoder = _encoder(shape).eval()
            give_action(encoder, frames, config.action_fraction)
            steps[f"{precision} {name}"] = embedding_step(encoder, precision, frames)
    return take_turns(steps, config.repeats, CPU, "embed")


@torch.no_grad()
def give_action(encoder: InvActEncoder, frames: np.ndarray, share: float) -> None:
    """Set the router's bias so that of all patches of some clips, uint8 (N, T, H, W, 3), the action
    token gets `share`."""
    if not encoder.config.commit.registers:
        return
    block = cast(CommitBlock, encoder.commit_blocks[0])
    logits = block.router_logits(*before_commitment(encoder, torch.from_numpy(frames)))
    lead = logits[..., 1:].amax(dim=-1) - logits[..., 0]
    bias = lead.flatten()[: 1 << 20].quantile(share)  # of a million patches at most
    block.action_bias.add_(bias)


def embedding_step(encoder: InvActEncoder, precision: Precision, frames: np.ndarray) -> Step:
    """Embedding of clips uint8 (N, T, H, W, 3) in one batch: float32 (N, D)."""

    def step(number: int) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            return encoder.embed(frames, len(frames))

    return step


def vjepa2(shape: EncoderConfig, precision: Precision, frames: np.ndarray) -> Step:
    """Mean tokens (N, d) of clips uint8 (N, T, H, W, 3) by V-JEPA 2's encoder with random weights and
    this depth, width and token grid.
    """
    from transformers import VJEPA2Config, VJEPA2Model

    config = VJEPA2Config(
        patch_size=shape.patch, crop_size=shape.size, frames_per_clip=shape.frames,
        tubelet_size=shape.tubelet, hidden_size=shape.width, num_attention_heads=shape.heads,
        num_hidden_layers=shape.depth, mlp_ratio=shape.mlp_ratio, pred_hidden_size=shape.width,
        pred_num_attention_heads=shape.heads, pred_num_hidden_layers=1,
    )  # fmt: skip
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = VJEPA2Model(config).eval()
    nn.Module.to(model, dtype)

    @torch.inference_mode()
    def step(number: int) -> Tensor:
        video = planes(torch.from_numpy(frames)).movedim(-1, 2).to(dtype) / 255
        return model.get_vision_features(video).mean(dim=1)

    return step


def report_training(
    config: BenchEncoderConfig, found: Mapping[str, dict[str, Timing]]
) -> list[str]:
    """Lines of the training part."""
    c = config.train
    tokens = (c.frames // c.tubelet) * (c.size // c.patch) ** 2
    lines = [
        f"forward and backward, {config.batch_size} clip(s) of {tokens} tokens, {c.depth} blocks of "
        f"width {c.width}, commit blocks from {c.commit.start}, one thread",
        f"{'':34s}{'ms':>9s}{'CPU ms':>9s}  x plain ViT",
    ]
    for precision, sides in found.items():
        for name, timing in sides.items():
            times = 1000 * median(timing.clock), 1000 * median(timing.processor)
            cells = f"{times[0]:9.0f}{times[1]:9.0f}  {_ratios(sides['plain ViT'], timing)}"
            lines.append(f"{precision + ' ' + name:34s}{cells}")
    return lines


def report_embedding(config: BenchEncoderConfig, found: dict[str, Timing]) -> list[str]:
    """Lines of the embedding part."""
    c = config.embed
    lines = [
        f"embedding, {config.embed_batch} clips of {c.size} px, {c.depth} blocks of width {c.width}, "
        "one thread",
        f"{'':34s}{'clips/s':>9s}  x {REFERENCE}",
    ]
    for name, timing in found.items():
        reference = found[f"{name.split()[0]} {REFERENCE}"]
        speed = config.embed_batch / median(timing.clock)
        lines.append(f"{name:34s}{speed:9.0f}  {_ratios(timing, reference)}")
    return lines


def _ratios(side: Timing, other: Timing) -> str:
    """How many times the side's seconds the other takes, by the clock and by processor time."""
    found = Ratio.of(side.clock, other.clock), Ratio.of(side.processor, other.processor)
    return ", CPU ".join(f"{r.median:.2f} [{r.low:.2f}, {r.high:.2f}]" for r in found)


def _encoder(config: EncoderConfig, collapsed: bool = False) -> InvActEncoder:
    """Random weights; collapsed: every patch goes to the action token."""
    torch.manual_seed(0)
    encoder = InvActEncoder(config)
    if collapsed:
        with torch.no_grad():
            for name, parameter in encoder.named_parameters():
                if name.endswith("action_bias"):
                    parameter.fill_(1e4)
    return encoder


def _clips(config: EncoderConfig, count: int) -> np.ndarray:
    """Random clips, uint8 (count, T, H, W, 3)."""
    shape = (count, config.frames, config.size, config.size, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
