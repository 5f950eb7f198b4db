"""The one training loop. It knows a loss function and a batch function, and nothing of models.

Everything is a pure function of (seed, step): `batch_at(step)` gives the batch, torch is re-seeded
with (seed, step) before each step, and the learning rate is computed from the step. So a run that is
killed and started again ends with the same weights, bit for bit, on the same machine and threads.

With several processes (`accelerate launch`, DDP or FSDP) each takes its part of the batch, gradients
are averaged, and rank 0 alone writes. A part larger than `micro_batch` goes through in pieces whose
gradients accumulate: the recipe's batch is the same on any number and size of devices.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.training.checkpoint import TrainState
from invact_vla.training.device import Device, Precision, place, resolve_device, usable_precision
from invact_vla.training.distributed import is_main, rank_info, sum_over_processes
from invact_vla.training.metrics_log import MetricsLog, check_finite
from invact_vla.training.optimizers import build_optimizer
from invact_vla.training.sampling import Prefetched

LossFn = Callable[[nn.Module, Any, int], tuple[Tensor, Mapping[str, float | Tensor]]]


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast to train."""

    steps: int  # optimizer steps
    batch_size: int  # items per step, over all processes
    optimizer: Literal["adamw", "muon"] = "adamw"  # muon: for matrices, with AdamW for the rest
    learning_rate: float = 1e-3  # peak rate
    warmup_steps: int = 0  # linear warm-up from 0
    schedule: Literal["cosine", "constant"] = "cosine"  # decay after the warm-up (cosine ends at 0)
    weight_decay: float = 0.05  # for matrices only; none on norms, biases and tokens
    beta1: float = 0.9  # AdamW
    beta2: float = 0.95  # AdamW
    gradient_clip: float = 1.0  # largest gradient norm
    # autocast of the forward pass; a CPU without bfloat16 products takes fp32 for bf16, and says so
    precision: Precision = "fp32"
    ema: float = 0.0  # decay of the exponential moving average of weights that is kept; 0: off
    micro_batch: int | None = None  # samples per pass and process, the rest accumulates; null: all
    checkpoint_every: int = 200  # steps between checkpoints
    log_every: int = 10  # steps between rows of metrics.jsonl
    seed: int = 0  # with the step, decides all randomness; a run puts its own seed here
    threads: int = 1  # torch threads; the result is exact for a fixed number
    # log to these too, by accelerate: tensorboard, wandb, trackio
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every", "log_every", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.learning_rate <= 0 or not 0 <= self.ema < 1:
            raise ValueError("learning_rate must be positive and ema in [0, 1)")
        if self.checkpoint_every % self.log_every:
            raise ValueError("checkpoint_every must be a multiple of log_every")
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"micro_batch must be at least 1 or null, got {self.micro_batch}")


