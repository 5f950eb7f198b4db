"""Models of transformers from folders and the hub: safetensors alone, no remote code, every tensor from
the file, and no model larger than its file."""

from pathlib import Path
from typing import Any

import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.limits import inside, short, some
from invact_vla.training.device import CPU
from invact_vla.untrusted.torch_files import stored_shapes, weight_files

MAX_LAYERS = 1024
SLACK = 1.1  # numbers that a model may have over those of its file: tied weights are there once


def fetch(name: str, patterns: tuple[str, ...] = ("*.json", "*.safetensors")) -> Path:
    """The local folder of `name`: itself if it is a folder, else a repository of the hub, "owner/name"
    or "owner/name@revision" (a branch, a tag or, to pin it, a commit), downloaded once into the hub's
    cache. UserError if there is none."""
    if Path(name).is_dir():
        return Path(name)
    repository, _, revision = name.partition("@")
    if repository.count("/") != 1 or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(
            f"no folder {short(name)}: expected a folder, or a name on the hub such as owner/name or "
            "owner/name@revision; correct the path"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=list(patterns))
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise UserError(
            f"no folder {short(name)}, and the hub gave none of that name: {short(error)}"
        ) from error


def published_model(kind: Any, name: str, device: torch.device = CPU) -> Any:
    """A model of transformers in eval mode and fp32 on `device`, every tensor of it from the weights.

    kind: the class, or AutoModel. name: as in `fetch`. UserError if the folder cannot be read, asks for
    code of its own, has no safetensors, or lacks a tensor (transformers would draw it at random).
    """
    folder = fetch(name)
    _refuse_size(kind, folder)
    try:
        with torch.device("cpu"):
            model, report = kind.from_pretrained(
                folder, dtype="float32", output_loading_info=True, **_STRICT, use_safetensors=True
            )
    except Exception as error:
        raise UserError(
            f"cannot read {kind.__name__} weights {short(name)!r}: {short(error)}; give a folder with "
            "config.json and model.safetensors"
        ) from error
    missing = sorted(map(str, report["missing_keys"]))
    if missing:
        raise UserError(
            f"{short(name)!r} is no {kind.__name__}: {len(missing)} tensors are missing, such as "
            f"{some(missing)}"
        )
    return model.to(device).eval().requires_grad_(False)


_STRICT = {"trust_remote_code": False, "local_files_only": True}


def _refuse_size(kind: Any, folder: Path) -> None:
    """UserError for a folder whose config.json asks for a larger model than its files hold."""
    from transformers import AutoConfig

    values = read_json(inside(folder, "config.json"))
    if not isinstance(values, dict) or _layers(values) > MAX_LAYERS:
        raise UserError(f"{folder}/config.json is no config of at most {MAX_LAYERS} layers")
    shapes = [shape for path in weight_files(folder) for shape in stored_shapes(path).values()]
    stored = sum(torch.Size(shape).numel() for shape in shapes)
    try:
        config_class = getattr(kind, "config_class", None) or AutoConfig
        config = config_class.from_pretrained(folder, **_STRICT)
        with torch.device("meta"):
            build = kind.from_config if hasattr(kind, "from_config") else kind._from_config
            model = build(config)
    except Exception as error:
        raise UserError(
            f"{folder}/config.json describes no {kind.__name__} that transformers itself has "
            f"({short(error)}): code beside the weights is not run"
        ) from error
    asked = sum(parameter.numel() for parameter in model.parameters())
    if asked > SLACK * stored:
        raise UserError(
            f"{folder} is incomplete or damaged: its config.json asks for {asked} numbers, tensors are "
            f"missing from its files, which hold {stored}"
        )


def _layers(values: Any) -> int:
    """The largest number of layers that a config names, in any of its parts."""
    if not isinstance(values, dict):
        return 0
    own = [n for k, n in values.items() if type(n) is int and ("layer" in k or "depth" in k)]
    return max([0, *own, *map(_layers, values.values())])
