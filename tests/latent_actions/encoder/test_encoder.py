"""The encoder: a plain ViT without commitment, symmetric in its registers, saved strictly."""

import json
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from invact_vla.core.errors import UserError
from latent_actions.encoder.commit import CommitConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.streams import Streams
from latent_actions.encoder.routing import Routing


def make(seed=0, **options):
    torch.manual_seed(seed)
    commit = CommitConfig(
        **{"start": 1, "registers": 3, "router_width": 8, **options.pop("commit", {})}
    )
    shape = {
        "frames": 4,
        "size": 16,
        "patch": 8,
        "width": 32,
        "depth": 3,
        "heads": 4,
        "embedding": 12,
    }
    return InvActEncoder(EncoderConfig(**{**shape, **options}, commit=commit)).eval()


def clips(count=3, size=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 4, size, size, 3), dtype=np.uint8)


def plain_vit(encoder, frames):
    """A ViT with a class token, written with torch's own layers from the encoder's weights."""
    c = encoder.config
    tokens = encoder.embedder(Streams(torch.from_numpy(frames).float() / 255))
    tokens = torch.cat([encoder.special_tokens.expand(len(tokens), -1, -1), tokens], dim=1)
    for block in encoder.plain_blocks:
        layer = torch.nn.TransformerEncoderLayer(
            c.width, c.heads, int(c.width * c.mlp_ratio), 0.0, partial(F.gelu, approximate="tanh"),
            batch_first=True, norm_first=True,
        )  # fmt: skip
        layer.self_attn.in_proj_weight.data = block.qkv.weight.data
        layer.self_attn.in_proj_bias.data = block.qkv.bias.data
        for mine, theirs in (
            (block.out, layer.self_attn.out_proj), (block.mlp[0], layer.linear1),
            (block.mlp[2], layer.linear2), (block.norm_attention, layer.norm1),
            (block.norm_mlp, layer.norm2),
        ):  # fmt: skip
            theirs.load_state_dict(mine.state_dict())
        tokens = layer(tokens)
    return F.normalize(encoder.head(encoder.norm(tokens[:, 0])), dim=-1)


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_without_commitment_and_registers_it_is_a_plain_vit(stem):
    encoder = make(stem=stem, commit={"estimator": "none", "registers": 0})
    torch.testing.assert_close(
        torch.from_numpy(encoder.embed(clips())), plain_vit(encoder, clips())
    )
    assert encoder(torch.from_numpy(clips())).assignments == []


@pytest.mark.parametrize("pre_routing", ["idle", "joint"])
def test_permuting_registers_leaves_the_embedding(pre_routing):
    encoder = make(commit={"pre_routing": pre_routing})
    expected = encoder.embed(clips())
    with torch.no_grad():
        encoder.special_tokens[:, 1:] = encoder.special_tokens[:, [3, 1, 2]]
    np.testing.assert_allclose(encoder.embed(clips()), expected, atol=1e-6)


@pytest.mark.parametrize("kernel", ["matmul", "sdpa"])
def test_embed_gives_unit_vectors_that_do_not_depend_on_the_batch(kernel):
    encoder = make(kernel=kernel)
    vectors = encoder.embed(clips(5), batch_size=2)
    assert vectors.dtype == np.float32 and vectors.shape == (5, 12)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors, encoder.embed(clips(5)), atol=1e-5)
    assert encoder.embed(clips(0)).shape == (0, 12)


def test_the_linear_stem_is_a_strided_convolution():
    encoder = make(stem="linear", streams=("rgb",))
    pixels = torch.rand(2, 4, 16, 16, 3)
    weight = encoder.embedder.stem.weight.reshape(32, 2, 8, 8, 3).permute(0, 4, 1, 2, 3)
    video = Streams(pixels)["rgb"].permute(0, 4, 1, 2, 3)
    maps = F.conv3d(video, weight, encoder.embedder.stem.bias, stride=(2, 8, 8))
    places = encoder.embedder.time_embed + encoder.embedder.space_embed
    expected = maps.flatten(2).transpose(1, 2) + places.reshape(1, -1, 32)
    torch.testing.assert_close(encoder.embedder(Streams(pixels)), expected, atol=1e-5, rtol=1e-4)


