"""A camera that moves is taken out of what an encoder sees, and what moves by itself is found."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.augment import AugmentConfig, augment
from latent_actions.encoder.inputs.camera_motion import affine_between, steadied
from latent_actions.encoder.inputs.streams import Streams
from tests.latent_actions.encoder.test_streams import moving, texture

STILL = AugmentConfig(
    crop_scale=(1.0, 1.0), rotation=0.0, aspect_jitter=0.0, brightness=0.0, contrast=0.0, color=0.0,
    shuffle_channels=0.0, min_temporal_crop=1.0,
)  # fmt: skip


def seen_by(theta, count=1):
    """A texture, and the same seen through a map: (count, 1, 48, 48) each."""
    picture = torch.stack([texture(96, seed) for seed in range(count)])[:, None]
    half = torch.eye(2, 3)[None].repeat(count, 1, 1) * 0.5
    inverse = torch.linalg.inv(torch.cat([theta, torch.tensor([[0.0, 0.0, 1.0]])]))
    own = half.clone()
    own[:, :, :2] = half[:, :, :2] @ inverse[:2, :2]
    own[:, :, 2] = (half[:, :, :2] @ inverse[:2, 2:])[..., 0]
    shape = [count, 1, 48, 48]
    return [F.grid_sample(picture, F.affine_grid(map_, shape, align_corners=False), align_corners=False)
            for map_ in (half, own)]  # fmt: skip


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.05, -0.02), (0.3, 0.2), (-0.45, 0.1)])
@pytest.mark.parametrize(("zoom", "roll"), [(1.0, 0.0), (1.08, 0.0), (0.97, 0.08)])
def test_the_map_between_two_views_is_found(shift, zoom, roll):
    cos, sin = zoom * np.cos(roll), zoom * np.sin(roll)
    theta = torch.tensor([[cos, -sin, shift[0]], [sin, cos, shift[1]]], dtype=torch.float32)
    first, second = seen_by(theta, 3)
    found = affine_between(first, second)
    assert (found - theta).abs().amax() < 0.05
    assert ((found - theta).abs().amax(dim=(1, 2)) < 0.015).float().mean() > 0.6


def with_patch(clip, step=3):
    """The clip with a square of another texture that moves to the right on it."""
    clip, patch = clip.clone(), texture(48, seed=9)[:12, :12]
    for t in range(clip.shape[1]):
        clip[0, t, 18:30, 6 + step * t : 18 + step * t] = patch[..., None]
    return clip


def share_inside(change, rows=slice(16, 32), columns=slice(4, 34)):
    size = change.abs().mean(dim=(0, 1, 4))
    return float(size[rows, columns].sum() / size.sum())


def test_steady_differences_hold_what_moves_and_not_the_camera():
    fixed, swaying = with_patch(moving((0, 0), 5)), with_patch(moving((3, -2), 5))
    assert share_inside(Streams(fixed)["steady"]) > 0.95
    assert share_inside(Streams(swaying)["steady"]) > 0.6
    assert share_inside(Streams(swaying)["diff"]) < 0.45
    following, inside = steadied(moving((4, 0), 3))
    assert following.shape == (1, 2, 48, 48, 3) and inside.shape == (1, 2, 48, 48, 1)
    assert 0.85 < inside.float().mean() < 0.95  # 4 of 48 columns are new


def test_steady_differences_of_a_fixed_camera_are_plain_ones():
    clip = with_patch(moving((0, 0), 4))
    torch.testing.assert_close(Streams(clip)["steady"], Streams(clip)["diff"], atol=0.15, rtol=0)
    flat = torch.full((2, 3, 16, 16, 3), 0.5)
    assert not Streams(flat)["steady"].any() and torch.isfinite(Streams(flat)["steady"]).all()
    noise = torch.rand(2, 3, 16, 16, 3)  # nothing to hold on to
    assert torch.isfinite(Streams(noise)["steady"]).all()


def test_an_embedding_is_the_mean_over_streams():
    shape = {"frames": 4, "size": 24, "width": 32, "depth": 3, "heads": 2, "embedding": 16}
    made = {}
    for name, streams, averaged in (
        ("diff", "diff", ()), ("steady", "steady", ()), ("both", "steady", ("steady", "diff")),
    ):  # fmt: skip
        torch.manual_seed(0)
        config = EncoderConfig(**shape, streams=(streams,), averaged=averaged)
        made[name] = InvActEncoder(config).eval()
    clips = (torch.cat([moving((2, 1), 4), with_patch(moving((1, 0), 4))]) * 255).byte().numpy()
    vectors = {name: encoder.embed(clips) for name, encoder in made.items()}
    assert abs(vectors["diff"] - vectors["steady"]).max() > 0.01
    mean = vectors["diff"] + vectors["steady"]
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors["both"], mean, atol=1e-5)
    for wrong in ({"streams": ("rgb", "diff")}, {"averaged": ("features",), "streams": ("diff",)}):
        with pytest.raises(ValueError, match="takes the place of one stream"):
            EncoderConfig(**{**shape, "averaged": ("diff",), **wrong})


def test_a_camera_that_moves_shifts_frames_and_changes_nothing_else():
    frames = (moving((0, 0), 6, size=64)[[0, 0, 0]] * 255).byte().numpy()
    still = augment(frames, 48, STILL, np.random.default_rng(0))
    options = {**vars(STILL), "camera_motion": 0.3}
    moved = augment(frames, 48, AugmentConfig(**options), np.random.default_rng(0))
    assert moved.shape == still.shape and (still[:, 0] == still[:, 5]).all()
    assert all((clip[0] - clip[5]).abs().mean() > 0.01 for clip in moved)
    again = augment(frames, 48, AugmentConfig(**options), np.random.default_rng(0))
    assert torch.equal(moved, again)
    # the camera's own motion is what `steady` takes back
    following, inside = steadied(moved)
    rest = ((following - moved[:, :-1]) * inside).abs().mean()
    assert rest < 0.5 * moved.diff(dim=1).abs().mean()
    with pytest.raises(ValueError, match="camera_motion in"):
        AugmentConfig(camera_motion=1.5)
