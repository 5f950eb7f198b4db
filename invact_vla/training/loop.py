"""The one training loop. It knows a loss function and a batch function, and nothing of models.

Everything is a pure function of (seed, step): `batch_at(step)` gives the batch, torch is re-seeded
with (seed, step) before each step, and the learning rate is computed from the step. So a run that is
killed and started again ends with the same weights, bit for bit, on the same machine and threads.

With several processes (`accelerate launch`, DDP or FSDP) each takes its part of the batch, gradients
are averaged, and rank 0 alone writes.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from invact_vla.errors import UserError
from invact_vla.training.checkpoint import TrainState
from invact_vla.training.device import Device, place, resolve_device
from invact_vla.training.distributed import is_main, mean_over_processes, part
from invact_vla.training.files import atomic_file
from invact_vla.training.optimizers import build_optimizer

LossFn = Callable[[nn.Module, Any, int], tuple[Tensor, Mapping[str, float | Tensor]]]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast to train."""

    steps: int  # optimiser steps
    batch_size: int  # items per step, over all processes
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for matrices, with AdamW for the rest
    learning_rate: float = 1e-3  # peak rate
    warmup_steps: int = 0  # linear warm-up from 0
    schedule: Literal["cosine", "constant"] = "cosine"  # decay after the warm-up (cosine ends at 0)
    weight_decay: float = 0.05  # for matrices only; none on norms, biases and tokens
    beta1: float = 0.9  # AdamW
    beta2: float = 0.95  # AdamW
    gradient_clip: float = 1.0  # largest gradient norm
    precision: Literal["fp32", "bf16"] = "fp32"  # autocast of the forward pass
    ema: float = 0.0  # decay of the averaged weights that are kept at the end; 0 = off
    checkpoint_every: int = 200  # steps between resume points
    log_every: int = 10  # steps between rows of metrics.jsonl
    seed: int = 0  # with the step, decides all randomness; a run puts its own seed here
    threads: int = 1  # torch threads; the result is exact for a fixed number

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "log_every", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0 or not 0 <= self.ema < 1:
            raise ValueError("learning_rate must be positive and ema in [0, 1)")
        if self.checkpoint_every % self.log_every:
            raise ValueError("checkpoint_every must be a multiple of log_every")


def learning_rate_at(config: LoopConfig, step: int) -> float:
    """The rate of step 0, 1, ...: linear warm-up, then constant or cosine to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def fit(
    model: nn.Module,
    loss_fn: LossFn,
    batch_at: Callable[[int], Any],
    config: LoopConfig,
    folder: Path,
    after_step: Callable[[nn.Module, int, dict[str, float]], None] | None = None,
    description: str = "train",
    device: Device = "auto",
) -> nn.Module:
    """Train `model` in place and return it; resumes from `folder`/checkpoint when there is one.

    device: where; the model is moved there and stays, batches follow (tensors, in containers, or
    anything with `to`; arrays do not).

    loss_fn(model, batch, step) -> (loss, metrics); with several processes `batch_at` gives this
    process's part. after_step(model, step, metrics) may change buffers or raise UserError (collapse).
    Rows of metrics go to `folder`/metrics.jsonl. A loss or gradient that is not finite is a UserError
    naming the step and the figures that broke; the last checkpoint stays.
    """
    torch.set_num_threads(config.threads)
    accelerator = _accelerator(resolve_device(device))
    optimizer = build_optimizer(
        model,
        config.optimizer,
        config.learning_rate,
        config.weight_decay,
        (config.beta1, config.beta2),
    )
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    state = TrainState(model, optimizer, config.ema)
    first = state.load(folder / "checkpoint")
    log = _Log(folder / "metrics.jsonl", first, config)
    wrapped.train()
    steps = range(first, config.steps)
    bar = tqdm(
        steps, description, config.steps, initial=first, mininterval=5, disable=not is_main()
    )
    for step in bar:
        torch.manual_seed((config.seed << 32) + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(config, step)
        batch = place(batch_at(step), accelerator.device)
        with torch.autocast(accelerator.device.type, torch.bfloat16, config.precision == "bf16"):
            loss, metrics = loss_fn(wrapped, batch, step)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(wrapped.parameters(), config.gradient_clip)
        _check_finite({"loss": loss, "gradient_norm": norm, **metrics}, step, first, config, folder)
        optimizer.step()
        optimizer.zero_grad()
        state.average(step)
        row = log.add(step, loss, norm, metrics)
        if row:
            bar.set_postfix(loss=f"{row['loss']:.4f}")
        if after_step is not None:
            after_step(model, step, row)
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            state.save(folder / "checkpoint", step + 1)
    state.use_average()
    model.eval()
    return model


def _accelerator(device: torch.device):
    """accelerate's engine on `device`; in a group of processes each has the device that `join` chose."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, patch_environment

    # a schedule may leave parameters unused, such as the later routers of commit.schedule once
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    cpu = device.type == "cpu"
    if part().count > 1:
        return Accelerator(cpu=cpu, kwargs_handlers=[unused])
    # the state is global: a stage on another device may have run in this process before
    AcceleratorState._reset_state(reset_partial_state=True)
    with patch_environment(ACCELERATE_TORCH_DEVICE=device):
        return Accelerator(cpu=cpu, kwargs_handlers=[unused])


