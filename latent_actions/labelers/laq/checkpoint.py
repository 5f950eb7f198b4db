"""LAQ folders: config.json and model.safetensors, read strictly."""

import dataclasses
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, write_json
from invact_vla.core.limits import some
from invact_vla.training.device import CPU, Device, resolve_device
from invact_vla.untrusted.model_config import on_meta
from invact_vla.untrusted.torch_files import read_safetensors
from latent_actions.labelers.laq.config import LaqConfig, read_config
from latent_actions.labelers.laq.model import LatentActionQuantizer


def save_pretrained(model: LatentActionQuantizer, folder: Path) -> None:
    """Write config.json and model.safetensors, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", dataclasses.asdict(model.config))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_file(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)


def from_pretrained(
    folder: Path, lapa_compat: bool | None = None, device: Device = CPU
) -> LatentActionQuantizer:
    """Load a LAQ folder in eval mode. lapa_compat: overrides config.json if given. Weights are read
    straight to `device` (training/device.py).

    Missing files, missing, unexpected or misshapen tensors are a UserError that names them.
    """
    changes = {} if lapa_compat is None else {"lapa_compat": lapa_compat}
    if lapa_compat:
        changes["residual"] = False
    config = read_config(folder / "config.json", **changes)
    model = on_meta(lambda: LatentActionQuantizer(config), str(folder / "config.json"))
    weights = read_tensors(folder / "model.safetensors", resolve_device(device))
    check_weights(model.state_dict(), weights, folder / "model.safetensors")
    model.load_state_dict({k: v.float() for k, v in weights.items()}, assign=True)
    return model.eval()


def read_tensors(path: Path, device: torch.device = CPU) -> dict[str, Tensor]:
    """Tensors of a safetensors file; a missing or broken file is a UserError."""
    if not path.is_file():
        raise UserError(f"no file {path}: a LAQ folder holds config.json and model.safetensors")
    return read_safetensors(path, device)


def check_weights(expected: dict[str, Tensor], came: dict[str, Tensor], path: Path) -> None:
    """Compare names and shapes; the first few differences go into the UserError."""
    problems = [f"missing {k}" for k in expected if k not in came]
    problems += [f"unexpected {k}" for k in came if k not in expected]
    for key in expected.keys() & came.keys():
        if expected[key].shape != came[key].shape:
            problems.append(f"{key} is {tuple(came[key].shape)}, not {tuple(expected[key].shape)}")
    if problems:
        shown = some(sorted(problems))
        raise UserError(
            f"{path} does not fit its config.json ({len(problems)} differences): {shown}"
        )


__all__ = ["LaqConfig", "check_weights", "from_pretrained", "read_tensors", "save_pretrained"]
