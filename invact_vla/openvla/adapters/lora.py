"""LoRA by peft: adapters on a frozen OpenVLA, trained, merged, or taken away again.

`attach` puts adapters into the model itself, so names, forward and the training loop stay the same.
What a recipe adds to the published model (action head, state projector, slots) is trained in full.
The published fine-tunes used peft 0.11's "all-linear", which newer versions resolve differently: it
is spelled out here. Source: LoRA (arxiv.org/abs/2106.09685); OpenVLA's vla-scripts/finetune.py.
"""

import difflib
import hashlib
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.core.limits import some
from invact_vla.openvla.checkpoints.checkpoint import is_adapter_weight, published_name
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.random_model import random_inputs
from invact_vla.openvla.vision_backbones import unused_modules

# what "all-linear" of peft 0.11.1 means for OpenVLA, lm_head and patch embeddings included
PUBLISHED = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"),
    *("qkv", "proj", "fc1", "fc2", "fc3", "q", "kv"),
)
FULL = ("action_head.", "proprio_projector.", "action_slots")  # trained in full beside adapters
PEFT_NAME = "default"  # peft's name of the one adapter
_BASE = ".base_layer"
# largest difference of logits after merging, beside the largest logit: rounding of the weights
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which adapters to train. The defaults are OpenVLA's, but for the targets."""

    rank: int = 32  # inner width of an adapter
    alpha: int = 16  # the adapter's output counts alpha / rank
    dropout: float = 0.0  # of an adapter's input, in training
    # sane: every linear layer that is run, but lm_head; published: also lm_head, both patch embeddings
    # and the blocks that are never run
    targets: Literal["sane", "published"] = "sane"
    modules: tuple[str, ...] = ()  # module names, or ends of names, in the place of targets
    adapter: Path | None = None  # folder or run to go on from; its rank, alpha and targets hold

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(
                f"LoRA needs rank >= 1, alpha > 0 and dropout in [0, 1); got rank {self.rank}, alpha "
                f"{self.alpha}, dropout {self.dropout}"
            )


def inject(model: OpenVLA, targets: list[str], settings: dict[str, Any], seed: int = 0) -> OpenVLA:
    """Put fresh adapters on the modules named in full; `settings` are fields of peft's LoraConfig."""
    import peft

    refuse_second(model)
    if model.config.text_config.tie_word_embeddings and "language_model.lm_head" in targets:
        raise UserError(
            "lm_head of this model is its embedding (tie_word_embeddings) and cannot have an adapter: "
            "choose targets without lm_head, such as `sane`"
        )
    config = peft.LoraConfig(**settings, target_modules=list(targets), bias="none")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft knows no config but transformers'
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, model, PEFT_NAME)
    for name, parameter in model.named_parameters():
        if is_adapter_weight(name):
            parameter.data = parameter.data.float()
    return model


def find_targets(model: OpenVLA, config: LoraConfig) -> list[str]:
    """Full names of the modules that the config puts adapters on. UserError for a name without one."""
    if config.modules:
        names = [name for name, _ in layers_of(model)]
        for wanted in config.modules:
            if not any(_fits(name, wanted) for name in names):
                ends = sorted({name.rsplit(".", 1)[-1] for name in names})
                near = difflib.get_close_matches(wanted, [*names, *ends], 3)
                hint = f"did you mean {' or '.join(near)}" if near else f"there are {some(ends)}"
                raise UserError(f"LoRA target {wanted!r} is no linear layer of this model: {hint}")
        return targets_of(model, config.modules)
    if config.targets == "published":
        return targets_of(model, PUBLISHED)
    left_out = {id(m) for module in never_run(model) for m in module.modules()}
    left_out.add(id(model.language_model.lm_head))
    layers = layers_of(model)
    return [n for n, m in layers if isinstance(m, nn.Linear) and id(m) not in left_out]


def targets_of(model: OpenVLA, ends: Iterable[str]) -> list[str]:
    """Full names of the layers whose name, or the end of it, is among `ends`: how peft reads a list
    of targets."""
    return [name for name, _ in layers_of(model) if any(_fits(name, end) for end in ends)]


def _fits(name: str, wanted: str) -> bool:
    return name == wanted or name.endswith(f".{wanted}")


def layers_of(model: OpenVLA) -> Iterator[tuple[str, nn.Module]]:
    """(full name, layer) of the published model that can have an adapter, or has one."""
    for name, module in model.named_modules():
        mine = is_adapter_weight(name) or name.startswith(FULL)
        if isinstance(module, nn.Linear | nn.Conv2d) and not mine:
            yield name.removesuffix(_BASE), module


def never_run(model: OpenVLA) -> list[nn.Module]:
    """Modules of the towers whose weights change nothing."""
    return [m for tower in model.vision_backbone.towers for m in unused_modules(tower)]


def has_adapters(model: nn.Module) -> bool:
    """Whether adapters are attached to the model."""
    return any(is_adapter_weight(name) for name, _ in model.named_parameters())


def refuse_second(model: OpenVLA) -> None:
    """UserError if adapters are attached."""
    if has_adapters(model):
        raise UserError("this model has adapters already: merge them before others are attached")


def base_hash(model: OpenVLA) -> str:
    """SHA-256 (16 digits) over the names and values of the published part of the model, without its
    adapters. Values are rounded to bfloat16 first: weights loaded in it are the same base."""
    state = {
        published_name(name.replace(_BASE, "")): tensor
        for name, tensor in model.state_dict().items()
        if not is_adapter_weight(name) and not name.startswith(FULL)
    }
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().bfloat16().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]


def merge(model: OpenVLA) -> OpenVLA:
    """Add the adapters to the weights, in place, and take them out of the model.

    Sums are made in fp32 and rounded once, to each weight's own dtype. Logits of random inputs before
    and after must agree but for that rounding: if they do not, a UserError, and the model must not be
    used.
    """
    from peft.tuners.lora import LoraLayer

    if not has_adapters(model):
        raise UserError("this model has no adapters to merge")
    batch = random_inputs(model, 2, 12)
    before = _logits(model, batch)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, LoraLayer):
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, _merged(name, layer))
    if hasattr(model, "peft_config"):
        del model.peft_config
    model.requires_grad_(True)
    model.constant = frozenset()
    for module in never_run(model):
        module.requires_grad_(False)
    dtype, after = next(model.language_model.parameters()).dtype, _logits(model, batch)
    error, largest = (before - after).abs().max().item(), before.abs().max().item()
    allowed = _TOLERANCE.get(dtype, 1e-4) * max(1.0, largest)
    if not error <= allowed:  # also NaN
        raise UserError(
            f"merging the adapter changed the logits by {error:.2g} (largest logit {largest:.3g}, "
            f"allowed {allowed:.2g} in {str(dtype).removeprefix('torch.')}): merge in float32, and "
            "check that the adapter holds finite numbers"
        )
    return model


def _merged(name: str, layer: Any) -> nn.Module:
    """The layer below an adapter, with the adapter in its weight."""
    base = layer.get_base_layer()
    dtype = base.weight.dtype
    base.float()
    try:
        layer.merge(safe_merge=True)
    except ValueError as error:
        raise UserError(f"the adapter of {name} cannot be merged: {error}") from error
    return base.to(dtype)


@torch.no_grad()
def _logits(model: OpenVLA, batch: dict[str, Tensor]) -> Tensor:
    training = model.training
    model.eval()
    logits = model(**batch).logits.float()
    model.train(training)
    return logits
