"""`invact vla verify`: hold a checkpoint against recorded inputs and outputs of a reference program.

The folder has the weights and config, `inputs.safetensors` and `expected.safetensors`. An adapter folder
is held against them on its base, through the adapter and merged; its inputs may lie with the base.

Inputs: pixel_values, input_ids, attention_mask, labels, prompt_ids, proprio (normalized), picture.
Axis letters: B batch, L text ids, K action slots, n actions of a chunk, A numbers of an action.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.text_table import exit_code, print_agreement
from invact_vla.data.action_stats import ActionStats, unnormalize
from invact_vla.openvla.adapters.adapter import load_on_base
from invact_vla.openvla.adapters.lora import merge
from invact_vla.openvla.checkpoints.checkpoint import from_pretrained
from invact_vla.openvla.checkpoints.folder import checkpoint_folder, is_adapter
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.processor import FILE, ImageProcessor
from invact_vla.openvla.tokenizer import EOS
from invact_vla.openvla.vocabulary import ActionTokens
from invact_vla.untrusted.torch_files import read_safetensors

PICTURE_TOLERANCE = 1e-3  # of pixel_values made from a raw picture
INPUTS, EXPECTED = "inputs.safetensors", "expected.safetensors"
PUBLISHED_KEYS = ("libero_10", "libero_10_no_noops")  # statistics behind recorded actions
Tensors = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What to hold against its recorded outputs."""

    POSITIONAL: ClassVar[str] = "folder"

    folder: Path  # checkpoint, adapter or OpenVLA-OFT folder with recorded inputs and outputs
    base: Path | None = None  # of an adapter folder: the checkpoint that it was trained on
    merged: bool | None = None  # of an adapter folder: true merged, false not merged; null: both


def main(config: VerifyConfig) -> int:
    """Print the largest error of each recorded tensor; 0 when all agree, 1 when one does not."""
    if not config.folder.is_dir():
        raise UserError(f"no folder {config.folder}")
    folder = config.folder if is_adapter(config.folder) else checkpoint_folder(config.folder)
    if is_adapter(folder) and config.base is None:
        raise UserError(
            f"{folder} is a LoRA adapter: give the checkpoint that it was trained on with --base"
        )
    expected = read_safetensors(folder / EXPECTED)
    unknown = set(expected) - NAMES
    if unknown or not expected:
        raise UserError(
            f"{folder / EXPECTED}: unknown tensors {sorted(unknown)}; known: {sorted(NAMES)}"
        )
    path = folder / INPUTS
    if config.base is not None and not path.is_file():
        path = checkpoint_folder(config.base) / INPUTS
    inputs = read_safetensors(path)
    agree: list[bool] = []
    for way, model in _models(config, folder):
        if way:
            print(f"{way}:")
        computed = compute(model, inputs, expected)
        agree += print_agreement(computed, {n: expected[n] for n in computed})
    if {"picture", "pixel_values"} <= set(inputs) and (folder / FILE).is_file():
        picture = Image.fromarray(inputs["picture"].numpy())
        pixels = ImageProcessor.load(folder).process(picture)  # as it was published
        recorded = {"pixel_values": inputs["pixel_values"]}
        agree += print_agreement({"pixel_values": pixels}, recorded, PICTURE_TOLERANCE)
    return exit_code(agree)


def _models(config: VerifyConfig, folder: Path) -> Iterator[tuple[str, OpenVLA]]:
    """(what is held against the outputs, model), one after the other."""
    if not is_adapter(folder):
        if config.base is not None or config.merged is not None:
            raise UserError(f"{folder} is no adapter folder: --base and --merged are for adapters")
        yield "", from_pretrained(folder)
        return
    assert config.base is not None
    model = load_on_base(config.base, folder)
    if config.merged is not True:
        yield "through the adapter", model
    if config.merged is not False:
        yield "merged", merge(model)


