"""Several processes as one: who writes, how batches and embeddings are shared (accelerate's engine).

Alone, every function here does nothing or calls what it is given, so code reads the same for one
process and for many. Processes come from `accelerate launch` or `torchrun`. W processes.
"""

import atexit
import gc
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from invact_vla.core.errors import UserError

T = TypeVar("T")
_PATIENCE = timedelta(hours=24)  # rank 0 decodes or evaluates while the others wait


@dataclass(frozen=True)
class RankInfo:
    """Which of `count` equal, contiguous slices of the global batch is this process's."""

    index: int = 0
    count: int = 1

    def slice(self, size: int) -> slice:
        """Of `size` items; UserError if they cannot be shared evenly."""
        if size % self.count:
            raise UserError(
                f"{size} items cannot be shared by {self.count} processes evenly: use a batch_size "
                f"that is a multiple, or fewer processes"
            )
        each = size // self.count
        return slice(self.index * each, (self.index + 1) * each)


def init_distributed(device: str = "auto") -> RankInfo:
    """Join the other processes, if there are any; call it first thing in a stage. device: of its
    config; "cpu" keeps the processes off the GPUs."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not _together():
        # its functions have the group of the moment of import as a default and would keep it alive
        import torch.distributed.nn.functional
        from accelerate import PartialState

        cpu = device == "cpu" or not torch.cuda.is_available()
        PartialState(cpu=cpu, timeout=_PATIENCE)
        atexit.register(_leave)
    return rank_info()


def _leave() -> None:
    """End the group, and with it gloo's threads, before the interpreter ends: one that lets go of a
    tensor after that aborts the process (github.com/pytorch/pytorch/pull/179291).
    """
    if _together():
        gc.collect()  # what still holds the group, such as DDP, is in cycles
        dist.destroy_process_group()


def rank_info() -> RankInfo:
    """This process's place among the joined ones."""
    return RankInfo(dist.get_rank(), dist.get_world_size()) if _together() else RankInfo()


def is_main() -> bool:
    """Whether this process writes files."""
    return rank_info().index == 0


def run_on_main(action: Callable[[], T]) -> T:
    """Call `action` in rank 0 alone; every process gets its result, or raises its UserError.

    The result must be small and picklable: it is broadcast.
    """
    if not _together():
        return action()
    answer: list = [None, None]
    if is_main():
        try:
            answer[0] = action()
        except UserError as error:
            answer[1] = str(error)
    dist.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise UserError(answer[1])
    return answer[0]


def main_process_first(action: Callable[[], T]) -> T:
    """Call `action` in rank 0, which may write what it needs, then in the others, which find it."""
    made: list[T] = []
    run_on_main(lambda: made.append(action()))
    return made[0] if made else action()


def gather(values: Tensor) -> Tensor:
    """Every process's rows in rank order, with gradients: (B / W, ...) -> (B, ...).

    The gradient of each row is the sum over processes. When every process computes the same loss of
    the gathered rows, averaging parameter gradients over processes (as DDP and FSDP do) gives the
    gradient of that loss once.
    """
    return _Gather.apply(values) if _together() else values  # type: ignore[return-value]


def mean_over_processes(values: dict[str, float]) -> dict[str, float]:
    """The mean of each metric; all processes must have the same names."""
    sums = {name: sum_over_processes(values[name]) for name in sorted(values)}
    return {name: sums[name] / rank_info().count for name in values}


def sum_over_processes(value: float) -> float:
    """The sum of a number over all processes."""
    if not _together():
        return value
    is_cuda = "nccl" in dist.get_backend()
    device = torch.device("cuda", torch.cuda.current_device()) if is_cuda else "cpu"
    number = torch.tensor([float(value)], dtype=torch.float64, device=device)
    dist.all_reduce(number)
    return number.item()


def full_tensor(tensor: Tensor) -> Tensor:
    """A sharded tensor (FSDP) put together, any other as it is; all processes must call it."""
    gather_shards = getattr(tensor, "full_tensor", None)
    return tensor if gather_shards is None else gather_shards()


def shard_like(value: Tensor, reference: Tensor) -> Tensor:
    """A whole tensor placed and sharded as `reference` is."""
    mesh = getattr(reference, "device_mesh", None)
    if mesh is None:
        return value.to(reference.device)
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(reference.device), mesh, reference.placements)  # type: ignore[attr-defined]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, values.contiguous())
        ctx.rows = len(values)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        start = dist.get_rank() * ctx.rows
        return total[start : start + ctx.rows]


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()
