"""Adapter folders, in peft's layout: written, and put onto their base.

    adapter_config.json, adapter_model.safetensors   as peft writes them; peft 0.11.1 reads them too
    full_modules.safetensors                         what was trained in full beside the adapter
    config.json, preprocessor_config.json            of the model, with its action statistics
    invact_adapter.json                              hash and path of the base

The last three are ours; published folders have the first line alone.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder, read_json, read_object, write_json
from invact_vla.core.limits import some
from invact_vla.openvla.adapters import lora
from invact_vla.openvla.checkpoints.checkpoint import (
    VLACheckpoint,
    from_pretrained,
    is_adapter_weight,
    published_name,
)
from invact_vla.openvla.checkpoints.config_file import config_to_json, read_config, read_config_file
from invact_vla.openvla.checkpoints.folder import ADAPTER_CONFIG, adapter_folder, checkpoint_folder
from invact_vla.openvla.model import OpenVLA
from invact_vla.untrusted.torch_files import (
    differences,
    read_safetensors,
    read_tensors,
    without_prefix,
)

WEIGHTS, OLD_WEIGHTS = "adapter_model.safetensors", "adapter_model.bin"
FULL_WEIGHTS, SIDECAR = "full_modules.safetensors", "invact_adapter.json"
STATISTICS = "dataset_statistics.json"  # beside published adapters
_PREFIX = "base_model.model."
# fields of peft's config that change what the weights mean, and are handed on to peft
_MEANING = ("lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "lora_bias")
_PLAIN_INITS = (True, False, "gaussian", "orthogonal", "eva")  # the others change the base as well
# fields that must be unset, and what they would mean
_UNSUPPORTED = {
    "modules_to_save": "copies of whole modules",
    "layer_replication": "layers of the base repeated",
    "trainable_token_indices": "rows of the embedding",
    "target_parameters": "adapters on bare parameters",
    "fan_in_fan_out": "transposed weights",
    "alora_invocation_tokens": "adapters that act from a token on",
    "use_qalora": "quantized adapters",
}


def attach(model: OpenVLA, config: lora.LoraConfig, seed: int = 0) -> OpenVLA:
    """Freeze `model` and put fp32 adapters into it, in place; A is random by `seed`, B zero, so that
    outputs stay what they were. What `FULL` names goes on being trained."""
    if config.adapter is not None:
        load_adapter(model, adapter_folder(config.adapter), config.dropout)
    else:
        settings = {"r": config.rank, "lora_alpha": config.alpha, "lora_dropout": config.dropout,
                    "init_lora_weights": "gaussian"}  # fmt: skip
        lora.inject(model, lora.find_targets(model, config), settings, seed)
    unused = {id(p) for module in lora.never_run(model) for p in module.parameters()}
    for name, parameter in model.named_parameters():
        trained = is_adapter_weight(name) or name.startswith(lora.FULL)
        parameter.requires_grad_(trained and id(parameter) not in unused)
    model.constant = frozenset(n for n, p in model.named_parameters() if not p.requires_grad)
    return model


def save_adapter(pretrained: VLACheckpoint, folder: Path, base: Path | None = None) -> None:
    """Write the adapters of a model alone, atomically. base: where the base lies, for the record."""
    import peft

    model = pretrained.model
    if not lora.has_adapters(model):
        raise UserError("this model has no adapters to save")
    state = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    full = {n: t for n, t in model.state_dict().items() if n.startswith(lora.FULL)}
    with atomic_folder(folder) as temporary:
        _save(temporary / WEIGHTS, {f"{_PREFIX}{name}": t for name, t in state.items()})
        if full:
            _save(temporary / FULL_WEIGHTS, full)
        write_json(temporary / ADAPTER_CONFIG, _adapter_config(model, base))
        write_json(temporary / "config.json", config_to_json(model.config))
        pretrained.processor.save(temporary)
        record = {"hash": lora.base_hash(model), "path": None if base is None else str(base)}
        write_json(temporary / SIDECAR, {"base": record})


def load_adapter(model: OpenVLA, folder: Path, dropout: float = 0.0) -> OpenVLA:
    """Put the adapters of a folder onto `model`, in place, in fp32, and what was trained in full.

    UserError if keys or shapes are not those of this base, if the base is another than the recorded
    one, or if the adapter is of a kind that is not known here.
    """
    folder = Path(folder)
    lora.refuse_second(model)
    settings = _settings(folder)
    weights = _adapter_weights(folder)
    recorded = _recorded_hash(folder)
    if recorded is not None and (found := lora.base_hash(model)) != recorded:
        raise UserError(
            f"{folder} was trained on another base (hash {recorded}, this one has {found}): give "
            f"{_base_name(folder)}"
        )
    weights = _without_base_copies(weights, model, folder)
    modules = sorted({name.split(".lora_")[0] for name in weights})
    _check_modules(modules, settings.pop("target_modules"), model, folder)
    lora.inject(model, modules, {**settings, "lora_dropout": dropout, "init_lora_weights": False})
    _fill(model, weights, folder)
    if (folder / FULL_WEIGHTS).is_file():
        expected = {n: t for n, t in model.state_dict().items() if n.startswith(lora.FULL)}
        _copy(expected, read_safetensors(folder / FULL_WEIGHTS), folder / FULL_WEIGHTS)
    return model


def load_on_base(base: Path, adapter: Path) -> OpenVLA:
    """The model of a base folder in fp32 with an adapter attached, in eval mode. Its config is what the
    adapter was saved with, or the base's with the action statistics that lie beside the adapter."""
    base, full = checkpoint_folder(base), Path(adapter) / FULL_WEIGHTS
    if (adapter / "config.json").is_file():
        config = read_config_file(adapter)
    else:
        config = read_config(base)
        if (adapter / STATISTICS).is_file():
            config = replace(config, norm_stats=read_json(adapter / STATISTICS))
    extra = read_safetensors(full) if full.is_file() else None
    return load_adapter(from_pretrained(base, config=config, extra=extra), adapter).eval()


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    plain = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}
    save_file(plain, path, {"format": "pt"})


