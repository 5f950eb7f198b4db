"""LoRA for a training: fresh adapters, or those of a folder to go on from."""

from invact_vla.openvla.adapters.adapter import load_adapter
from invact_vla.openvla.adapters.lora import FULL, LoraConfig, find_targets, inject, never_run
from invact_vla.openvla.checkpoints.folder import adapter_folder
from invact_vla.openvla.checkpoints.weights import is_adapter_weight
from invact_vla.openvla.model import OpenVLA


def attach(model: OpenVLA, config: LoraConfig, seed: int = 0) -> OpenVLA:
    """Freeze `model` and put fp32 adapters into it, in place; A is random by `seed`, B zero, so that
    outputs stay what they were. What `FULL` names goes on being trained."""
    if config.adapter is not None:
        load_adapter(model, adapter_folder(config.adapter), config.dropout)
    else:
        settings = {
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "init_lora_weights": "gaussian",
        }
        inject(model, find_targets(model, config), settings, seed)
    unused = {id(p) for module in never_run(model) for p in module.parameters()}
    for name, parameter in model.named_parameters():
        trained = is_adapter_weight(name) or name.startswith(FULL)
        parameter.requires_grad_(trained and id(parameter) not in unused)
    frozen = (name for name, parameter in model.named_parameters() if not parameter.requires_grad)
    model.constant = frozenset(frozen)
    return model
