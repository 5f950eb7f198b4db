"""Published weight files: read without trusting them, and fitted to our modules key by key.

Research checkpoints are pickles that hold training arguments, configs and optimizers beside the
tensors. The reader (untrusted/torch_files.py) takes these as data, so no code of the file runs and no
foreign package is needed.
"""

import abc
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short, some
from invact_vla.training.device import CPU
from invact_vla.untrusted.torch_files import read_research_pickle, read_safetensors, without_prefix
from latent_actions.retrieval.baselines.baseline import BaselineConfig, Forward, Preprocess

_INSIDE = ("state_dict", "model_state", "model")  # where training loops keep the tensors
_SHOWN = 5  # differences named in an error


@dataclass(frozen=True)
class KeyLayout:
    """How published names map to ours.

    rename: (published prefix, our prefix), the first that fits is applied; every name must fit one.
    unused: patterns of names that the clip vector does not need (text towers, heads, decoders).
    """

    rename: tuple[tuple[str, str], ...] = (("", ""),)
    unused: tuple[str, ...] = ()

    def ours(self, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
        """Published tensors under our names; UserError on names that the layout does not know."""
        found, unknown = {}, []
        for name, tensor in state.items():
            if any(re.match(pattern, name) for pattern in self.unused):
                continue
            new = next((n + name[len(o) :] for o, n in self.rename if name.startswith(o)), None)
            if new is None:
                unknown.append(name)
            else:
                found[new] = tensor
        if unknown:
            raise UserError(_difference(path, [f"unexpected {name}" for name in unknown]))
        return found


@dataclass(frozen=True, kw_only=True)
class PublishedConfig(BaselineConfig):
    """A baseline whose network is ours, under the names of one published file."""

    weights: Path  # the published file
    size: int = 224  # frame size (px)

    layout: ClassVar[KeyLayout]
    preprocess: ClassVar[dict[str, Any]]  # the other fields of Preprocess

    @abc.abstractmethod
    def network(self) -> nn.Module:
        """The network on prepared clips: (B, T, 3, S, S) -> (B, D)."""

    def state(self) -> dict[str, Tensor]:
        """Tensors of the file, ready for the network's sizes."""
        return read_state(self.weights)

    def load(self, device: torch.device = CPU) -> tuple[Preprocess, Forward]:
        model = fit_weights(self.network(), self.state(), self.layout, self.weights, device)
        return Preprocess(frames=self.frames, size=self.size, **self.preprocess), model


def read_state(path: Path) -> dict[str, Tensor]:
    """Tensors of a .safetensors, .pth, .pt, .pyth or .ckpt file, without a `module.` prefix.

    UserError if the file is missing, broken, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"no weights file {path}: download it (docs/baselines.md says where from)")
    read = read_safetensors if path.suffix == ".safetensors" else read_research_pickle
    raw: Any = read(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a dictionary of tensors, got {type(raw).__name__}")
    inside = next((raw[k] for k in _INSIDE if isinstance(raw.get(k), dict) and raw[k]), raw)
    named = {n: v for n, v in inside.items() if isinstance(n, str) and isinstance(v, Tensor)}
    state = without_prefix(named)
    if not state:
        raise UserError(f"{path} holds no tensors (its entries: {some(map(str, raw))})")
    return state


def fit_weights(
    model: nn.Module, state: dict[str, Tensor], layout: KeyLayout, path: Path,
    device: torch.device = CPU,
) -> nn.Module:  # fmt: skip
    """Load published tensors strictly; gives the module in eval mode, in fp32, on `device`.

    A missing, unknown or misshapen tensor is a UserError that names the first few (our names).
    """
    came, expected = layout.ours(state, path), model.state_dict()
    problems = [f"missing {name}" for name in expected if name not in came]
    problems += [f"unexpected {name}" for name in came if name not in expected]
    problems += [
        f"{name} is {tuple(came[name].shape)}, not {tuple(expected[name].shape)}"
        for name in expected.keys() & came.keys()
        if came[name].shape != expected[name].shape
    ]
    if problems:
        raise UserError(_difference(path, problems))
    ready = {k: v.float() if v.is_floating_point() else v for k, v in came.items()}
    model.load_state_dict(ready, assign=True)  # the module may have no memory of its own
    return model.to(device).eval().requires_grad_(False)


def _difference(path: Path, problems: list[str]) -> str:
    shown = "; ".join(map(short, sorted(problems)[:_SHOWN]))
    return (
        f"{path} does not have the published layout ({len(problems)} differences): {shown}; "
        "check that it is the file named in docs/baselines.md and that the config gives its sizes"
    )
