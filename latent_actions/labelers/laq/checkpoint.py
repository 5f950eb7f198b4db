"""LAQ weights, read strictly: a folder of config.json and model.safetensors, or a published .pt file.

LAPA publishes a bare state dict (`laq_openx.pt`), with or without the `module.` prefix of
DistributedDataParallel. What it does not say is taken from a config.json beside it or, without one,
from the shapes of its tensors and the 8x8 patches that all published models have.
"""

import dataclasses
import logging
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, write_json
from invact_vla.core.limits import some
from invact_vla.training.device import CPU, Device, resolve_device
from invact_vla.untrusted import torch_files
from invact_vla.untrusted.model_config import on_meta
from latent_actions.labelers.laq.config import LaqConfig, config_of_weights, read_config
from latent_actions.labelers.laq.model import LatentActionQuantizer

logger = logging.getLogger(__name__)
WEIGHTS = "model.safetensors"
PICKLED = (".pt", ".pth", ".ckpt")


def save_pretrained(model: LatentActionQuantizer, folder: Path) -> None:
    """Write config.json and model.safetensors, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", dataclasses.asdict(model.config))
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    with atomic_file(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)


def weights_of(path: Path) -> Path:
    """The weights file that a path means: itself, or that of a folder, which holds model.safetensors
    or one .pt file. UserError if there is none."""
    path = Path(path)
    if not path.is_dir():
        if path.is_file() and path.suffix in PICKLED:
            return path
        raise UserError(f"no LAQ at {path}: expected a folder with {WEIGHTS}, or a .pt file")
    found = sorted(p for p in path.iterdir() if p.suffix in PICKLED)
    if (path / WEIGHTS).is_file() or len(found) != 1:
        return path / WEIGHTS
    return found[0]


def stored_config(path: Path, lapa_compat: bool | None = None) -> LaqConfig:
    """The architecture of the LAQ at `path` (see `weights_of`), without its weights where a
    config.json tells it. lapa_compat: overrides the file if given."""
    return _config(weights_of(path), lapa_compat)


def from_pretrained(
    path: Path, lapa_compat: bool | None = None, device: Device = CPU
) -> LatentActionQuantizer:
    """Load a LAQ folder or .pt file in eval mode, in fp32, on `device` (training/device.py).
    lapa_compat: overrides config.json if given.

    Missing files, missing, unexpected or misshapen tensors are a UserError that names them."""
    file, place = weights_of(path), resolve_device(device)
    config = _config(file, lapa_compat)
    model = on_meta(lambda: LatentActionQuantizer(config), str(file))
    weights = read_tensors(file, place)
    check_weights(model.state_dict(), weights, file)
    # pickled tensors are views of the file, which may change: those are copied
    copy = file.suffix in PICKLED
    weights = {k: v.to(place, torch.float32, copy=copy) for k, v in weights.items()}
    model.load_state_dict(weights, assign=True)
    return model.eval()


def read_tensors(path: Path, device: torch.device = CPU) -> dict[str, Tensor]:
    """Tensors of a safetensors or .pt file; a missing or broken file is a UserError."""
    if not path.is_file():
        raise UserError(f"no file {path}: a LAQ folder holds config.json and {WEIGHTS}")
    if path.suffix in PICKLED:
        return torch_files.read_tensors(path)
    return torch_files.read_safetensors(path, device)


def _config(file: Path, lapa_compat: bool | None) -> LaqConfig:
    changes = {} if lapa_compat is None else {"lapa_compat": lapa_compat}
    changes |= {"residual": False} if lapa_compat else {}
    beside = file.parent / "config.json"
    if beside.is_file() or file.suffix not in PICKLED:
        return read_config(beside, **changes)
    config = config_of_weights(torch_files.read_tensors(file), str(file))
    logger.info(
        "%s: no config.json beside it; by its tensors %d codes of %d, frames of %d px",
        file, config.code_seq_len, config.codebook_size, config.image_size,
    )  # fmt: skip
    return config


def check_weights(expected: dict[str, Tensor], came: dict[str, Tensor], path: Path | str) -> None:
    """Compare names, shapes and whether numbers are whole (quantized weights, whose scale nobody knows)
    or none; the first few differences go into the UserError."""
    problems = [f"missing {k}" for k in expected if k not in came]
    problems += [f"unexpected {k}" for k in came if k not in expected]
    for key in expected.keys() & came.keys():
        if expected[key].shape != came[key].shape:
            problems.append(f"{key} is {tuple(came[key].shape)}, not {tuple(expected[key].shape)}")
        elif expected[key].is_floating_point() != came[key].is_floating_point():
            problems.append(f"{key} holds {came[key].dtype}, not {expected[key].dtype}")
    if problems:
        found = f"{len(problems)} differences): {some(sorted(problems))}"
        raise UserError(f"{path} does not fit its config.json ({found}")
    torch_files.check_finite(came, path)
