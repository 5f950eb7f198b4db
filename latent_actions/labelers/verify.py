"""`invact latent verify PATH`: hold a model against recorded outputs of its published code."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.text_table import exit_code, print_agreement
from latent_actions.labelers.laq.checkpoint import from_pretrained, read_tensors
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.labelers.univla.checkpoint import load_univla
from latent_actions.labelers.univla.model import UnivlaModel


@dataclass(frozen=True, kw_only=True)
class LaqVerifyConfig:
    """Which checkpoint to check against its recorded outputs."""

    POSITIONAL: ClassVar[str] = "path"  # a word without a flag

    path: Path  # folder of a LAQ or of UniVLA, or a weights file in one, with recorded outputs


def main(config: LaqVerifyConfig) -> int:
    """Print the largest error of every tensor of expected.safetensors; 0 if all agree, else 1.

    path: a folder, or a weights file in one. The folder holds the weights (model.safetensors with
    config.json, or a .pt or .ckpt file), inputs.safetensors and expected.safetensors. All in fp32.
    LAPA's LAQ, quirks included: `video` float (B, 3, 2, H, W) in [0, 1] -> any of `first_tokens`,
    `last_tokens`, `delta`, `indices`, `reconstruction` (from hard codes).
    UniVLA's model: `features` float (B, 2, N, D) -> any of `z`, `z_q`, `indices` (task-centric),
    `z_uncontrol`, `indices_uncontrol` (task-irrelevant), `recon`.
    """
    path = config.path
    folder = path.parent if path.is_file() else path
    inputs = read_tensors(folder / "inputs.safetensors")
    expected = read_tensors(folder / "expected.safetensors")
    if "video" in inputs:
        outputs = run(from_pretrained(path, lapa_compat=True), inputs["video"].float())
    elif "features" in inputs:
        outputs = run_univla(load_univla(path), inputs["features"].float())
    else:
        raise UserError(
            f"{folder}/inputs.safetensors: expected `video` or `features`, got {sorted(inputs)}"
        )
    unknown = sorted(expected.keys() - outputs.keys())
    if unknown or not expected:
        raise UserError(
            f"{folder}/expected.safetensors: cannot compare {unknown}; known: {sorted(outputs)}"
        )
    return exit_code(print_agreement(outputs, expected))


@torch.no_grad()
def run(model: LatentActionQuantizer, video: Tensor) -> dict[str, Tensor]:
    """All tensors that a recording may hold, by their recorded names."""
    size = model.config.image_size
    wanted = (3, 2, size, size)
    if video.ndim != 5 or tuple(video.shape[1:]) != wanted:
        raise UserError(f"video: expected (B, {wanted}), got {tuple(video.shape)}")
    output = model(video)
    return {
        "indices": output.quantized.codes,
        "delta": output.quantized.delta.flatten(0, 1),
        "first_tokens": output.first_tokens,
        "last_tokens": output.last_tokens,
        "reconstruction": output.reconstruction,
    }


@torch.no_grad()
def run_univla(model: UnivlaModel, features: Tensor) -> dict[str, Tensor]:
    """The same for UniVLA's model."""
    if features.ndim != 4 or features.shape[1] != 2 or features.shape[3] != model.config.dino_dim:
        raise UserError(
            f"features: expected (B, 2, N, {model.config.dino_dim}), got {tuple(features.shape)}"
        )
    output = model(features)
    found = {
        "indices": output.action.codes,
        "z": model.action_quantizer.decode(output.action.codes),
        "z_q": output.action.vectors[:, None],
        "recon": output.prediction[:, None],
    }
    if output.context is not None:
        found["indices_uncontrol"] = output.context.codes
        found["z_uncontrol"] = model.vq.decode(output.context.codes)
    return found
