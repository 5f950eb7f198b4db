"""Registers by weights of their own: what they see, what they cannot move."""

from dataclasses import replace

import pytest
import torch

from latent_actions.encoder.commit import CommitConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.register_encoder import RegisterEncoder
from latent_actions.encoder.routing import Routing, RoutingAssignments

CONFIG = EncoderConfig(
    frames=4, size=16, tubelet=2, patch=8, streams=("diff",), width=32, depth=2, heads=2, embedding=8,
    action_dim=6, commit=CommitConfig(start=1, registers=2, router_width=8, register_encoder="separate"),
)  # fmt: skip


def pixels(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 4, 16, 16, 3, generator=torch.Generator().manual_seed(0))


def make(**changes) -> InvActEncoder:
    torch.manual_seed(0)
    return InvActEncoder(replace(CONFIG, **changes))


def rows_of(choice: torch.Tensor, special_tokens: int = 3) -> RoutingAssignments:
    used = torch.nn.functional.one_hot(choice, special_tokens).float()
    return RoutingAssignments(used, used, True)


def test_what_registers_learn_cannot_move_the_action_token():
    encoder = make()
    out = encoder(pixels(), Routing(hard=True, noise=True))
    out.registers.square().sum().backward()
    moved = {name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
    assert moved and all(name.startswith("register_encoder.") for name in moved)


def test_the_embedding_does_not_touch_the_path():
    encoder = make()
    encoder(pixels(), Routing(hard=True)).embedding.sum().backward()
    assert all(p.grad is None for p in encoder.register_encoder.parameters())


def test_a_register_sees_its_own_patches_only():
    path = RegisterEncoder(width=8, registers=2, patch=8, grid=(2, 2, 2))
    choice = torch.tensor([[0, 1, 2, 2, 1, 1, 0, 2]])
    seen = pixels(1)
    start = path(seen, rows_of(choice))
    for token, owner in enumerate(choice[0].tolist()):
        t, h, w = token // 4, token // 2 % 2, token % 2
        changed = seen.clone()
        changed[:, 2 * t : 2 * t + 2, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8] += 0.5
        differs = (path(changed, rows_of(choice)) - start).abs().amax(dim=(0, 2)) > 1e-6
        assert differs.tolist() == [owner == 1, owner == 2]


def test_motion_alone_is_not_seen():
    path = RegisterEncoder(width=8, registers=2, patch=8, grid=(2, 2, 2))
    rows, seen = rows_of(torch.ones(1, 8, dtype=torch.long)), pixels(1)
    time_reversed = seen.unflatten(1, (2, 2)).flip(2).flatten(1, 2)  # inside each tubelet
    torch.testing.assert_close(path(time_reversed, rows), path(seen, rows))


def test_an_empty_register_has_the_vector_of_its_slot():
    path = RegisterEncoder(width=8, registers=2, patch=8, grid=(2, 2, 2))
    rows = rows_of(torch.ones(2, 8, dtype=torch.long))
    found = path(pixels(2), rows)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found[0, 1], found[1, 1])
    assert not torch.allclose(found[0, 0], found[1, 0])


def test_the_embedding_is_a_map_of_the_narrow_action_token():
    encoder = make()
    out = encoder(pixels(20))
    assert out.action.shape == (20, 6) and out.token.shape == (20, 32)
    torch.testing.assert_close(
        out.embedding, torch.nn.functional.normalize(encoder.head(out.action), dim=-1)
    )


def test_without_routing_there_is_no_path():
    config = replace(CONFIG, commit=replace(CONFIG.commit, estimator="none"))
    assert InvActEncoder(config).register_encoder is None and not config.registers_trainable
    shared = replace(CONFIG, commit=replace(CONFIG.commit, register_encoder="shared"))
    assert InvActEncoder(shared).register_encoder is None and shared.registers_trainable
    with pytest.raises(ValueError, match="action_dim"):
        replace(CONFIG, action_dim=-1)


def test_saved_and_read_back(tmp_path):
    encoder = make().eval()
    encoder.save_pretrained(tmp_path / "encoder")
    again = InvActEncoder.from_pretrained(tmp_path / "encoder")
    torch.testing.assert_close(again(pixels()).registers, encoder(pixels()).registers)
