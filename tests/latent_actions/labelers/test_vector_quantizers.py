"""Quantizers that are trained with a network: one contract for all, and what each is for."""

import copy
from typing import get_args

import pytest
import torch

from latent_actions.labelers.guard.codebook_usage import codebook_stats
from latent_actions.labelers.vector_quantizers import (
    Ema,
    Fsq,
    VectorQuantization,
    sinkhorn,
    vector_quantizer,
)
from latent_actions.labelers.whitening import Whiten, ill_conditioned

KINDS = get_args(VectorQuantization)


def made(kind: str, positions: int = 4, codes: int = 8, width: int = 6):
    torch.manual_seed(0)
    return vector_quantizer(kind, positions, codes, width)  # type: ignore[arg-type]


def vectors(batch: int = 64, positions: int = 4, width: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.randn(
        batch, positions, width, generator=torch.Generator().manual_seed(seed)
    ).requires_grad_()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("positions", "codes"), [(4, 8), (1, 5), (3, 2)])
def test_contract(kind: str, positions: int, codes: int) -> None:
    quantizer, delta = made(kind, positions, codes), vectors(positions=positions)
    found = quantizer.train()(delta)
    assert found.codes.shape == (64, positions) and found.codes.dtype == torch.int64
    assert found.codes.min() >= 0 and found.codes.max() < codes
    assert found.vectors.shape == delta.shape
    (found.vectors.square().sum() + found.loss).backward()
    assert delta.grad is not None and delta.grad.abs().sum() > 0
    quantizer.eval()
    with torch.no_grad():
        still = quantizer(delta)
        assert torch.equal(still.codes, quantizer.codes(delta))
        torch.testing.assert_close(still.vectors, quantizer.decode(still.codes))
        one_by_one = torch.cat([quantizer.codes(row[None]) for row in delta])
        assert torch.equal(one_by_one, still.codes)


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_error_and_keeps_the_codes_in_use(kind: str) -> None:
    """An autoencoder around each: clusters in, clusters out."""
    torch.manual_seed(0)
    quantizer = made(kind)
    encoder, decoder = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
    parameters = [*encoder.parameters(), *decoder.parameters(), *quantizer.parameters()]
    optimizer = torch.optim.Adam([p for p in parameters if p.requires_grad], lr=1e-2)
    centers = 2 * torch.randn(8, 6)
    if quantizer.reseedable is not None:
        with torch.no_grad():
            quantizer.reseedable.copy_(encoder(centers))
    errors = []
    for step in range(200):
        torch.manual_seed(step)
        x = centers[torch.randint(8, (64, 4))] + 0.1 * torch.randn(64, 4, 6)
        found = quantizer(encoder(x))
        error = (decoder(found.vectors) - x).square().mean()
        optimizer.zero_grad()
        (error + found.loss).backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert sum(errors[-20:]) < 0.8 * sum(errors[:20])
    stats = codebook_stats(quantizer.codes(encoder(x)).numpy(), 8)
    assert min(stats.perplexity) > 2


def test_fsq_uses_all_levels_and_is_the_inverse_of_itself() -> None:
    quantizer = made("fsq")
    assert isinstance(quantizer, Fsq)
    with torch.no_grad():
        quantizer.down.weight.copy_(torch.eye(6)[:1])
        quantizer.down.bias.zero_()
        ramp = torch.zeros(200, 4, 6)
        ramp[..., 0] = torch.linspace(-4, 4, 200)[:, None]
        codes = quantizer.codes(ramp)
    assert torch.equal(codes.unique(), torch.arange(8)) and (codes.diff(dim=0) >= 0).all()


def test_moving_averages_follow_the_data_and_keep_a_reseeded_code() -> None:
    quantizer = made("ema", codes=2, width=2)
    assert isinstance(quantizer, Ema) and not quantizer.codebook.weight.requires_grad
    target = torch.tensor([[3.0, 3.0], [-3.0, -3.0]])
    quantizer.codebook.weight.data.copy_(target / 2)
    for seed in range(300):
        torch.manual_seed(seed)
        quantizer.train()(target[torch.randint(2, (16, 4))])
    torch.testing.assert_close(quantizer.codebook.weight.data, target, atol=0.05, rtol=0)
    quantizer.codebook.weight.data[1] = torch.tensor([9.0, 9.0])
    quantizer(target[torch.zeros(16, 4, dtype=torch.int64)])
    assert (quantizer.codebook.weight[1] - 9).abs().max() < 0.5