def _adapter_config(model: OpenVLA, base: Path | None) -> dict[str, Any]:
    """adapter_config.json with the fields that peft 0.11.1 knows, and no others: it refuses those."""
    attached: Any = model.peft_config  # peft puts it there
    config = attached[lora.PEFT_NAME]
    targets = sorted(config.target_modules)
    if set(targets) == set(lora.targets_of(model, lora.PUBLISHED)):
        targets = sorted(lora.PUBLISHED)
    same = (
        "r",
        "lora_alpha",
        "lora_dropout",
        "rank_pattern",
        "alpha_pattern",
        "use_dora",
        "use_rslora",
    )
    unset = ("task_type", "layers_to_transform", "modules_to_save", "revision")
    library = {"base_model_class": "OpenVLAForActionPrediction",
               "parent_library": "prismatic.extern.hf.modeling_prismatic"}  # fmt: skip
    return {
        **{name: getattr(config, name) for name in same}, **dict.fromkeys(unset),
        "peft_type": "LORA", "base_model_name_or_path": "" if base is None else str(base),
        "auto_mapping": library, "bias": "none", "fan_in_fan_out": False, "inference_mode": True,
        "init_lora_weights": "gaussian", "target_modules": targets,
    }  # fmt: skip


def _settings(folder: Path) -> dict[str, Any]:
    """The fields of adapter_config.json that say what its weights mean; target_modules among them."""
    path = folder / ADAPTER_CONFIG
    value = read_object(path)
    if value.get("peft_type") != "LORA":
        raise UserError(f"{path}: expected peft_type LORA, got {value.get('peft_type')}")
    for name, what in _UNSUPPORTED.items():
        if value.get(name):
            raise UserError(f"{path}: {name} ({what}) is not supported: give a plain LoRA adapter")
    if value.get("bias", "none") != "none":
        raise UserError(f"{path}: biases in the adapter are not supported (bias {value['bias']!r})")
    if value.get("init_lora_weights", True) not in _PLAIN_INITS:
        raise UserError(
            f"{path}: init_lora_weights {value['init_lora_weights']!r} changed the base as well; save "
            "the adapter with peft's path_initial_model_for_weight_conversion"
        )
    if not isinstance(value.get("r"), int) or value["r"] < 1:
        raise UserError(f"{path}: expected a rank r of at least 1, got {value.get('r')!r}")
    kept = {name: value[name] for name in _MEANING if value.get(name) is not None}
    selects = any(map(value.get, ("layers_to_transform", "layers_pattern", "exclude_modules")))
    targets = None if selects else value.get("target_modules")
    return {"r": value["r"], **kept, "target_modules": targets}


