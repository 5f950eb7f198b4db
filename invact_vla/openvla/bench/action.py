"""`invact bench vla`: time of one action, beside a plain transformers `generate` loop, in one run.

- plain generate: the towers, then LlamaForCausalLM.generate, greedy, over the same weights
- ours: `greedy_decode`
- int8: ours with int8 weights in the language model's layers (`--quantize int8`, on a CPU)
- OFT: a chunk of actions in one pass over action slots, the same weights with OFT's head behind

Weights are random, of any size, made where they run. The sides take turns, one observation a round,
so that the load of the machine hits all alike, and what they answer is compared.
"""

import copy
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaForCausalLM, LogitsProcessor, LogitsProcessorList

from invact_vla.core.machine import device_name
from invact_vla.core.run_folder import save_result
from invact_vla.core.text_table import text_table
from invact_vla.core.timing import Ratio, Timing, take_turns
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.config import OftHeadConfig, OpenVLAConfig, TokensHeadConfig
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.inference.int8 import Quantize, quantize_model
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.random_model import fill, random_inputs, random_model
from invact_vla.openvla.tokenizer import EOS
from invact_vla.openvla.vocabulary import ActionTokens
from invact_vla.training.device import resolve_device, resolve_dtype

PROMPT_IDS, THREADS = 24, 1  # length of a prompt; torch threads
PLAIN, OURS, INT8 = "plain generate", "ours", "ours, int8"
OFT, OFT_INT8 = "OFT chunk", "OFT chunk, int8"

# one observation, as `random_inputs` makes it -> ids (1, A), or normalized actions (1, n, A)
AnswerFn = Callable[[dict[str, Tensor]], Tensor]
PARALLEL = (OFT, OFT_INT8)  # sides that answer with a chunk of actions, not with ids
HEAD = ("", "ms per call", "actions/s", "x plain (95 % interval)", "CPU x", "answers")


@dataclass(frozen=True, kw_only=True)
class BenchVlaConfig:
    """What to measure, and how often."""

    model: Path = Path("configs/vla/model_cpu.yaml")  # size
    device: str = "auto"  # auto, cpu, cuda, cuda:N or mps
    dtype: str = "auto"  # auto (bf16 on CUDA, else fp32), fp32, bf16 or fp16
    quantize: Quantize = "none"  # int8: also measure int8 weights in the language model
    rounds: int = 10  # one observation each; one more round warms up
    chunk: int = 8  # actions of one OFT pass; 0: leave OFT out
    seed: int = 0  # of weights and observations
    out: Path | None = None  # run folder for bench.json, every number

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.chunk < 0:
            raise ValueError("need rounds >= 1 and chunk >= 0")


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
    torch.set_num_threads(THREADS)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    before = os.getloadavg()[0]
    model = random_model(with_tokens(load_model_config(config.model)), device, dtype, config.seed)
    seeds = range(config.seed, config.seed + config.rounds + 1)
    asked = [random_inputs(model, 1, PROMPT_IDS, seed) for seed in seeds]
    sides = make_sides(model, config.quantize, config.chunk)
    answers: dict[str, dict[int, Tensor]] = {name: {} for name in sides}
    calls = {
        name: lambda number, name=name: answers[name].update({number: sides[name](asked[number])})
        for name in sides
    }
    timings = take_turns(calls, config.rounds, device, "bench")
    numbers: dict[str, Any] = {
        "model": str(config.model), "parameters": sum(p.numel() for p in model.parameters()),
        "device": str(device), "name": device_name(device), "dtype": str(dtype).split(".")[1],
        "threads": THREADS, "rounds": config.rounds, "seed": config.seed,
        "places": model.embed(**asked[0])[0].shape[1],
        "torch": torch.__version__, "transformers": version("transformers"),
        "load": [before, os.getloadavg()[0]],
    }  # fmt: skip
    if device.type == "cuda":
        numbers["peak_gb"] = torch.cuda.max_memory_allocated(device) / 1e9
    scheme = ActionTokens.of(model.config)
    given = {name: torch.cat([found[n] for n in range(config.rounds)]).cpu()
             for name, found in answers.items()}  # fmt: skip
    numbers["sides"] = {
        name: {**_speed(config, name, timings), **_agreement(name, given, scheme)} for name in sides
    }
    return numbers


def _speed(config: BenchVlaConfig, name: str, timings: dict[str, Timing]) -> dict[str, Any]:
    """faster: actions per second over those of plain generate, by the clock and by processor time."""
    actions = config.chunk if name in PARALLEL else 1
    own, plain = timings[name], timings[PLAIN]
    middle = median(own.clock)
    return {
        "seconds": asdict(own), "actions": actions, "median_s": middle,
        "actions_per_s": actions / middle,
        "faster": asdict(Ratio.of(own.clock, plain.clock, actions)),
        "faster_cpu": asdict(Ratio.of(own.processor, plain.processor, actions)),
    }  # fmt: skip


def _agreement(name: str, answers: dict[str, Tensor], scheme: ActionTokens) -> dict[str, Any]:
    """ids_equal, actions_equal: the fraction that is as plain generate has it (an int8 chunk: as the
    chunk has it); max_difference: of actions in [-1, 1]. None for what others are compared with."""
    found: dict[str, Any] = dict.fromkeys(("ids_equal", "actions_equal", "max_difference"))
    if name in (PLAIN, OFT):
        return found
    pair = [answers[name], answers[OFT if name == OFT_INT8 else PLAIN]]
    if name not in PARALLEL:
        found["ids_equal"] = (pair[0] == pair[1]).double().mean().item()
        pair = [torch.from_numpy(scheme.decode(ids.numpy()))[:, None] for ids in pair]
    difference = (pair[0].double() - pair[1].double()).abs()
    equal = (difference.amax(-1) == 0).double().mean().item()
    return found | {"actions_equal": equal, "max_difference": difference.max().item()}