def learning_rate_at(config: LoopConfig, step: int) -> float:
    """The rate of step 0, 1, ...: linear warm-up, then constant or cosine to 0."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.learning_rate
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def fit(
    model: nn.Module, loss_fn: LossFn, batch_at: Callable[[int], Any], config: LoopConfig, folder: Path,
    after_step: Callable[[nn.Module, int, dict[str, float]], None] | None = None,
    description: str = "train", device: Device = "auto",
) -> nn.Module:  # fmt: skip
    """Train `model` in place and return it; resumes from `folder`/checkpoint when there is one.

    device: where; the model is moved there and stays, batches follow (tensors, in containers, or
    anything with `to`; arrays do not).

    loss_fn(model, batch, step) -> (loss, metrics); with several processes `batch_at` gives this
    process's part. after_step(model, step, metrics) may change buffers or raise UserError (collapse).
    Rows of metrics go to `folder`/metrics.jsonl. A loss or gradient that is not finite is a UserError
    naming the step and the metrics that broke; the last checkpoint stays.
    """
    torch.set_num_threads(config.threads)
    config = replace(config, precision=usable_precision(config.precision, resolve_device(device)))
    accelerator = _accelerator(resolve_device(device), config)
    betas = config.beta1, config.beta2
    optimizer = build_optimizer(
        model, config.optimizer, config.learning_rate, config.weight_decay, betas
    )
    wrapped, optimizer = accelerator.prepare(model, optimizer)
    state = TrainState(model, optimizer, config.ema)
    first = state.load(folder / "checkpoint")
    log = MetricsLog(folder, first, config, accelerator)
    batches = Prefetched(batch_at, config.steps)
    wrapped.train()
    shown = {"initial": first, "mininterval": 5, "disable": not is_main()}
    bar = tqdm(range(first, config.steps), description, config.steps, **shown)
    for step in bar:
        torch.manual_seed((config.seed << 32) + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(config, step)
        batch = place(batches(step), accelerator.device)
        loss, metrics = accumulate(accelerator, wrapped, loss_fn, batch, step, config)
        norm = accelerator.clip_grad_norm_(wrapped.parameters(), config.gradient_clip)
        values = {"loss": loss, "gradient_norm": norm, **metrics}
        check_finite(values, step, first, config, folder)
        optimizer.step()
        optimizer.zero_grad()
        state.update_ema(step)
        row = log.add(step, learning_rate_at(config, step), values)
        if row:
            bar.set_postfix(loss=f"{row['loss']:.4f}")
        if after_step is not None:
            after_step(model, step, row)
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            state.save(folder / "checkpoint", step + 1)
    log.close()
    state.copy_ema()
    model.eval()
    return model


def accumulate(
    accelerator: Any, model: nn.Module, loss_fn: LossFn, batch: Any, step: int, config: LoopConfig
) -> tuple[Tensor, dict[str, Any]]:
    """Forward and backward over this process's part of the batch; returns its loss and metrics, means
    over the pieces.

    The loss of a step is the mean over all targets of the global batch. Pieces and processes may hold
    different numbers of targets, so each piece counts by its own.
    """
    pieces = split(batch, config.micro_batch)
    counts = [targets(piece) for piece in pieces]
    total, bf16 = sum_over_processes(sum(counts)), config.precision == "bf16"
    loss, metrics = torch.zeros(()), {}
    for index, (piece, count) in enumerate(zip(pieces, counts, strict=True)):
        # gradients are averaged over processes; exactly 1 for one piece of one process
        weight = count * rank_info().count / total if total else 1.0
        with nullcontext() if index + 1 == len(pieces) else accelerator.no_sync(model):
            with torch.autocast(accelerator.device.type, torch.bfloat16, bf16):
                one, found = loss_fn(model, piece, step)
            accelerator.backward(one if weight == 1 else one * weight)
        fraction = count / max(1, sum(counts))
        loss = loss.to(one.device) + one.detach() * fraction
        for name, value in found.items():
            metrics[name] = metrics.get(name, 0.0) + value * fraction
    return loss, metrics


def split(batch: Any, size: int | None) -> list[Any]:
    """Pieces of at most `size` samples of a mapping of tensors; the batch itself if it is small enough.

    UserError for a batch that is no mapping: its loss needs all samples at once.
    """
    if size is None:
        return [batch]
    if not isinstance(batch, Mapping):
        raise UserError(
            "micro_batch: the loss of this stage compares the samples of a batch: leave it"
        )
    count = len(next(iter(batch.values())))
    if size >= count:
        return [batch]
    return [{n: v[i : i + size] for n, v in batch.items()} for i in range(0, count, size)]


def targets(piece: Any) -> int:
    """What the mean of a piece's loss is over: labels, or samples where there are none."""
    if not isinstance(piece, Mapping):
        return 1
    if "labels" in piece:
        return int((piece["labels"][:, 1:] != -100).sum())
    return len(next(iter(piece.values())))


def _accelerator(device: torch.device, config: LoopConfig):
    """accelerate's engine on `device`, or on what `init_distributed` chose in a group of processes."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, patch_environment

    # a schedule may leave parameters unused, such as the later routers of commit.schedule once
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    options: Any = {"cpu": device.type == "cpu", "kwargs_handlers": [unused],
                    "log_with": list(config.trackers) or None}  # fmt: skip
    if rank_info().count > 1:
        return Accelerator(**options)
    # the state is global: a stage on another device may have run in this process before
    AcceleratorState._reset_state(reset_partial_state=True)
    with patch_environment(ACCELERATE_TORCH_DEVICE=device):
        return Accelerator(**options)
