"""Where a network runs and in which number format: decided once, obeyed by every stage.

`device`: "auto" (the first CUDA device, else Apple's MPS, else the CPU), "cpu", "cuda", "cuda:N", "mps".
`dtype`: "auto" (bfloat16 on CUDA, float32 elsewhere), "fp32", "bf16" or "fp16".

A device belongs to a run's provenance, not to its key: the same config means the same product wherever
it is made, up to rounding. Bit for bit the same are only runs on the same device.
"""

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import torch

from invact_vla.core.errors import UserError
from invact_vla.core.machine import multiplies_bf16
from invact_vla.core.run_folder import Run
from invact_vla.training.distributed import is_main, rank_info

logger = logging.getLogger(__name__)
T = TypeVar("T")
Device = str | torch.device
Precision = Literal["fp32", "bf16"]  # of the products under fp32 weights
CPU = torch.device("cpu")

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
EMULATED = (
    "this CPU has no bfloat16 products and takes some 50 times as long as in fp32 to emulate one"
)
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def resolve_device(name: Device = "auto") -> torch.device:
    """The torch device of a config's `device`; UserError if this machine has no such device. A torch
    device is given back as it is, unasked.

    Inside a group of processes (accelerate, torchrun) "auto" and "cuda" mean the process's own GPU.
    """
    if isinstance(name, torch.device):
        return name
    if not _DEVICE.fullmatch(name):
        raise UserError(f"unknown device {name!r}: expected auto, cpu, cuda, cuda:N or mps")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    if name.startswith("cuda"):
        return _cuda(name)
    if name == "mps" and not _has_mps():
        raise UserError("device mps: torch finds no Apple GPU here; use --device cpu")
    return torch.device(name)


def resolve_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The torch dtype of a config's `dtype` on a device; a torch dtype is given back as it is."""
    if isinstance(name, torch.dtype):
        return name
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise UserError(f"unknown dtype {name!r}: expected auto, {', '.join(DTYPES)}")
    if name == "bf16" and not multiplies_bf16(device.type):
        logger.warning("dtype fp32 is the faster one here: %s", EMULATED)
    return DTYPES[name]


def usable_precision(precision: Precision, device: torch.device) -> Precision:
    """`precision` (fp32 or bf16 autocast), or fp32 in place of a bf16 that the device would emulate."""
    if precision != "bf16" or multiplies_bf16(device.type):
        return precision
    if is_main():
        logger.warning("training in fp32 instead of bf16, the same up to rounding: %s", EMULATED)
    return "fp32"


def stage_device(run: Run, name: Device) -> torch.device:
    """The device of a stage, noted in its run's provenance."""
    device = resolve_device(name)
    if is_main():
        run.ran_on(describe(device))
    return device


def describe(device: torch.device) -> str:
    """The device in words: "cpu", or "cuda:0 (NVIDIA H100 80GB HBM3)"."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


@contextlib.contextmanager
def exact() -> Iterator[None]:
    """fp32 stays fp32 on a GPU: no TF32, which keeps 10 bits of mantissa, in convolutions and matrix
    products, and no algorithms chosen by timing. For codes, embeddings and measurements, which should
    be those of the CPU up to rounding. Also a decorator. Nothing changes on a CPU."""
    cudnn: Any = torch.backends.cudnn
    precision = torch.get_float32_matmul_precision()
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = False, True, False
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before
        torch.set_float32_matmul_precision(precision)


def place(batch: T, device: torch.device) -> T:
    """The tensors of a batch on a device: in dictionaries, tuples, or anything with `to`."""
    from accelerate.utils import send_to_device

    return send_to_device(batch, device)  # type: ignore[return-value]


def _cuda(name: str) -> torch.device:
    if not torch.cuda.is_available():
        raise UserError(f"device {name}: torch finds no CUDA device here; use --device cpu")
    given = name.partition(":")[2]
    if given and rank_info().count > 1:
        raise UserError(
            f"device {name}: each of {rank_info().count} processes takes its own GPU; use --device cuda"
        )
    index = int(given or torch.cuda.current_device())
    if index >= torch.cuda.device_count():
        raise UserError(f"device {name}: there are {torch.cuda.device_count()} CUDA devices here")
    return torch.device("cuda", index)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
