"""Muon: torch's own where products are in bfloat16, the same direction in float32 elsewhere."""

import pytest
import torch

from invact_vla.training import optimizers
from invact_vla.training.optimizers import Muon, MuonWithAdamW, orthogonal, parameter_groups

SHAPES = ((8, 5), (5, 16), (6, 6))


def matrices(seed: int = 0) -> list[torch.nn.Parameter]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=rng)) for shape in SHAPES]


@pytest.mark.parametrize("in_bf16", [True, False])
def test_steps_are_those_of_torch(monkeypatch: pytest.MonkeyPatch, in_bf16: bool) -> None:
    monkeypatch.setattr(optimizers, "multiplies_bf16", lambda device_type: in_bf16)
    ours, theirs = matrices(), matrices()
    pairs = (
        Muon(ours, 0.02, 0.05),
        torch.optim.Muon(theirs, lr=0.02, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
    )
    for step in range(4):
        for mine, other, given in zip(ours, theirs, matrices(step + 1), strict=True):
            mine.grad, other.grad = given.detach(), given.detach().clone()
        for optimizer in pairs:
            optimizer.step()
    for mine, other in zip(ours, theirs, strict=True):
        if in_bf16:
            assert torch.equal(mine, other)
        torch.testing.assert_close(mine, other, atol=2e-3, rtol=0)
        buffers = (o.state[p]["momentum_buffer"] for o, p in zip(pairs, (mine, other), strict=True))
        assert torch.equal(*buffers)


def test_singular_values_become_about_one() -> None:
    for matrix in matrices():
        found = orthogonal(matrix.detach()).float()
        values = torch.linalg.svdvals(found)
        assert found.shape == matrix.shape and values.min() > 0.5 and values.max() < 1.3
    assert not orthogonal(torch.zeros(3, 4)).any()


def test_every_weight_is_stepped_once_and_those_without_gradient_not() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 1))
    groups = parameter_groups(model, 0.1)
    inner = [model[0].weight]
    optimizer = MuonWithAdamW(inner, groups, 0.1, 0.1, (0.9, 0.95))
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(listed) == len({id(p) for p in listed}) == 4
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model[0](torch.ones(2, 4)).sum().backward()
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"0.weight", "0.bias"}
