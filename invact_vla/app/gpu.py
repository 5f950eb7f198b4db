"""`invact bench gpu` (`make gpu`): what only a machine with a GPU can show, in at most 8 minutes.

    <out>/gpu.json     the card, versions, and what each part measured; written after every part

- load, token_action, lora_step, oft_chunk: an OpenVLA of the published size with random weights, built
  on the device in bf16; seconds, and peak memory of the device
- tests: the tests marked `gpu`, which hold the GPU against the CPU
- rollout: an episode of a small random policy on the GPU, rendered by EGL, where LIBERO is installed

Without a GPU it ends at once.
"""

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import write_json
from invact_vla.core.machine import package_versions
from invact_vla.core.timing import synchronize
from invact_vla.data.action_stats import ActionStats
from invact_vla.openvla.adapters.adapter import attach
from invact_vla.openvla.adapters.lora import LoraConfig
from invact_vla.openvla.checkpoints.checkpoint import fresh, save_pretrained
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.config import OftHeadConfig, OpenVLAConfig
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.model import IGNORED, OpenVLA
from invact_vla.openvla.random_model import random_inputs, random_model
from invact_vla.training.device import describe, resolve_device, resolve_dtype

logger = logging.getLogger(__name__)
REPOSITORY = Path(__file__).resolve().parents[2]
PROMPT_IDS = 30  # of a LIBERO instruction in OpenVLA's prompt
ACTION_DIM, CHUNK = 7, 8
_ROUNDS = 5  # of each measurement; the median counts
_LEAST_S = 20  # a part is not begun with less time left


@dataclass(frozen=True, kw_only=True)
class GpuConfig:
    """What to run, where, and for how long."""

    out: Path = Path("runs/gpu")  # folder of gpu.json
    device: str = "cuda"  # cuda | cuda:N; cpu only with a small model, to try the script
    dtype: str = "auto"  # of the weights: auto (bf16 on CUDA) | fp32 | bf16 | fp16
    model: Path = Path("configs/vla/model_7b.yaml")  # size of the random model
    policy: Path = Path("configs/vla/model_cpu.yaml")  # size of the policy that is rolled out
    batch_size: int = 8  # of the LoRA step
    rank: int = 32  # of the adapters of the LoRA step
    steps: int = 60  # of the episode
    tests: bool = True  # run the tests marked gpu
    rollout: bool = True  # run the episode
    budget_s: float = 480.0  # all of it; parts that do not fit are left out

    def __post_init__(self) -> None:
        if min(self.batch_size, self.steps, self.rank) < 1 or self.budget_s <= 0:
            raise ValueError("batch_size, steps and rank must be at least 1, budget_s positive")


def main(config: GpuConfig) -> int:
    """Measure, print and write; 0 if every part that ran did well, else 1. UserError without a GPU."""
    if config.device != "cpu" and not torch.cuda.is_available():
        raise UserError(
            "torch finds no CUDA device here: nothing was run; use a machine with a GPU"
        )
    device = resolve_device(config.device)
    ends = time.monotonic() + config.budget_s
    found: dict[str, Any] = {"device": describe(device), "packages": package_versions()}
    found["cuda"] = torch.version.cuda
    parts = _parts(config, device, lambda: ends - time.monotonic())
    for name, part in parts.items():
        left = ends - time.monotonic()
        if left < _LEAST_S:
            found[name] = {"skipped": f"{left:.0f} s left of {config.budget_s:.0f}"}
        else:
            found[name] = _run(part)
        print(f"{name}: {json.dumps(found[name])}", flush=True)
        write_json(config.out / "gpu.json", found)
    return 1 if any("failed" in found[name] for name in parts) else 0


def _parts(
    config: GpuConfig, device: torch.device, left_s: Callable[[], float]
) -> dict[str, Callable[[], dict[str, Any]]]:
    dtype = resolve_dtype(config.dtype, device)
    size = load_model_config(config.model)
    held: dict[str, OpenVLA] = {}  # one model at a time

    def load() -> dict[str, Any]:
        figures = measured(lambda: held.update(model=random_model(size, device, dtype)), device)
        parameters = sum(p.numel() for p in held["model"].parameters())
        dtype_name = str(dtype).removeprefix("torch.")
        return {"parameters": parameters, "dtype": dtype_name, **figures}

    def oft() -> dict[str, Any]:
        held.clear()
        return oft_chunk(random_model(oft_config(size), device, dtype))

    parts = {
        "load": load, "token_action": lambda: token_action(held["model"]),
        "lora_step": lambda: lora_step(held.pop("model"), config.rank, config.batch_size),
        "oft_chunk": oft,
    }  # fmt: skip
    if config.tests:
        parts["tests"] = lambda: gpu_tests(left_s())
    if config.rollout:
        parts["rollout"] = lambda: rollout(config, left_s())
    return parts


