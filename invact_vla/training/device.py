"""Where a network runs and in which number format: decided once, obeyed by every stage.

`device`: "auto" (the first CUDA device, else Apple's MPS, else the CPU), "cpu", "cuda", "cuda:N", "mps".
`dtype`: "auto" (bfloat16 on CUDA, float32 elsewhere), "fp32", "bf16" or "fp16".
"""

import re

import torch

from invact_vla.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def resolve_device(name: str = "auto") -> torch.device:
    """The torch device of a config's `device`; UserError if this machine has no such device.

    Inside a group of processes (accelerate, torchrun) "auto" and "cuda" mean the process's own GPU.
    """
    if not _DEVICE.fullmatch(name):
        raise UserError(f"unknown device {name!r}: expected auto, cpu, cuda, cuda:N or mps")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu"
    if name.startswith("cuda"):
        return _cuda(name)
    if name == "mps" and not _has_mps():
        raise UserError("device mps: torch finds no Apple GPU here; use --device cpu")
    return torch.device(name)


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """The torch dtype of a config's `dtype` on a device."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise UserError(f"unknown dtype {name!r}: expected auto, {', '.join(DTYPES)}")
    return DTYPES[name]


def _cuda(name: str) -> torch.device:
    if not torch.cuda.is_available():
        raise UserError(f"device {name}: torch finds no CUDA device here; use --device cpu")
    index = int(name.partition(":")[2] or torch.cuda.current_device())
    if index >= torch.cuda.device_count():
        raise UserError(f"device {name}: there are {torch.cuda.device_count()} CUDA devices here")
    return torch.device("cuda", index)


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