def test_both_kernels_agree():
    one, other = make(kernel="matmul"), make(kernel="sdpa")
    other.load_state_dict(one.state_dict())
    np.testing.assert_allclose(one.embed(clips()), other.embed(clips()), atol=1e-5)


def test_other_sizes_are_resized_and_other_lengths_refused():
    encoder = make()
    assert encoder.embed(clips(2, size=24)).shape == (2, 12)
    with pytest.raises(ValueError, match="expected"):
        encoder.embed(clips(2)[:, :3])
    with pytest.raises(ValueError, match="uint8"):
        encoder.embed(clips(2).astype(np.float32))


def test_still_clips_have_no_motion():
    encoder = make(streams=("diff",))
    still = np.repeat(clips(1)[:, :1], 4, axis=1)
    other = np.repeat(clips(1, seed=5)[:, :1], 4, axis=1)
    np.testing.assert_allclose(encoder.embed(still), encoder.embed(other), atol=1e-6)


def test_committed_map():
    places = make().committed(clips(2))
    assert places.shape == (2, 2, 2, 2) and places.min() >= 0 and places.max() <= 3
    with pytest.raises(ValueError, match="no commit blocks"):
        make(commit={"estimator": "none"}).committed(clips(1))


@pytest.mark.parametrize("estimator", ["st_gumbel", "st_argmax", "topk", "soft", "none"])
def test_every_parameter_learns(estimator):
    encoder = make(commit={"estimator": estimator, "pre_routing": "joint"}).train()
    out = encoder(torch.from_numpy(clips(4)), Routing(hard=True, noise=True))
    out.embedding.std(dim=0).sum().backward()
    unused = [name for name, p in encoder.named_parameters() if p.grad is None]
    assert unused == []


@pytest.mark.parametrize("registers", [0, 1, 4, 8])
def test_any_number_of_registers(registers):
    encoder = make(commit={"registers": registers})
    out = encoder(torch.from_numpy(clips()), Routing(noise=True))
    assert out.registers.shape == (3, registers, 32) and out.assignments[0].used.shape == (
        3,
        8,
        registers + 1,
    )


def test_saved_and_read_back(tmp_path):
    encoder = make(streams=("diff", "rgb"))
    encoder.save_pretrained(tmp_path / "encoder")
    again = InvActEncoder.from_pretrained(tmp_path / "encoder")
    assert again.config == encoder.config and not again.training
    np.testing.assert_array_equal(again.embed(clips()), encoder.embed(clips()))


def test_a_folder_that_does_not_fit_is_refused(tmp_path):
    folder = tmp_path / "encoder"
    make().save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights["head.bias"][0] = np.nan
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"NaN or infinity in head\.bias"):
        InvActEncoder.from_pretrained(folder)
    weights.pop("head.bias")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=r"head\.bias"):
        InvActEncoder.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="incomplete"):
        InvActEncoder.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**config, "widht": 3}))
    with pytest.raises(UserError, match=r"does not describe an encoder.*widht"):
        InvActEncoder.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(UserError, match="not an InvAct encoder"):
        InvActEncoder.from_pretrained(folder)
    with pytest.raises(UserError, match="no folder"):
        InvActEncoder.from_pretrained(tmp_path / "absent")


@pytest.mark.parametrize(
    "options",
    [
        {"patch": 7},
        {"size": 24, "patch": 6},
        {"tubelet": 3},
        {"heads": 5},
        {"streams": ()},
        {"commit": {"start": 3}},
    ],
)
def test_impossible_shapes_are_refused(options):
    with pytest.raises(ValueError):
        make(**options)
