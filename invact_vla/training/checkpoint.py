"""Checkpoints of the training loop: weights, moments, EMA weights and the step.

    <folder>/model.safetensors, ema.safetensors, optimizer.safetensors, step.json

Tensors are written whole, also those that FSDP shards, so a run may continue with another number of
processes; only with the same number does it end with the same weights bit for bit.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder, read_json, restore, write_json
from invact_vla.training.distributed import full_tensor, is_main, run_on_main, shard_like
from invact_vla.untrusted.torch_files import differences

M = TypeVar("M", bound=nn.Module)
_REMEDY = "remove the folder to train from the start"


class TrainState:
    """Model, optimizer, EMA weights and step. `optimizer` is torch's or accelerate's wrapper.

    What a model names in `constant`, such as the base below an adapter, is not kept: its start has it.
    """

    def __init__(self, model: nn.Module, optimizer: Any, ema_decay: float) -> None:
        self.model, self.optimizer, self.ema_decay = model, optimizer, ema_decay
        self.constant: frozenset[str] = getattr(model, "constant", frozenset())
        kept = [(n, p) for n, p in model.named_parameters() if n not in self.constant]
        self.ema = {n: p.detach().clone() for n, p in kept} if ema_decay else {}

    def update_ema(self, step: int) -> None:
        """Move the EMA weights towards the model's. The decay starts low, so that the first
        weights, which are random, are soon forgotten in a short run as well."""
        if self.ema:
            decay = min(self.ema_decay, (1 + step) / (10 + step))
            parameters = dict(self.model.named_parameters())
            values = [parameters[n].detach() for n in self.ema]
            torch._foreach_lerp_(list(self.ema.values()), values, 1 - decay)

    @torch.no_grad()
    def copy_ema(self) -> None:
        """Give the model the EMA weights, if they are kept."""
        for name, parameter in self.model.named_parameters():
            if name in self.ema:
                parameter.copy_(self.ema[name])

    def save(self, folder: Path, step: int) -> None:
        """Write a checkpoint; every process takes part, rank 0 writes."""
        files = {"model": self._weights(), "optimizer": self._moments()}
        if self.ema:
            files["ema"] = self.ema
        full = {name: _to_file(tensors) for name, tensors in files.items()}
        if is_main():
            with atomic_folder(folder) as temporary:
                for name, tensors in full.items():
                    save_file(tensors, temporary / f"{name}.safetensors")
                write_json(temporary / "step.json", {"step": step})
        run_on_main(lambda: None)  # nobody runs ahead of the writing

    def load(self, folder: Path) -> int:
        """Continue from a checkpoint; returns the step to go on with, 0 without one. UserError if it
        is damaged, or of another model."""
        run_on_main(lambda: restore(folder))
        if not folder.exists():
            return 0
        for target, name in ((self._weights(), "model"), (self.ema, "ema")):
            if target:
                path = folder / f"{name}.safetensors"
                _fill(target, _read(path), path)
        parameters = self._parameters()
        for key, value in _read(folder / "optimizer.safetensors").items():
            index, name = key.split(".", 1)
            parameter = parameters[int(index)]
            moment = value if name == "step" else shard_like(value, parameter)
            self.optimizer.state[parameter][name] = moment
        return _step_in(folder / "step.json")

    def _weights(self) -> dict[str, Tensor]:
        return {n: t for n, t in self.model.state_dict().items() if n not in self.constant}

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def _moments(self) -> dict[str, Tensor]:
        return {
            f"{index}.{name}": value
            for index, parameter in enumerate(self._parameters())
            for name, value in self.optimizer.state.get(parameter, {}).items()
        }


def gather_full_model(model: M, build: Callable[[], M]) -> M:
    """`model`; where FSDP shards it, the same weights in a new one from `build`, on the same kind of
    device. All processes call it."""
    if not any(hasattr(p, "full_tensor") for p in model.parameters()):
        return model
    state = _to_file(dict(model.state_dict()))
    fresh = build()
    fresh.load_state_dict(state)
    return fresh.to(next(model.parameters()).device).eval()


def _to_file(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: full_tensor(t.detach()).cpu().contiguous().clone() for n, t in tensors.items()}


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is missing or damaged: {_REMEDY}") from error


def _step_in(path: Path) -> int:
    value = read_json(path)
    step = value.get("step") if isinstance(value, dict) else None
    if not isinstance(step, int) or step < 0:
        raise UserError(f"{path} names no step: {_REMEDY}")
    return step


@torch.no_grad()
def _fill(targets: dict[str, Tensor], values: dict[str, Tensor], path: Path) -> None:
    """Copy tensors by name; UserError unless names and shapes are the same."""
    if wrong := differences(values, {name: target.shape for name, target in targets.items()}):
        raise UserError(f"{path} is of another model ({wrong}): {_REMEDY}")
    for name, target in targets.items():
        target.copy_(shard_like(values[name], target))