def compute(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    """Our values for the recorded tensors, by name. `expected` says what to compute; its
    values only give the ids to detokenize, the count of ids and the choice of statistics."""
    computed: Tensors = {}
    with torch.inference_mode():
        for function, names in GROUPS.items():
            if function is not (_greedy if model.config.slots else _parallel) and names & set(
                expected
            ):
                computed |= function(model, inputs, expected)
    lacking = set(expected) - set(computed) - {"detok_ids"}
    if lacking:
        raise UserError(
            f"expected.safetensors has {sorted(lacking)}, which this model does not compute: it has "
            f"{'no' if not model.config.slots else 'an'} OpenVLA-OFT head"
        )
    found = {name: value for name, value in computed.items() if name in expected}
    # the recorded shape where only the batch axis of 1 is written differently
    same = {n: v.numel() == expected[n].numel() for n, v in found.items()}
    return {n: v.reshape(expected[n].shape) if same[n] else v for n, v in found.items()}


def _vision(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    features = model.vision_features(_input(inputs, "pixel_values"))
    return {"vision_features": features, "projected": model.projector(features)}


def _text(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    """One plain pass over input_ids."""
    if "loss" in expected:
        _input(inputs, "labels")
    given = {n: inputs[n] for n in ("attention_mask", "pixel_values", "labels") if n in inputs}
    out = model(_input(inputs, "input_ids"), **given, proprio=_state(model, inputs))
    computed = {"logits": out.logits, "last_logits": out.logits[:, -1]}
    return computed if out.loss is None else {**computed, "loss": out.loss}


def _greedy(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    """Decode after prompt_ids for the first image(s), and the actions these ids mean."""
    prompt = inputs["prompt_ids"] if "prompt_ids" in inputs else _input(inputs, "input_ids")
    pixels = inputs["pixel_values"][: len(prompt)] if "pixel_values" in inputs else None
    count = model.config.invact.action_dim * model.config.invact.chunk
    if "greedy_ids" in expected:
        count = expected["greedy_ids"].shape[-1]
    ids, logits = greedy_decode(model, prompt, count, pixels, proprio=_state(model, inputs))
    normalized = ActionTokens.of(model.config).decode(ids.numpy())
    computed = {"greedy_ids": ids, "greedy_logits": logits}
    return computed | _actions(model, normalized, expected)


def _parallel(model: OpenVLA, inputs: Tensors, expected: Tensors, prefix: str = "") -> Tensors:
    """One pass over prompt, slots and EOS; without a head of the model's own the slots are read as
    action ids."""
    prompt, count = _input(inputs, "input_ids"), model.config.slots
    ids = torch.cat([prompt, prompt.new_full((len(prompt), count + 1), EOS)], dim=1)
    places = (prompt.shape[1] + torch.arange(count)).expand(len(prompt), -1)
    pixels, state = _input(inputs, "pixel_values"), _state(model, inputs)
    out = model(ids, torch.ones_like(ids), pixels, proprio=state, slots=places)
    if out.actions is None:
        chosen = rearrange(out.logits.argmax(-1), "b (n a) -> b n a", n=model.config.invact.chunk)
        normalized = ActionTokens.of(model.config).decode(chosen.numpy())
    else:
        normalized = out.actions.double().numpy()
    return {f"{prefix}hidden": out.hidden} | _actions(model, normalized, expected, prefix)


def _discrete(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    """The same pass without head and state token."""
    if not model.config.slots:
        return {}
    plain = copy.copy(model)
    plain._modules = {**model._modules, "action_head": None, "proprio_projector": None}
    return _parallel(plain, inputs, expected, "discrete_")


def _detokenized(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    if "detok_ids" not in expected:
        raise UserError(f"expected.safetensors lacks 'detok_ids': it has {sorted(expected)}")
    values = ActionTokens.of(model.config).decode(expected["detok_ids"].numpy())
    return {"detok_values": torch.from_numpy(values)}


GROUPS = {
    _vision: {"vision_features", "projected"},
    _text: {"logits", "loss", "last_logits"},
    _greedy: {"greedy_ids", "greedy_logits", "normalized_actions", "actions"},
    _parallel: {"hidden", "normalized_actions", "actions"},
    _discrete: {"discrete_hidden", "discrete_actions"},
    _detokenized: {"detok_ids", "detok_values"},
}
NAMES = set().union(*GROUPS.values())


def _actions(
    model: OpenVLA, normalized: np.ndarray, expected: Tensors, prefix: str = ""
) -> Tensors:
    """The normalized actions, and, where these are wanted, the actions under libero_10's statistics,
    or else under those nearest to what was recorded."""
    computed = {f"{prefix}normalized_actions": torch.from_numpy(normalized)}
    if (name := f"{prefix}actions") not in expected:
        return computed
    norm_stats = model.config.norm_stats
    keys = [key for key in PUBLISHED_KEYS if key in norm_stats][:1] or sorted(norm_stats)
    if not keys:
        raise UserError("expected.safetensors has actions, but config.json has no norm_stats")
    stats = [ActionStats.from_json(norm_stats[key]["action"]) for key in keys]
    size = normalized.shape[-1]
    if not any(len(s.q01) == size for s in stats):
        size = model.config.invact.action_dim
    flat = normalized.reshape(-1, size)
    actions = [unnormalize(flat, s) for s in stats if len(s.q01) == size]
    if not actions:
        raise UserError(f"no norm_stats of {size} action dimensions in config.json: {keys}")
    goal = expected[name].double().numpy().reshape(-1)
    if goal.size == actions[0].size:
        actions.sort(key=lambda a: float(np.abs(a.reshape(-1) - goal).max()))
    return computed | {name: torch.from_numpy(actions[0])}


def _state(model: OpenVLA, inputs: Tensors) -> Tensor | None:
    """(B, S) normalized state for a model with a state token."""
    if model.proprio_projector is None:
        return None
    return _input(inputs, "proprio").reshape(-1, model.config.invact.proprio_dim)


def _input(inputs: Tensors, name: str) -> Tensor:
    if name not in inputs:
        raise UserError(f"inputs.safetensors lacks {name!r}: it has {sorted(inputs)}")
    return inputs[name]