def _check_finite(
    values: Mapping[str, Any], step: int, first: int, config: LoopConfig, folder: Path
) -> None:
    """UserError that names the step, the figures that are not finite, and what to try."""
    if all(math.isfinite(_number(values[name])) for name in ("loss", "gradient_norm")):
        return
    broken = [name for name, value in values.items() if not math.isfinite(_number(value))]
    kept = (step // config.checkpoint_every) * config.checkpoint_every
    kept_in = f"the checkpoint of step {kept} stays in {folder}" if kept else "no checkpoint yet"
    causes = ["the learning rate is too high (loop.learning_rate, loop.warmup_steps)"]
    if config.precision == "bf16":
        causes.append("bf16 overflows (loop.precision fp32)")
    causes.append("the data holds values that are not finite")
    if step == first:
        causes.reverse()
    raise UserError(
        f"{', '.join(broken)} not finite at step {step} (loss {_number(values['loss'])}); likely "
        f"causes: {'; '.join(causes)}; {kept_in}, and the same command continues from it"
    )


def _number(value: float | Tensor | None) -> float:
    return value.detach().item() if isinstance(value, Tensor) else float(value or 0.0)


class _Log:
    """metrics.jsonl: means over the steps since the last row; rows past a resume point are dropped."""

    def __init__(self, path: Path, first: int, config: LoopConfig) -> None:
        self.path, self.config = path, config
        self.sums: dict[str, float] = {}
        self.count, self.elapsed = 0, 0.0
        if path.exists() and is_main():
            kept = [r for r in map(json.loads, _whole_lines(path)) if r.get("step", -1) < first]
            with atomic_file(path) as temporary:
                temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
            self.elapsed = kept[-1].get("seconds", 0.0) if kept else 0.0
        self.started = time.perf_counter()

    def add(
        self, step: int, loss: Tensor, norm: Tensor | None, metrics: Mapping[str, float | Tensor]
    ) -> dict[str, float]:
        """Collect one step; returns the row when one is due, else an empty dict."""
        values = {"loss": loss, "gradient_norm": norm, **metrics}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + _number(value)
        self.count += 1
        if (step + 1) % self.config.log_every and step + 1 != self.config.steps:
            return {}
        means = mean_over_processes({n: v / self.count for n, v in self.sums.items()})
        row = {"step": step, **means}
        row["learning_rate"] = learning_rate_at(self.config, step)
        row["samples"] = (step + 1) * self.config.batch_size
        row["seconds"] = round(self.elapsed + time.perf_counter() - self.started, 2)
        self.sums, self.count = {}, 0
        if is_main():
            with open(self.path, "a") as file:
                file.write(json.dumps(row) + "\n")
        return row


def _whole_lines(path: Path) -> list[str]:
    """Lines that ended with a newline: a killed writer may leave a torn last one."""
    return [line for line in path.read_text().split("\n")[:-1] if line]