def test_sinkhorn_spreads_a_batch_over_the_codes() -> None:
    torch.manual_seed(0)
    scores = torch.rand(80, 8)
    scores[:, 0] += 0.5
    assert (scores.argmax(dim=1) == 0).sum() > 40
    plan = sinkhorn(scores, 0.05, 50)
    torch.testing.assert_close(plan.sum(dim=0), torch.full((8,), 1 / 8), atol=0.01, rtol=0)
    assert (plan.argmax(dim=1).bincount(minlength=8) > 0).all()


def test_whitened_numbers_are_not_correlated_even_where_they_were_near_copies() -> None:
    generator = torch.Generator().manual_seed(0)
    whiten = Whiten(6)

    def batch(rows: int) -> torch.Tensor:
        one = torch.randn(rows, 1, generator=generator)
        return 5 + 30 * one + 0.5 * torch.randn(rows, 6, generator=generator)

    near = torch.corrcoef(batch(4096).t())
    assert near.min() > 0.99
    for _ in range(300):
        values = batch(128).requires_grad_()
        found = whiten.train()(values)
        found.square().sum().backward()
        assert torch.isfinite(values.grad).all()
    found = whiten.eval()(batch(4096))
    assert (torch.cov(found.t()) - torch.eye(6)).abs().max() < 0.15
    assert found.mean(dim=0).abs().max() < 0.1
    with torch.no_grad():  # number 0 stays what it was, up to its scale
        values = batch(64)
        assert torch.corrcoef(torch.stack([values[:, 0], whiten(values)[:, 0]]))[0, 1] > 0.9999


def test_what_is_whitened_does_not_drift_in_a_training() -> None:
    """What follows cannot tell its scale: without the term it grows, and its numbers become copies."""

    def trained(weight: float) -> tuple[float, float]:
        torch.manual_seed(0)
        first, head = torch.nn.Linear(8, 4), torch.nn.Linear(4, 3)
        model = torch.nn.ModuleList([first, Whiten(4), head]).train()
        optimizer = torch.optim.Adam(model.parameters(), 0.3)
        generator = torch.Generator().manual_seed(1)
        common, found = torch.randn(8, generator=generator), torch.zeros(32, 4)
        for _ in range(600):
            x = torch.randn(32, 8, generator=generator)
            x = x + 3 * x[:, :1] * common
            found = first(x)
            error = (head(model[1](found)) - x[:, 1:4]).square().mean()
            loss = error + weight * ill_conditioned(model)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        apart = torch.linalg.eigvalsh(torch.corrcoef(found.t()))[0]
        return found.std(dim=0).max().item(), apart.item()

    largest, apart = trained(1)
    assert largest < 6 and apart > 0.2
    largest, apart = trained(0)
    assert largest > 10 and apart < 0.2
    assert ill_conditioned(torch.nn.Linear(2, 2)) == 0


def test_what_whitening_adds_is_asked_for_once() -> None:
    """The term holds the graph of a batch, with which a model can be neither copied nor freed."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), Whiten(4))
    model(torch.randn(32, 3))
    found = ill_conditioned(model)
    assert isinstance(found, torch.Tensor) and found.detach() > 0 and ill_conditioned(model) == 0
    assert torch.equal(copy.deepcopy(model)[1].covariance, model[1].covariance)


def test_whitening_bounds_what_exact_copies_and_constants_become() -> None:
    values = torch.randn(64, 1).repeat(1, 4)
    values[:, 3] = 7.0
    found = Whiten(4).train()(values)
    assert torch.isfinite(found).all() and found.abs().max() < 10
    assert found[:, 3].abs().max() < 1e-3


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of straight_through"):
        made("none")
