"""Optimizers of the training loop: AdamW, or Muon for the matrices between hidden layers."""

from typing import Any

import torch
from torch import Tensor, nn

from invact_vla.core.machine import multiplies_bf16

_NO_MUON = ("embed", "lm_head", "token", "latent", "slots")  # tables and single vectors
_MOMENTUM, _STEPS, _EPS = 0.95, 5, 1e-7  # as in torch.optim.Muon
_QUINTIC = 3.4445, -4.7750, 2.0315


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and convolutions; none for vectors (norms, biases, tokens)."""
    parts: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            spared = parameter.ndim < 2 or name.endswith(("token", "tokens", "embed"))
            parts[not spared].append(parameter)
    return [{"params": parts[d], "weight_decay": weight_decay * d} for d in (True, False)]


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trained 2-d weights between hidden layers, which Muon is made for."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad and p.ndim == 2]
    return [p for n, p in named if not any(word in n for word in _NO_MUON)]


def build_optimizer(
    model: nn.Module, kind: str, learning_rate: float, weight_decay: float,
    betas: tuple[float, float],
) -> torch.optim.Optimizer:  # fmt: skip
    """kind: adamw, or muon for inner matrices with AdamW for the rest, its rate scaled to the step size
    of AdamW, so that both take the same learning rates (arxiv.org/abs/2502.16982)."""
    groups = parameter_groups(model, weight_decay)
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, foreach=True)
    return MuonWithAdamW(hidden_matrices(model), groups, learning_rate, weight_decay, betas)


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimizer to the loop: groups, state and step of both."""

    def __init__(
        self, matrices: list[nn.Parameter], groups: list[dict[str, Any]], learning_rate: float,
        weight_decay: float, betas: tuple[float, float],
    ) -> None:  # fmt: skip
        inside = {id(p) for p in matrices}
        rest = [{**g, "params": [p for p in g["params"] if id(p) not in inside]} for g in groups]
        rest = [g for g in rest if g["params"]]
        self._parts = [
            Muon(matrices, learning_rate, weight_decay),
            torch.optim.AdamW(rest, lr=learning_rate, betas=betas, foreach=True),
        ]
        super().__init__([{"params": matrices}, *rest], {"lr": learning_rate})
        self.param_groups = [group for part in self._parts for group in part.param_groups]
        for part in self._parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of both."""
        for part in self._parts:
            part.step()


class Muon(torch.optim.Optimizer):
    """Momentum made orthogonal (kellerjordan.github.io/posts/muon), with Nesterov's look-ahead and
    decoupled weight decay: torch.optim.Muon with its rate matched to AdamW's, in the products that the
    device has. torch's own multiplies in bfloat16 wherever it runs, which takes a CPU without such
    products twenty times as long as in float32."""

    def __init__(self, params: list[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step over all matrices that have a gradient."""
        for group in self.param_groups:
            rate, decay = group["lr"], group["weight_decay"]
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix.grad)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - _MOMENTUM)
                update = orthogonal(matrix.grad.lerp(momentum, _MOMENTUM))
                matrix.mul_(1 - rate * decay)
                matrix.add_(update, alpha=-0.2 * max(matrix.shape) ** 0.5 * rate)


def orthogonal(matrix: Tensor) -> Tensor:
    """(m, n) -> (m, n) with about the same singular vectors and singular values of about 1: five quintic
    steps of Newton-Schulz, in bfloat16 where the device multiplies it."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.bfloat16() if multiplies_bf16(matrix.device.type) else matrix.float()
    x = x.T if tall else x
    x = x / x.norm().clamp(min=_EPS)
    a, b, c = _QUINTIC
    for _ in range(_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
