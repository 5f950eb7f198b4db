"""What the encoder sees: streams of a clip, optical flow, frozen features, and how they meet."""

import numpy as np
import pytest
import torch

from invact_vla.core.errors import UserError
from latent_actions.encoder.commit import CommitConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.features import FrozenFeatures
from latent_actions.encoder.inputs.flow import dense_flow
from latent_actions.encoder.inputs.streams import PIXEL_STREAMS, Streams, planes


def texture(size=64, seed=0):
    """A random gray picture in [0, 1], rough at every scale like natural ones: (size, size)."""
    generator, picture = torch.Generator().manual_seed(seed), torch.zeros(1, 1, size, size)
    for cells in (3, 6, 12, 24):
        noise = torch.rand(1, 1, cells, cells, generator=generator)
        picture += torch.nn.functional.interpolate(noise, (size, size), mode="bicubic") / cells
    return ((picture - picture.min()) / (picture.max() - picture.min()))[0, 0]


def moving(shift, frames=3, size=48, seed=0):
    """A texture that moves by `shift` (x, y) pixels a frame: (1, T, size, size, 3)."""
    whole, start = texture(size + 32, seed), 16
    cuts = []
    for t in range(frames):
        x, y = start - t * shift[0], start - t * shift[1]
        cuts.append(whole[y : y + size, x : x + size])
    return torch.stack(cuts)[None, ..., None].expand(-1, -1, -1, -1, 3)


@pytest.mark.parametrize("shift", [(1, 0), (0, -2), (4, 3), (-6, 2)])
def test_flow_of_a_moving_texture(shift):
    found = dense_flow(moving(shift))
    assert found.shape == (1, 2, 48, 48, 2)
    inner = found[:, :, 12:-12, 12:-12]
    error = (inner - torch.tensor(shift, dtype=torch.float32)).norm(dim=-1)
    assert error.median() < 0.15 and error.mean() < 0.5


def test_flow_is_zero_where_nothing_moves_and_where_nothing_is_to_be_seen():
    assert dense_flow(moving((0, 0))).abs().max() < 1e-4
    flat = torch.full((1, 3, 32, 32, 3), 0.5)
    flat[:, 1:] += 0.2
    assert torch.isfinite(dense_flow(flat)).all() and dense_flow(flat).abs().max() < 1e-4


def test_flow_tells_a_moving_patch_from_its_background():
    clip = texture(48).repeat(3, 1, 1)
    patch = texture(48, seed=5)[:14, :14]
    for t in range(3):
        clip[t, 16:30, 12 + 2 * t : 26 + 2 * t] = patch
    size = dense_flow(clip[None, ..., None].expand(-1, -1, -1, -1, 3))[0, 0].norm(dim=-1)
    assert size[19:27, 16:22].mean() > 1.5 and size[36:, 32:].mean() < 0.1


@pytest.mark.parametrize("name", PIXEL_STREAMS)
def test_streams_have_the_shape_of_the_clip_and_size_one(name):
    pixels = moving((2, 1), frames=4).clone()
    for t in range(4):  # something that moves against the camera
        pixels[:, t, 8:40, 4 + 3 * t : 28 + 3 * t] = texture(48, seed=5)[:32, :24, None]
    found = Streams(pixels)[name]
    assert found.shape == pixels.shape
    assert 0.5 < found.square().mean().sqrt() < 1.2


def test_light_and_tint_drop_out_of_the_streams():
    pixels = 0.2 + 0.3 * torch.rand(2, 4, 16, 16, 3)
    tinted = pixels * torch.tensor([1.0, 1.5, 0.7]) + 0.1
    torch.testing.assert_close(Streams(pixels)["rgb"], Streams(tinted)["rgb"], atol=0.1, rtol=0)
    spread = pixels.std(dim=(1, 2, 3), keepdim=True)
    expected = (pixels - pixels.mean(dim=(1, 2, 3), keepdim=True)) / (spread + 0.01)
    torch.testing.assert_close(Streams(pixels)["rgb"], expected, atol=1e-5, rtol=1e-5)
    change = Streams(pixels)["diff"]
    assert 0.9 < change.square().mean().sqrt() < 1.1
    torch.testing.assert_close(Streams(0.5 * pixels)["diff"], change, atol=0.3, rtol=0)


def make(**options):
    torch.manual_seed(0)
    return InvActEncoder(
        EncoderConfig(
            frames=4, size=16, patch=8, width=32, depth=3, heads=4, embedding=12,
            commit=CommitConfig(start=1, registers=3, router_width=8, motion_prior=0.1), **options,
        )
    ).eval()  # fmt: skip


def clips(count=3):
    return np.random.default_rng(0).integers(0, 256, (count, 4, 16, 16, 3), dtype=np.uint8)


