"""`invact bench vla`: time of one action, beside a plain transformers `generate` loop, in one run.

- plain generate: the towers, then LlamaForCausalLM.generate, greedy, over the same weights
- ours: `greedy_decode`
- int8: ours with int8 weights in the language model's layers (`--quantize int8`, on a CPU)
- OFT: a chunk of actions in one pass over action slots, the same weights with OFT's head behind

Weights are random, of any size, made where they run. The sides take turns, one observation a round,
so that the load of the machine hits all alike, and what they answer is compared.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from invact_vla.core.machine import device_name
from invact_vla.core.run_folder import save_result
from invact_vla.core.timing import Ratio, Timing, take_turns
from invact_vla.openvla.action_tokens import ActionTokens
from invact_vla.openvla.bench.sides import OFT, OFT_INT8, PLAIN, make_sides, questions, with_tokens
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.inference.int8 import Quantize
from invact_vla.openvla.random_model import random_model
from invact_vla.training.device import resolve_device, resolve_dtype

PROMPT_IDS = 24  # length of a prompt


@dataclass(frozen=True, kw_only=True)
class BenchVlaConfig:
    """What to measure, and how often."""

    model: Path = Path("configs/vla/model_cpu.yaml")  # size
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
    dtype: str = "auto"  # auto (bf16 on CUDA, else fp32), fp32, bf16 or fp16
    quantize: Quantize = "none"  # int8: also measure int8 weights in the language model
    rounds: int = 10  # one observation each; one more round warms up
    chunk: int = 8  # actions of one OFT pass; 0: leave OFT out
    threads: int = 1  # torch threads
    seed: int = 0  # of weights and observations
    out: Path | None = None  # run folder for bench.json, every number

    def __post_init__(self) -> None:
        if min(self.rounds, self.threads) < 1 or self.chunk < 0:
            raise ValueError("need rounds and threads >= 1 and chunk >= 0")


@dataclass(frozen=True)
class BenchSide:
    """One way to act. actions: how many per call; faster: actions per second over those of plain
    generate, by the clock and by processor time; ids_equal, actions_equal: the fraction that is as
    plain generate has it (an int8 chunk: as the chunk has it); max_difference: of actions in [-1, 1]."""

    seconds: Timing
    actions: int
    median_s: float
    actions_per_s: float
    faster: Ratio
    faster_cpu: Ratio
    ids_equal: float | None = None
    actions_equal: float | None = None
    max_difference: float | None = None


def main(config: BenchVlaConfig) -> int:
    """Measure and print; returns 0."""
    found = measure(config)
    print(report(found))
    if config.out is not None:
        save_result(config.out, config, "bench.json", found)
    return 0


@torch.inference_mode()
def measure(config: BenchVlaConfig) -> dict[str, Any]:
    """All numbers, as they are written: the machine, the model, and each side by name."""
    torch.set_num_threads(config.threads)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    before = os.getloadavg()[0]
    model = random_model(with_tokens(load_model_config(config.model)), device, dtype, config.seed)
    like = next(model.parameters())
    asked = questions(model.config, PROMPT_IDS, config.rounds + 1, like, config.seed)
    sides = make_sides(model, config.quantize, config.chunk)
    answers: dict[str, dict[int, Tensor]] = {name: {} for name in sides}

    def call(name: str) -> Callable[[int], None]:
        def act(number: int) -> None:
            answers[name][number] = sides[name](asked[number])

        return act

    timings = take_turns({name: call(name) for name in sides}, config.rounds, device, "bench")
    numbers: dict[str, Any] = {
        "model": str(config.model), "parameters": sum(p.numel() for p in model.parameters()),
        "device": str(device), "name": device_name(device), "dtype": str(dtype).split(".")[1],
        "threads": config.threads, "rounds": config.rounds, "seed": config.seed,
        "places": model.embed(asked[0].ids, None, asked[0].pixel_values, asked[0].proprio)[0].shape[1],
        "torch": torch.__version__, "transformers": version("transformers"),
        "load": [before, os.getloadavg()[0]],
    }  # fmt: skip
    if device.type == "cuda":
        numbers["peak_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    scheme = ActionTokens.of(model.config)
    found = {}
    for name in sides:
        reference = answers[OFT if name == OFT_INT8 else PLAIN]
        found[name] = side(config, scheme, name, timings, answers[name], reference)
    return numbers | {"sides": {name: asdict(value) for name, value in found.items()}}


def side(
    config: BenchVlaConfig,
    scheme: ActionTokens,
    name: str,
    timings: dict[str, Timing],
    answers: dict[int, Tensor],
    reference: dict[int, Tensor],
) -> BenchSide:
    """The numbers of one side; its answers, by round, are held against those of a reference."""
    parallel = name in (OFT, OFT_INT8)
    actions = config.chunk if parallel else 1
    own, plain = timings[name], timings[PLAIN]
    middle = median(own.clock)
    clock = Ratio.of(own.clock, plain.clock, actions)
    processor = Ratio.of(own.processor, plain.processor, actions)
    base = BenchSide(own, actions, middle, actions / middle, clock, processor)
    if name in (PLAIN, OFT):
        return base
    given, expected = (
        torch.cat([side[n] for n in range(config.rounds)]).cpu() for side in (answers, reference)
    )
    ids_equal = None
    if not parallel:
        ids_equal = (given == expected).double().mean().item()
        given, expected = (
            torch.from_numpy(scheme.decode(ids.numpy()))[:, None] for ids in (given, expected)
        )
    difference = (given.double() - expected.double()).abs()
    equal = (difference.amax(-1) == 0).double().mean().item()
    return replace(
        base, ids_equal=ids_equal, actions_equal=equal, max_difference=difference.max().item()
    )


def report(found: dict[str, Any]) -> str:
    """The table."""
    first = (
        f"{found['model']}, {found['parameters'] / 1e6:.0f} M parameters, {found['dtype']}, "
        f"{found['places']} places before the first id; {found['name']} ({found['device']}), "
        f"{found['threads']} thread(s), torch {found['torch']}; {found['rounds']} rounds"
    )
    lines = [
        first,
        f"{'':18}{'ms per call':>12}{'actions/s':>12}{'x plain (95 % interval)':>28}{'CPU x':>9}",
    ]
    for name, numbers in found["sides"].items():
        times = numbers["faster"]
        interval = f"{times['median']:.2f} ({times['low']:.2f} - {times['high']:.2f})"
        columns = (
            f"{1000 * numbers['median_s']:12.1f}{numbers['actions_per_s']:12.2f}{interval:>28}"
        )
        processor = f"{numbers['faster_cpu']['median']:9.2f}"
        lines.append(f"{name:18}{columns}{processor}{agreement(name, numbers)}")
    load = found["load"]
    lines.append(f"load average {load[0]:.1f} before, {load[1]:.1f} after")
    if "peak_gb" in found:
        lines.append(f"most memory of the device: {found['peak_gb']:.1f} GB, all sides together")
    return "\n".join(lines)


def agreement(name: str, numbers: dict[str, Any]) -> str:
    """How a side's answers compare with the reference's."""
    if numbers["max_difference"] is None:
        return ""
    other = OFT if name == OFT_INT8 else PLAIN
    ids = "" if numbers["ids_equal"] is None else f"{100 * numbers['ids_equal']:.1f} % of ids and "
    return (
        f"   {ids}{100 * numbers['actions_equal']:.0f} % of actions as {other}, "
        f"difference at most {numbers['max_difference']:.3g} of [-1, 1]"
    )
