"""The fake GPU itself: it must find what a real one would, or the placement tests could not fail."""

import pytest
import torch

from tests.fake_cuda import build, fake_cuda


def linear() -> torch.nn.Linear:
    return torch.nn.Linear(3, 4)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: build(linear)(torch.zeros(2, 3)),
        lambda x: torch.nn.functional.linear(x, torch.zeros(4, 3)),
        lambda x: torch.cat([x, torch.zeros(1, 3)]),
        lambda x: torch.arange(4)[x.argmax(-1)],
        lambda x: x.numpy(),
        lambda x: torch.multinomial(x.abs(), 1, generator=torch.Generator()),
        lambda x: torch.nn.functional.embedding(torch.zeros(2, dtype=torch.long), x),
    ],
)
def test_mistakes_are_found(mistake) -> None:
    with (
        fake_cuda() as device,
        pytest.raises(RuntimeError, match=r"same device|indices on|NumPy|generator"),
    ):
        mistake(torch.zeros(2, 3, device=device))


def test_what_a_gpu_can_do_is_let_through() -> None:
    with fake_cuda() as device:
        x = torch.zeros(2, 3, device=device)
        out = build(linear)(x)
        assert out.device == device and out.shape == (2, 4)
        assert out.detach().cpu().numpy().shape == (2, 4)
        assert x[x > 0].shape == (6,) and x[x.any(1)].shape == (2, 3)
        assert bool((x > 0).any()) and float(x.sum()) == 1.0
        x[0] = torch.zeros(3)  # copies and CPU indices are allowed
        assert x[torch.arange(2)].device == device
        torch.multinomial(x.cpu(), 1, generator=torch.Generator())


def test_real_tensors_are_real_again_outside() -> None:
    with fake_cuda():
        pass
    assert torch.ones(2).numpy().tolist() == [1, 1]


def test_bfloat16_is_no_number_format_of_numpy() -> None:
    with fake_cuda(), pytest.raises(TypeError):
        torch.zeros(2, dtype=torch.bfloat16).numpy()
