"""UniVLA weights: the published Lightning checkpoint (`lam-stage-2.ckpt`), a bare state dict, or a
folder of config.json and model.safetensors.

A checkpoint also holds its DINOv2 (and, of stage 1, T5): their tensors are not part of the model here.
"""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder, write_json
from invact_vla.training.device import CPU, Device, resolve_device
from invact_vla.untrusted.model_config import on_meta
from invact_vla.untrusted.torch_files import read_research_pickle, read_safetensors, without_prefix
from latent_actions.labelers.laq.checkpoint import check_weights
from latent_actions.labelers.univla.config import (
    UnivlaConfig,
    read_univla_config,
    univla_config_of_weights,
)
from latent_actions.labelers.univla.model import UnivlaModel

PICKLED = (".ckpt", ".pt", ".pth")
OTHERS = ("dino_encoder.", "text_encoder.")  # towers that a checkpoint carries along
PREFIX = "lam."


def save_univla(model: UnivlaModel, folder: Path) -> None:
    """Write config.json and model.safetensors, atomically as a folder."""
    with atomic_folder(folder) as temporary:
        write_json(temporary / "config.json", dataclasses.asdict(model.config))
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, temporary / "model.safetensors")


def univla_weights_of(path: Path) -> Path:
    """The weights file that a path means: itself, or that of a folder. UserError if there is none."""
    path = Path(path)
    if path.is_dir():
        found = sorted(p for p in path.iterdir() if p.suffix in PICKLED)
        return found[0] if len(found) == 1 else path / "model.safetensors"
    if path.is_file() and path.suffix in PICKLED:
        return path
    raise UserError(f"no latent action model at {path}: expected a folder, or a .ckpt file")


def load_univla(path: Path, device: Device = CPU) -> UnivlaModel:
    """The model at `path` in eval mode and fp32; UserError for tensors that are missing, left over or
    misshapen."""
    file = univla_weights_of(path)
    pickled = file.suffix in PICKLED
    weights = read_checkpoint(file) if pickled else read_safetensors(file)
    weights = {k: v for k, v in weights.items() if not k.startswith(OTHERS)}
    beside = file.parent / "config.json"
    if beside.is_file() or not pickled:
        config = read_univla_config(beside)
    else:
        config = univla_config_of_weights(weights, str(file))
    model = on_meta(lambda: UnivlaModel(config), str(file))
    check_weights(model.state_dict(), weights, file)
    place = resolve_device(device)
    model.load_state_dict({k: v.to(place, torch.float32) for k, v in weights.items()}, assign=True)
    return model.eval()


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """All named tensors of a checkpoint, without the prefixes `module.` and `lam.`; UserError if it has
    none. Whatever else it holds does nothing."""
    values: Any = read_research_pickle(file)
    state = values.get("state_dict", values) if isinstance(values, dict) else None
    if not isinstance(state, dict) or not state:
        raise UserError(f"{file}: expected a checkpoint with a state_dict of tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise UserError(f"{file}: its state_dict holds more than named tensors")
    return {name.removeprefix(PREFIX): tensor for name, tensor in without_prefix(state).items()}


__all__ = ["UnivlaConfig", "load_univla", "read_checkpoint", "save_univla", "univla_weights_of"]
