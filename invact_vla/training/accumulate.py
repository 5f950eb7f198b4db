"""One optimizer step's gradients, from pieces of the batch that fit into memory.

The loss of a step is the mean over all targets of the global batch. Pieces and processes may hold
different numbers of targets, so each piece counts by its own.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.training.distributed import rank_info, sum_over_processes

_IGNORED = -100  # label of a place without a target


def accumulate(
    accelerator: Any, model: nn.Module, loss_fn: Callable, batch: Any, step: int, config: Any
) -> tuple[Tensor, dict[str, Tensor]]:
    """Forward and backward over this process's part of the batch; returns its loss and metrics, means
    over the pieces. config: LoopConfig (micro_batch, precision)."""
    pieces = split(batch, config.micro_batch)
    counts = [targets(piece) for piece in pieces]
    weights = _weights(counts)
    loss, metrics = torch.zeros(()), {}
    for index, (piece, weight) in enumerate(zip(pieces, weights, strict=True)):
        last = index + 1 == len(pieces)
        with nullcontext() if last else accelerator.no_sync(model):
            bf16 = config.precision == "bf16"
            with torch.autocast(accelerator.device.type, torch.bfloat16, bf16):
                one, found = loss_fn(model, piece, step)
            accelerator.backward(one if weight == 1 else one * weight)
        fraction = counts[index] / max(1, sum(counts))
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
        return int((piece["labels"][:, 1:] != _IGNORED).sum())
    return len(next(iter(piece.values())))


def _weights(counts: list[int]) -> list[float]:
    """Of each piece's loss, so that gradients, averaged over W processes, are those of the mean over
    all targets; exactly 1 for one piece of one process."""
    processes = rank_info().count
    total = sum_over_processes(sum(counts))
    return [count * processes / total if total else 1.0 for count in counts]