def report(found: dict[str, Any]) -> str:
    """The table."""
    rows = []
    for name, side in found["sides"].items():
        times = side["faster"]
        rows.append([
            name, f"{1000 * side['median_s']:.1f}", f"{side['actions_per_s']:.2f}",
            f"{times['median']:.2f} ({times['low']:.2f} - {times['high']:.2f})",
            f"{side['faster_cpu']['median']:.2f}", _words(name, side),
        ])  # fmt: skip
    load = found["load"]
    lines = [
        f"{found['model']}, {found['parameters'] / 1e6:.0f} M parameters, {found['dtype']}, "
        f"{found['places']} places before the first id; {found['name']} ({found['device']}), "
        f"{found['threads']} thread(s), torch {found['torch']}; {found['rounds']} rounds",
        text_table(HEAD, rows, left=(0, 5)),
        f"load average {load[0]:.1f} before, {load[1]:.1f} after",
    ]
    if "peak_gb" in found:
        lines.append(f"most memory of the device: {found['peak_gb']:.1f} GB, all sides together")
    return "\n".join(lines)


def _words(name: str, side: dict[str, Any]) -> str:
    """How a side's answers compare with the reference's."""
    if side["max_difference"] is None:
        return ""
    ids = "" if side["ids_equal"] is None else f"{100 * side['ids_equal']:.1f} % of ids and "
    return (
        f"{ids}{100 * side['actions_equal']:.0f} % of actions as {OFT if name == OFT_INT8 else PLAIN}, "
        f"difference at most {side['max_difference']:.3g} of [-1, 1]"
    )


def with_tokens(config: OpenVLAConfig) -> OpenVLAConfig:
    """The config with the published head, one action a call."""
    return replace(config, invact=replace(config.invact, head=TokensHeadConfig(), chunk=1))


def make_sides(model: OpenVLA, quantize: Quantize, chunk: int) -> dict[str, AnswerFn]:
    """All sides of a model with the published head; the plain loop is the first."""
    sides = {PLAIN: plain_generate(model)}
    names: dict[Quantize, tuple[str, str]] = {"none": (OURS, OFT), "int8": (INT8, OFT_INT8)}
    for kind in dict.fromkeys(("none", quantize)):
        ready = shared_copy(model)
        quantize_model(ready, kind)
        sides[names[kind][0]] = ours(ready)
        if chunk:
            sides[names[kind][1]] = oft(ready, chunk)
    return sides


def ours(model: OpenVLA) -> AnswerFn:
    """greedy_decode."""
    count, allowed = model.config.invact.action_dim, model.config.allowed_ids

    def answer(inputs: dict[str, Any]) -> Tensor:
        return greedy_decode(model, n_tokens=count, allowed=allowed, **inputs)[0]

    return answer


def plain_generate(model: OpenVLA) -> AnswerFn:
    """The loop that transformers offers: images put before the text, then `generate`."""
    config = copy.deepcopy(model.language_model.config)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        llama = LlamaForCausalLM(config).eval()
    llama.load_state_dict(model.language_model.state_dict(), assign=True)
    llama.model.rotary_emb = model.language_model.model.rotary_emb
    generation = GenerationConfig(
        max_new_tokens=model.config.invact.action_dim, do_sample=False, eos_token_id=None,
        pad_token_id=model.config.pad_token_id,
    )  # fmt: skip
    allowed = model.config.allowed_ids
    processors = LogitsProcessorList([] if allowed is None else [_Only(list(allowed))])

    def answer(inputs: dict[str, Tensor]) -> Tensor:
        embedded, _ = model.embed(**inputs)
        mask = embedded.new_ones(embedded.shape[:2], dtype=torch.long)
        return llama.generate(  # type: ignore[attr-defined]
            inputs_embeds=embedded, attention_mask=mask, generation_config=generation,
            logits_processor=processors,
        )  # type: ignore[return-value]  # fmt: skip

    return answer


class _Only(LogitsProcessor):
    """Choose among some ids."""

    def __init__(self, allowed: list[int]) -> None:
        self.allowed = allowed

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        hidden = torch.full_like(scores, float("-inf"))
        hidden[:, self.allowed] = scores[:, self.allowed]
        return hidden


def oft(model: OpenVLA, chunk: int) -> AnswerFn:
    """OFT's head, with random weights, behind the same towers and language model."""
    own = replace(model.config.invact, head=OftHeadConfig(), chunk=chunk)
    config = replace(model.config, invact=own)
    with torch.device("meta"):
        other = OpenVLA(config)
    for name, module in model.named_children():
        setattr(other, name, module)
    assert other.action_head is not None
    other.action_head.to(next(model.parameters()).dtype).to_empty(device=model.device)
    fill(other.action_head)
    slots = torch.full((1, config.slots + 1), EOS, device=model.device)

    def answer(inputs: dict[str, Tensor]) -> Tensor:
        length = inputs["input_ids"].shape[1]
        ids = torch.cat([inputs["input_ids"], slots], dim=1)
        places = length + torch.arange(config.slots, device=ids.device)[None]
        return other(**{**inputs, "input_ids": ids}, slots=places).actions

    return answer


def shared_copy(model: OpenVLA) -> OpenVLA:
    """A copy whose parameters are the same tensors, to have some of its modules replaced."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})
