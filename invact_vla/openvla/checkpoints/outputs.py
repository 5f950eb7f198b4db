"""What a model computes for recorded inputs, under the names that reference programs record.

Inputs: pixel_values, input_ids, attention_mask, labels, prompt_ids, proprio (normalized), picture.
Axis letters: B batch, L text ids, K action slots, n actions of a chunk, A numbers of an action.
"""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.data.action_stats import ActionStats, unnormalize
from invact_vla.openvla.action_tokens import ActionTokens
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.model import OpenVLA, OpenVLAOutput
from invact_vla.openvla.processor import ImageProcessor
from invact_vla.openvla.tokenizer import EOS

Tensors = dict[str, Tensor]
PUBLISHED_KEYS = ("libero_10", "libero_10_no_noops")  # statistics behind recorded actions
_VISION = {"vision_features", "projected"}
_TEXT = {"logits", "loss", "last_logits"}
_GREEDY = {"greedy_ids", "greedy_logits", "normalized_actions", "actions"}
_PARALLEL = {"hidden", "normalized_actions", "actions"}
_DISCRETE = {"discrete_hidden", "discrete_actions"}
_DETOK = {"detok_ids", "detok_values"}
NAMES = _VISION | _TEXT | _GREEDY | _PARALLEL | _DISCRETE | _DETOK


def compute(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    """Our values for the recorded tensors, by name. `expected` says what to compute; its
    values only give the ids to detokenise, the count of ids and the choice of statistics."""
    wanted = set(expected)
    chunk = _parallel if model.config.slots else _greedy
    groups: list[tuple[set[str], Callable[[OpenVLA, Tensors, Tensors], Tensors]]] = [
        (_VISION, _vision),
        (_TEXT, _text),
        (_PARALLEL if model.config.slots else _GREEDY, chunk),
        (_DISCRETE, _discrete),
        (_DETOK, _detokenized),
    ]
    computed: Tensors = {}
    with torch.inference_mode():
        for names, function in groups:
            if wanted & names:
                computed |= function(model, inputs, expected)
    lacking = wanted - set(computed) - {"detok_ids"}
    if lacking:
        raise UserError(
            f"expected.safetensors has {sorted(lacking)}, which this model does not compute: it has "
            f"{'no' if not model.config.slots else 'an'} OpenVLA-OFT head"
        )
    return {n: v.reshape(_shape(v, expected[n])) for n, v in computed.items() if n in wanted}


def pixels_of_picture(folder: Path, inputs: Tensors) -> Tensor | None:
    """pixel_values of the recorded raw `picture` (H, W, 3), if there is one, by the folder's own
    processor as it was published."""
    if "picture" not in inputs or not (folder / "preprocessor_config.json").is_file():
        return None
    processor = ImageProcessor.load(folder)
    return processor.process(Image.fromarray(inputs["picture"].numpy()))


def _vision(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    features = model.vision_features(_input(inputs, "pixel_values"))
    return {"vision_features": features, "projected": model.project(features)}


def _text(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    """One plain pass over input_ids."""
    if "loss" in expected:
        _input(inputs, "labels")
    out = model(
        _input(inputs, "input_ids"),
        inputs.get("attention_mask"),
        inputs.get("pixel_values"),
        inputs.get("labels"),
        proprio=_state(model, inputs),
    )
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
    return computed | _actions(model, normalized, expected, "")


def _parallel(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    """One pass over action slots, with the model's own head."""
    out = _slots(model, inputs)
    if out.actions is None:
        normalized = _discrete_actions(model, out)
    else:
        normalized = out.actions.double().numpy()
    assert out.hidden is not None
    return {"hidden": out.hidden} | _actions(model, normalized, expected, "")


def _discrete(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    """The same pass without head and state token: the slots are read as action ids."""
    if not model.config.slots:
        return {}
    plain = copy.copy(model)
    plain._modules = {**model._modules, "action_head": None, "proprio_projector": None}
    out = _slots(plain, inputs)
    assert out.hidden is not None
    named = _actions(model, _discrete_actions(model, out), expected, "discrete_")
    return {"discrete_hidden": out.hidden} | named


def _slots(model: OpenVLA, inputs: Tensors) -> OpenVLAOutput:
    """A pass over prompt, slots and EOS."""
    prompt, count = _input(inputs, "input_ids"), model.config.slots
    ids = torch.cat([prompt, prompt.new_full((len(prompt), count + 1), EOS)], dim=1)
    places = (prompt.shape[1] + torch.arange(count)).expand(len(prompt), -1)
    state = _state(model, inputs)
    return model(
        ids, torch.ones_like(ids), _input(inputs, "pixel_values"), proprio=state, slots=places
    )


def _discrete_actions(model: OpenVLA, out: OpenVLAOutput) -> np.ndarray:
    """Normalized actions (B, n, A) from logits at the slots."""
    assert out.logits is not None
    ids = rearrange(out.logits.argmax(-1), "b (n a) -> b n a", n=model.config.invact.chunk)
    return ActionTokens.of(model.config).decode(ids.numpy())


def _detokenized(model: OpenVLA, inputs: Tensors, expected: Tensors) -> Tensors:
    if "detok_ids" not in expected:
        raise UserError(f"expected.safetensors lacks 'detok_ids': it has {sorted(expected)}")
    values = ActionTokens.of(model.config).decode(expected["detok_ids"].numpy())
    return {"detok_values": torch.from_numpy(values)}


def _actions(model: OpenVLA, normalized: np.ndarray, expected: Tensors, prefix: str) -> Tensors:
    """The normalized actions, and the actions under some statistics where these are wanted."""
    computed = {f"{prefix}normalized_actions": torch.from_numpy(normalized)}
    name = f"{prefix}actions"
    if name in expected:
        computed[name] = _unnormalized(model, normalized, expected[name])
    return computed


def _unnormalized(model: OpenVLA, normalized: np.ndarray, recorded: Tensor) -> Tensor:
    """Actions under libero_10's statistics, or else under those nearest to what was recorded."""
    norm_stats = model.config.norm_stats
    keys = [key for key in PUBLISHED_KEYS if key in norm_stats][:1] or sorted(norm_stats)
    if not keys:
        raise UserError("expected.safetensors has actions, but config.json has no norm_stats")
    stats = {k: ActionStats.from_json(norm_stats[k]["action"]) for k in keys}
    size = normalized.shape[-1]
    if not any(len(s.q01) == size for s in stats.values()):
        size = model.config.invact.action_dim
    normalized = normalized.reshape(-1, size)
    actions = [unnormalize(normalized, s) for s in stats.values() if len(s.q01) == size]
    if not actions:
        raise UserError(f"no norm_stats of {size} action dimensions in config.json: {keys}")
    goal = recorded.double().numpy().reshape(-1)
    if goal.size != actions[0].size:
        return torch.from_numpy(actions[0])
    return torch.from_numpy(min(actions, key=lambda a: float(np.abs(a.reshape(-1) - goal).max())))


def _state(model: OpenVLA, inputs: Tensors) -> Tensor | None:
    """(B, S) normalized state for a model with a state token."""
    if model.proprio_projector is None:
        return None
    return _input(inputs, "proprio").reshape(-1, model.config.invact.proprio_dim)


def _shape(computed: Tensor, expected: Tensor) -> torch.Size:
    """The recorded shape where only the batch axis of 1 is written differently."""
    return expected.shape if computed.numel() == expected.numel() else computed.shape


def _input(inputs: Tensors, name: str) -> Tensor:
    if name not in inputs:
        raise UserError(f"inputs.safetensors lacks {name!r}: it has {sorted(inputs)}")
    return inputs[name]
