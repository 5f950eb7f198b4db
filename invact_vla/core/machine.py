"""What a result depends on beside its config: the machine, versions of packages, the project's commit;
and what devices can do, from their makers' data sheets.

TFLOP/s are dense bfloat16 with fp32 accumulation. Only `invact vla plan` reads them.
"""

import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

RECORDED_PACKAGES = (
    "torch", "transformers", "timm", "accelerate", "numpy", "mujoco", "robosuite", "hf-libero",
)  # fmt: skip
_PROJECT = "pyproject.toml"
_ROOT = Path(__file__).resolve().parents[2]


def package_versions() -> dict[str, str]:
    """Versions of the packages that can change a result; absent ones are left out."""
    versions = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit() -> str | None:
    """The commit of the code that runs, with `+changes` if the tree differs.

    None where the code is not in this project's own repository: one that it is merely installed or
    copied below says nothing of it, and its commit is nobody's business.
    """
    try:
        if not re.search(r'^name = "invact-vla"$', (_ROOT / _PROJECT).read_text(), re.MULTILINE):
            return None
        tracked = (_PROJECT, str(Path(__file__).resolve().relative_to(_ROOT)))
        _git("ls-files", "--error-unmatch", *tracked)
        return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain") else "")
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    """Ask the repository whose top folder is the project's; no other, whatever the environment says.
    It writes nothing and starts no program that the repository names."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_CEILING_DIRECTORIES": str(_ROOT.parent), "GIT_OPTIONAL_LOCKS": "0"}
    command = ["git", "-C", str(_ROOT), "-c", "core.fsmonitor=false", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def cpu_name() -> str:
    """The processor's model."""
    info = Path("/proc/cpuinfo")
    found = re.search(
        r"^model name\s*:(.*)", info.read_text() if info.exists() else "", re.MULTILINE
    )
    return found[1].strip() if found else platform.processor() or "unknown"


def device_name(device: "torch.device") -> str:
    """The model of what a torch device means."""
    if device.type != "cuda":
        return cpu_name()
    import torch

    return torch.cuda.get_device_name(device)


@dataclass(frozen=True)
class Machine:
    """One device. memory_gb: 1e9 bytes; tflops: peak, bf16 (fp32 without `has_bf16`); bandwidth_gbs: of
    its memory; has_bf16: whether it multiplies bfloat16."""

    name: str
    kind: Literal["cuda", "cpu"]
    memory_gb: float
    tflops: float
    bandwidth_gbs: float
    has_bf16: bool = True


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
    import torch

    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        known = [m for m in MACHINES.values() if m.name.split(" ")[-1] in properties.name]
        like = known[0] if known else MACHINES["rtx3090"]
        memory = properties.total_memory / 1e9
        return Machine(properties.name, "cuda", round(memory, 1), like.tflops, like.bandwidth_gbs)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    has_bf16 = multiplies_bf16("cpu")
    a = torch.ones(1024, 1024, dtype=torch.bfloat16 if has_bf16 else torch.float32)
    torch.mm(a, a)
    count, seconds, start = 0, 0.0, time.perf_counter()
    while seconds < 0.3:
        torch.mm(a, a)
        count, seconds = count + 1, time.perf_counter() - start
    tflops = float(f"{count * 2 * 1024**3 / seconds / 1e12:.3g}")  # a slow one is slow, not 0
    return Machine("this CPU", "cpu", round(memory, 1), tflops, 20, has_bf16)


def multiplies_bf16(device_type: str) -> bool:
    """Whether a kind of device has bfloat16 products; a CPU without them (x86 before AVX-512) emulates
    each, some fifty times slower than in float32."""
    import torch

    if device_type != "cpu":
        return True
    asks = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return asks is not None and bool(asks())