def plain_streams(pixels):
    """Each stream written out clip by clip, in float64."""
    made = {"rgb": [], "diff": []}
    for clip in pixels.double().numpy():
        flat = clip.reshape(-1, 3)
        made["rgb"].append((clip - flat.mean(axis=0)) / (flat.std(axis=0, ddof=1) + 0.01))
        change = np.diff(clip, axis=0)
        change = np.concatenate([change, change[-1:]]) / (np.sqrt((change**2).mean()) + 0.01)
        made["diff"].append(change)
    return {name: torch.from_numpy(np.stack(clips)).float() for name, clips in made.items()}


@pytest.mark.parametrize("order", [planes, torch.Tensor.contiguous])
def test_streams_and_motion_are_the_plain_ones_whatever_the_order_in_memory(order):
    pixels = order(torch.rand(2, 4, 16, 16, 3, generator=torch.Generator().manual_seed(0)))
    expected = plain_streams(pixels)
    for name, values in expected.items():
        torch.testing.assert_close(Streams(pixels)[name], values, atol=1e-5, rtol=1e-5)
    cells = expected["diff"].abs().reshape(2, 2, 2, 2, 8, 2, 8, 3).mean(dim=(2, 4, 6, 7)).flatten(1)
    standard = (cells - cells.mean(dim=1, keepdim=True)) / cells.std(dim=1, keepdim=True)
    torch.testing.assert_close(
        make().embedder.motion(Streams(pixels)), standard, atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_tokens_do_not_depend_on_the_order_in_memory(stem):
    embedder, pixels = make(stem=stem).embedder, torch.rand(2, 4, 16, 16, 3)
    one, other = embedder(Streams(pixels)), embedder(Streams(planes(pixels)))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_prepared_frames_are_planes_and_keep_their_values():
    for frames in (torch.from_numpy(clips()), torch.from_numpy(clips()).float() / 255):
        pixels = make().prepare(frames)
        assert pixels.movedim(-1, 2).is_contiguous()
        np.testing.assert_allclose(pixels.numpy(), clips() / np.float32(255), atol=1e-7)


@pytest.mark.parametrize("stem", ["linear", "conv"])
@pytest.mark.parametrize("fusion", ["sum", "gated"])
def test_every_stream_and_stem_learns_under_every_fusion(fusion, stem, image_model):
    streams = ("rgb", "flow", "features")
    encoder = make(streams=streams, fusion=fusion, stem=stem, features=image_model).train()
    out = encoder(torch.from_numpy(clips()))
    out.embedding.std(dim=0).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []
    assert all(p.grad.abs().max() > 0 for p in encoder.embedder.stems.parameters())
    assert out.assignments[0].used.shape == (3, 8, 4) and out.motion.shape == (3, 8)
    assert encoder.committed(clips()).shape == (3, 2, 2, 2)


def test_channels_and_sum_of_linear_stems_are_the_same_map():
    one, many = make(stem="linear"), make(stem="linear", fusion="sum")
    weight = one.embedder.stem.weight.reshape(32, 2, -1)
    for place, name in enumerate(("rgb", "diff")):
        many.embedder.stems[name].weight.data = weight[:, place].clone()
    state = {n: t for n, t in one.state_dict().items() if "embedder.stem." not in n}
    many.load_state_dict(state, strict=False)
    np.testing.assert_allclose(one.embed(clips()), many.embed(clips()), atol=1e-5)


def test_features_are_those_of_the_model_and_never_trained(image_model):
    features = FrozenFeatures(image_model)
    pixels = torch.rand(2, 4, 28, 28, 3, requires_grad=True)
    found = features(pixels, (2, 4, 4))
    assert found.shape == (2, 32, 16) and not found.requires_grad
    mean, std = (torch.tensor(part) for part in features.scaling)
    scaled = ((pixels.detach() - mean) / std).flatten(0, 1).permute(0, 3, 1, 2)
    expected = features.model(scaled).last_hidden_state[:, 1:].unflatten(0, (2, 2, 2)).mean(dim=2)
    torch.testing.assert_close(found, expected.flatten(1, 2), atol=1e-5, rtol=1e-4)
    encoder = make(streams=("rgb", "features"), fusion="sum", features=image_model)
    assert not any("features.model" in n for n, _ in encoder.named_parameters())


def test_an_encoder_carries_its_image_model(image_model, tmp_path):
    encoder = make(streams=("rgb", "features"), fusion="gated", features=image_model)
    encoder.save_pretrained(tmp_path / "encoder")
    again = InvActEncoder.from_pretrained(tmp_path / "encoder")
    assert again.config.features == str(tmp_path / "encoder" / "features")
    np.testing.assert_array_equal(again.embed(clips()), encoder.embed(clips()))


def test_features_without_a_model_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"model\.features"):
        make(streams=("features",), fusion="sum", features=str(tmp_path))
    for options in ({"fusion": "sum"}, {"features": "somewhere"}):
        with pytest.raises(ValueError, match="stream features needs"):
            make(streams=("rgb", "features"), **options)
