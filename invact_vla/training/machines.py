"""What devices can do, from their makers' data sheets, and what this machine can do.

TFLOP/s are dense bfloat16 with fp32 accumulation. Only `invact vla plan` reads them.
"""

import os
import time
from dataclasses import dataclass
from typing import Literal

import torch


@dataclass(frozen=True)
class Machine:
    """One device. memory_gb: 1e9 bytes; tflops: peak, bf16; bandwidth_gbs: of its memory."""

    name: str
    kind: Literal["cuda", "cpu"]
    memory_gb: float
    tflops: float
    bandwidth_gbs: float


MACHINES = {
    "a100-40": Machine("NVIDIA A100 40GB", "cuda", 42.4, 312, 1555),
    "a100-80": Machine("NVIDIA A100 80GB", "cuda", 85.0, 312, 2039),
    "h100": Machine("NVIDIA H100 SXM", "cuda", 85.0, 989, 3350),
    "h200": Machine("NVIDIA H200 SXM", "cuda", 150.0, 989, 4800),
    "rtx4090": Machine("NVIDIA RTX 4090", "cuda", 25.3, 165, 1008),
    "rtx3090": Machine("NVIDIA RTX 3090", "cuda", 25.3, 71, 936),
    "a6000": Machine("NVIDIA RTX A6000", "cuda", 51.0, 155, 768),
    "l40s": Machine("NVIDIA L40S", "cuda", 47.7, 362, 864),
    "cpu": Machine("two CPU cores with bf16", "cpu", 16.0, 1.0, 20),
}


def this_machine() -> Machine:
    """The CUDA device here, with the data sheet's numbers where its name is known; else the CPU, with
    its memory, and its speed measured for a moment."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        known = [m for m in MACHINES.values() if m.name.split(" ")[-1] in properties.name]
        like = known[0] if known else MACHINES["rtx3090"]
        memory = properties.total_memory / 1e9
        return Machine(properties.name, "cuda", round(memory, 1), like.tflops, like.bandwidth_gbs)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return Machine("this CPU", "cpu", round(memory, 1), round(_measured_tflops(), 3), 20)


def _measured_tflops(size: int = 1024, patience_s: float = 0.3) -> float:
    """bf16 matrix products of this CPU with torch's threads, in TFLOP/s."""
    a = torch.ones(size, size, dtype=torch.bfloat16)
    torch.mm(a, a)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < patience_s:
        torch.mm(a, a)
        count += 1
    return count * 2 * size**3 / (time.perf_counter() - start) / 1e12