def _adapter_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors under peft's names without prefix: `<module>.lora_A.weight`."""
    is_old = (folder / OLD_WEIGHTS).is_file() and not (folder / WEIGHTS).is_file()
    read, name = (read_tensors, OLD_WEIGHTS) if is_old else (read_safetensors, WEIGHTS)
    weights = without_prefix(read(folder / name))
    return {
        n.removeprefix(_PREFIX).replace(f".{lora.PEFT_NAME}.", "."): t for n, t in weights.items()
    }


def _recorded_hash(folder: Path) -> str | None:
    if not (folder / SIDECAR).is_file():
        return None
    base = read_object(folder / SIDECAR).get("base")
    if not isinstance(base, dict) or not isinstance(base.get("hash"), str):
        raise UserError(f"{folder / SIDECAR}: expected an object with the hash of the base")
    return base["hash"]


def _base_name(folder: Path) -> str:
    """What the adapter says of its base."""
    name = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    return f"the base that it names, {name}" if name else "the checkpoint that it was trained on"


def _without_base_copies(
    weights: dict[str, Tensor], model: OpenVLA, folder: Path
) -> dict[str, Tensor]:
    """The adapters' own tensors. peft 0.11 saved the weight below an adapter of lm_head as well:
    where such a copy is not the base's weight, the base is another one."""
    state = {published_name(name): tensor for name, tensor in model.state_dict().items()}
    own, unknown, other = {}, [], []
    for name, tensor in weights.items():
        base = state.get(name.replace(".base_layer", ""))
        if ".lora_" in name:
            own[name] = tensor
        elif base is None:
            unknown.append(name)
        elif base.shape != tensor.shape or not torch.allclose(
            base.float().cpu(), tensor.float(), rtol=2**-7, atol=1e-6
        ):
            other.append(name)
    if unknown:
        raise UserError(f"{folder}: unexpected tensors in the adapter: {some(sorted(unknown))}")
    if other:
        raise UserError(
            f"{folder} was trained on another base: it carries {some(sorted(other))}, which differs "
            f"here; give {_base_name(folder)}"
        )
    if not own:
        raise UserError(
            f"{folder}: no adapter weights (`...lora_A.weight`) among {some([*weights])}"
        )
    return own


def _check_modules(modules: list[str], targets: Any, model: OpenVLA, folder: Path) -> None:
    """Every module of the adapter is in the model; every target of its config is in the adapter."""
    known = {name for name, _ in lora.layers_of(model)}
    strange = [name for name in modules if name not in known]
    if strange:
        raise UserError(
            f"{folder} does not fit this base: it has adapters on {len(strange)} module(s) that the "
            f"base lacks: {some(strange)}"
        )
    if isinstance(targets, list):
        lacking = sorted(set(lora.targets_of(model, targets)) - set(modules))
        if lacking:
            raise UserError(
                f"{folder} does not fit this base: its adapter_config.json means {len(lacking)} "
                f"module(s) that its weights lack: {some(lacking)}"
            )


def _fill(model: OpenVLA, weights: dict[str, Tensor], folder: Path) -> None:
    """Copy the adapters' tensors into the model, strictly."""
    state = {n: p for n, p in model.named_parameters() if is_adapter_weight(n)}
    dora = "lora_magnitude_vector"  # written without `.weight`
    found = {f"{n}.weight" if n.endswith(dora) else n: t for n, t in weights.items()}
    _copy({n.replace(f".{lora.PEFT_NAME}", ""): p for n, p in state.items()}, found, folder)


@torch.no_grad()
def _copy(targets: dict[str, Tensor], found: dict[str, Tensor], source: Path) -> None:
    if wrong := differences(found, {name: target.shape for name, target in targets.items()}):
        raise UserError(f"{source} does not fit this base: {wrong}")
    for name, target in targets.items():
        target.copy_(found[name])
