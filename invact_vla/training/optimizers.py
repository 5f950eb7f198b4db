"""Optimizers of the training loop: AdamW, or Muon for inner matrices and AdamW for the rest.

Source: Muon (kellerjordan.github.io/posts/muon; torch.optim.Muon), with the rate scaled to the step size
of AdamW (arxiv.org/abs/2502.16982), so that both take the same learning rates.
"""

from typing import Any

import torch
from torch import nn

_NO_MUON = ("embed", "lm_head", "token", "latent", "slots")  # tables and single vectors


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and convolutions; none for vectors (norms, biases, tokens)."""
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    decayed = [
        p for n, p in trained if p.ndim >= 2 and not n.endswith(("token", "tokens", "embed"))
    ]
    names = {id(p) for p in decayed}
    rest = [p for _, p in trained if id(p) not in names]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]


def hidden_matrices(model: nn.Module) -> list[nn.Parameter]:
    """The trained 2-d weights between hidden layers, which Muon is made for."""
    return [
        p
        for n, p in model.named_parameters()
        if p.requires_grad and p.ndim == 2 and not any(word in n for word in _NO_MUON)
    ]


def build_optimizer(
    model: nn.Module,
    kind: str,
    learning_rate: float,
    weight_decay: float,
    betas: tuple[float, float],
) -> torch.optim.Optimizer:
    """kind: adamw or muon."""
    groups = parameter_groups(model, weight_decay)
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, foreach=True)
    return MuonWithAdamW(hidden_matrices(model), groups, learning_rate, weight_decay, betas)


class MuonWithAdamW(torch.optim.Optimizer):
    """One optimizer to the loop: groups, state and step of both."""

    def __init__(
        self,
        matrices: list[nn.Parameter],
        groups: list[dict[str, Any]],
        learning_rate: float,
        weight_decay: float,
        betas: tuple[float, float],
    ) -> None:
        inside = {id(p) for p in matrices}
        rest = [{**g, "params": [p for p in g["params"] if id(p) not in inside]} for g in groups]
        rest = [g for g in rest if g["params"]]
        self._parts = [
            torch.optim.Muon(
                matrices,
                lr=learning_rate,
                weight_decay=weight_decay,
                adjust_lr_fn="match_rms_adamw",
            ),
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