def _run(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a part found, or why it failed: the other parts go on."""
    try:
        return part()
    except (RuntimeError, UserError, KeyError) as error:  # out of memory is a RuntimeError
        logger.warning("failed", exc_info=True)
        return {"failed": f"{type(error).__name__}: {error}"}


def token_action(model: OpenVLA) -> dict[str, Any]:
    """One action of 7 tokens, as the published policy decodes it, batch 1."""
    config, inputs = model.config, dict[str, Any](random_inputs(model, 1, PROMPT_IDS))
    among = range(config.vocab_size - config.n_action_bins, config.vocab_size)
    action = lambda: greedy_decode(model, n_tokens=ACTION_DIM, allowed=among, **inputs)
    return {"tokens": ACTION_DIM, **measured(action, model.device, _ROUNDS)}


def oft_config(size: OpenVLAConfig) -> OpenVLAConfig:
    """OpenVLA-OFT's LIBERO model of a size: chunks of 8, two cameras, the robot's state, L1 head."""
    head, cameras = OftHeadConfig(), ("agentview", "wrist")
    own = replace(size.invact, head=head, chunk=CHUNK, proprio_dim=8, cameras=cameras)
    return replace(size, invact=own)


@torch.inference_mode()
def oft_chunk(model: OpenVLA) -> dict[str, Any]:
    """A chunk of 8 actions in one pass, batch 1."""
    slots = model.config.slots
    inputs = random_inputs(model, 1, PROMPT_IDS + slots + 1)
    places = PROMPT_IDS + torch.arange(slots, device=model.device)[None]
    mask = torch.ones_like(inputs["input_ids"])
    action = lambda: model(**inputs, attention_mask=mask, slots=places)
    found = measured(action, model.device, _ROUNDS)
    return {"actions": CHUNK, "actions_per_s": round(CHUNK / found["seconds"], 1), **found}


def lora_step(model: OpenVLA, rank: int, batch_size: int) -> dict[str, Any]:
    """Forward, backward and AdamW over adapters; blocks keep no activations."""
    attach(model, LoraConfig(rank=rank)).train()
    model.checkpoint_gradients()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-4)
    inputs = random_inputs(model, batch_size, PROMPT_IDS + ACTION_DIM + 1)
    labels = inputs["input_ids"].clone()
    labels[:, :PROMPT_IDS] = IGNORED

    def step() -> None:
        with torch.autocast(model.device.type, torch.bfloat16):
            loss = model(**inputs, labels=labels, labels_only=True).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    found = measured(step, model.device, rounds=2)
    numbers = sum(p.numel() for p in trained)
    return {"batch_size": batch_size, "rank": rank, "trained_parameters": numbers, **found}


def measured(action: Callable[[], object], device: torch.device, rounds: int = 1) -> dict[str, Any]:
    """seconds: the median of the rounds, after one that does not count where there are several;
    peak_gb (10^9 bytes) of all of them, where the device counts memory."""
    is_cuda, seconds = device.type == "cuda", []
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(rounds + (rounds > 1)):
        synchronize(device)
        started = time.perf_counter()
        action()
        synchronize(device)
        seconds.append(time.perf_counter() - started)
    found = {"seconds": round(median(seconds[rounds > 1 :]), 4)}
    peak = {"peak_gb": round(torch.cuda.max_memory_allocated(device) / 1e9, 2)} if is_cuda else {}
    return {**found, **peak}


def gpu_tests(budget_s: float) -> dict[str, Any]:
    """pytest's last line on the tests marked `gpu`."""
    if not (REPOSITORY / "tests").is_dir():
        return {"skipped": "the tests are not installed: run it in the repository"}
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests"]
    code, output = _child(command, budget_s)
    words = re.findall(r"(\d+) (passed|failed|skipped|error)", output)
    counts = {word: int(n) for n, word in words}
    found: dict[str, Any] = {"counts": counts}
    if code != 0 or not counts.get("passed"):
        found["failed"] = output[-2000:]
    return found


def rollout(config: GpuConfig, budget_s: float) -> dict[str, Any]:
    """One episode of a small policy with random weights: GPU inference beside EGL rendering."""
    if importlib.util.find_spec("libero") is None:
        return {"skipped": "LIBERO is not installed: pip install invact-vla[libero]"}
    folder, out = config.out / "policy", config.out / "rollout"
    if not folder.exists():
        random_policy(config.policy, folder)
    options = {
        "out": out, "overwrite": "true", "policy.type": "checkpoint", "policy.folder": folder,
        "policy.device": config.device, "tasks": "[0]", "episodes": 1, "max_steps": config.steps,
    }  # fmt: skip
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "invact_vla.app.cli", "libero", "rollout", *flags]
    code, output = _child(command, budget_s, MUJOCO_GL="egl")
    if code != 0:
        return {"failed": output[-2000:]}
    row = json.loads((out / "episodes.jsonl").read_text().splitlines()[-1])
    figures = {name: row[name] for name in ("outcome", "steps", "wall_s")}
    return {**figures, "steps_per_s": round(row["steps"] / row["wall_s"], 1)}


def random_policy(size: Path, folder: Path) -> None:
    """A checkpoint of LIBERO-10 that knows nothing."""
    config = load_model_config(size)
    ranges = torch.linspace(-0.5, 0.5, 100).numpy()[:, None].repeat(ACTION_DIM, axis=1)
    states = torch.linspace(-1, 1, 100).numpy()[:, None].repeat(8, axis=1)
    statistics = {
        "action": ActionStats.of(ranges, [True] * 6 + [False]).to_json(),
        "proprio": ActionStats.of(states, [True] * 8).to_json(),
    }
    config = replace(config, norm_stats={"libero_10": statistics})
    words = REPOSITORY / "configs/vla/libero_10_instructions.txt"
    texts = words.read_text().splitlines() if words.exists() else ["put the mug on the plate"]
    save_pretrained(fresh(config, texts, 0), folder)


def _child(command: list[str], budget_s: float, **environment: str) -> tuple[int, str]:
    """Exit code and output of a command in the repository; 124 when the time is up."""
    paths = filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    around = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(command, env=around, capture_output=True, text=True, timeout=budget_s)
    except subprocess.TimeoutExpired:
        return 124, f"not finished after {budget_s:.0f} s"
    return done.returncode, done.stdout + done.stderr
