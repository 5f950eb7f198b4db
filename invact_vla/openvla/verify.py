"""Hold a checkpoint folder against recorded inputs and outputs of a reference program.

The folder has the weights and config, `inputs.safetensors` (pixel_values, input_ids,
attention_mask, labels, prompt_ids) and `expected.safetensors` with any of: vision_features,
projected, logits, loss, greedy_ids, greedy_logits, normalized_actions, actions, detok_ids with
detok_values.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invact_vla.data.action_stats import ActionStats, unnormalize
from invact_vla.errors import UserError
from invact_vla.openvla.action_tokens import ActionTokens
from invact_vla.openvla.checkpoint import from_pretrained, read_safetensors
from invact_vla.openvla.generate import greedy_decode
from invact_vla.openvla.model import OpenVLA

TOLERANCE = 1e-4
PUBLISHED_KEY = "libero_10"  # statistics behind the recorded actions, where there are several
_NAMES = {
    *("vision_features", "projected", "logits", "loss", "greedy_ids", "greedy_logits"),
    *("normalized_actions", "actions", "detok_ids", "detok_values"),
}


def main(folder: Path) -> int:
    """Print the largest error of each recorded tensor; 0 when all agree, 1 when one does not."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no folder {folder}")
    inputs = read_safetensors(folder / "inputs.safetensors")
    expected = read_safetensors(folder / "expected.safetensors")
    unknown = set(expected) - _NAMES
    if unknown or not expected:
        raise UserError(
            f"{folder / 'expected.safetensors'}: unknown tensors {sorted(unknown)}; known: "
            f"{sorted(_NAMES)}"
        )
    model = from_pretrained(folder)
    ours = compute(model, inputs, expected)
    agree = [_compare(name, ours[name], expected[name]) for name in sorted(ours)]
    print("agreement" if all(agree) else "DISAGREEMENT", f"in {sum(agree)} of {len(agree)} tensors")
    return 0 if all(agree) else 1


def compute(
    model: OpenVLA, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Our values for the recorded tensors, by name. `expected` says what to compute; its
    values only give the ids to detokenise, the count of ids and the choice of statistics."""
    wanted = set(expected)
    ours: dict[str, Tensor] = {}
    with torch.inference_mode():
        if wanted & {"vision_features", "projected"}:
            features = model.vision_features(_input(inputs, "pixel_values"))
            ours |= {"vision_features": features, "projected": model.project(features)}
        if wanted & {"logits", "loss"}:
            out = model(
                _input(inputs, "input_ids"),
                inputs.get("attention_mask"),
                inputs.get("pixel_values"),
                inputs.get("labels"),
            )
            ours["logits"] = out.logits
            if "loss" in wanted:
                _input(inputs, "labels")
                ours["loss"] = out.loss.reshape(expected["loss"].shape)
    if wanted & {"greedy_ids", "greedy_logits", "normalized_actions", "actions"}:
        ours |= _greedy(model, inputs, expected)
    if "detok_values" in wanted:
        ids = _recorded(expected, "detok_ids").numpy()
        ours["detok_values"] = torch.from_numpy(ActionTokens.of(model.config).decode(ids))
    return {name: value for name, value in ours.items() if name in wanted}


def _greedy(
    model: OpenVLA, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Decode after prompt_ids for the first image(s), and the actions these ids mean."""
    prompt = _input(inputs, "prompt_ids")
    pixels = inputs["pixel_values"][: len(prompt)] if "pixel_values" in inputs else None
    count = model.config.invact.action_dim * model.config.invact.chunk
    if "greedy_ids" in expected:
        count = expected["greedy_ids"].shape[-1]
    ids, logits = greedy_decode(model, prompt, count, pixels)
    normalized = ActionTokens.of(model.config).decode(ids.numpy())
    ours = {"greedy_ids": ids, "greedy_logits": logits}
    ours["normalized_actions"] = torch.from_numpy(normalized)
    if "actions" in expected:
        ours["actions"] = _actions(model, normalized, expected["actions"])
    return {n: v.reshape(_shape(v, expected[n])) if n in expected else v for n, v in ours.items()}


def _actions(model: OpenVLA, normalized: np.ndarray, recorded: Tensor) -> Tensor:
    """Actions under libero_10's statistics, or else under those nearest to what was recorded."""
    norm_stats = model.config.norm_stats
    keys = [PUBLISHED_KEY] if PUBLISHED_KEY in norm_stats else sorted(norm_stats)
    if not keys:
        raise UserError("expected.safetensors has actions, but config.json has no norm_stats")
    stats = {k: ActionStats.from_json(norm_stats[k]["action"]) for k in keys}
    size = normalized.shape[-1]
    actions = [unnormalize(normalized, s) for s in stats.values() if len(s.q01) == size]
    if not actions:
        raise UserError(f"no norm_stats of {size} action dimensions in config.json: {keys}")
    goal = recorded.double().numpy().reshape(-1)
    if goal.size != actions[0].size:
        return torch.from_numpy(actions[0])
    return torch.from_numpy(min(actions, key=lambda a: float(np.abs(a.reshape(-1) - goal).max())))


def _compare(name: str, ours: Tensor, expected: Tensor) -> bool:
    """Print one line and say whether the two agree."""
    if ours.shape != expected.shape:
        print(f"{name:20} shape {tuple(ours.shape)}, expected {tuple(expected.shape)}: DISAGREES")
        return False
    if not expected.is_floating_point():
        different = int((ours != expected).sum())
        print(f"{name:20} {different} of {expected.numel()} ids differ{_mark(different == 0)}")
        return different == 0
    error = (ours.double() - expected.double()).abs().max().item() if expected.numel() else 0.0
    agrees = error <= TOLERANCE  # false for NaN
    print(f"{name:20} largest error {error:.2e}, allowed {TOLERANCE:.0e}{_mark(agrees)}")
    return agrees


def _mark(agrees: bool) -> str:
    return "" if agrees else ": DISAGREES"


def _shape(ours: Tensor, expected: Tensor) -> torch.Size:
    """The recorded shape where only the batch axis of 1 is written differently."""
    return expected.shape if ours.numel() == expected.numel() else ours.shape


def _input(inputs: dict[str, Tensor], name: str) -> Tensor:
    if name not in inputs:
        raise UserError(f"inputs.safetensors lacks {name!r}: it has {sorted(inputs)}")
    return inputs[name]


def _recorded(expected: dict[str, Tensor], name: str) -> Tensor:
    if name not in expected:
        raise UserError(f"expected.safetensors lacks {name!r}: it has {sorted(expected)}")
    return expected[name]
