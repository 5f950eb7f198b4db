"""The networks of the baselines against other code: timm, naive loops, published sizes."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from latent_actions.retrieval.baselines.baseline import CLIP_COLORS, IMAGENET, Preprocess
from latent_actions.retrieval.baselines.ego_exo import most_changing
from latent_actions.retrieval.baselines.suml import SlowFast
from latent_actions.retrieval.baselines.video_text import EgoVlpConfig, VideoTower, resize_time
from latent_actions.retrieval.baselines.vit import (
    DividedAttention,
    SpaceTimeTransformer,
    VitShape,
    image_vit,
    resize_as_dino,
)

# of the published Kinetics model (SlowFast R101 8x8), whose head has 400 classes
SLOWFAST_R101_MILLIONS = 62.83


def randomized(model: torch.nn.Module) -> Any:
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("size", [70, 56])
def test_image_vit_is_the_named_model_of_timm(size: int) -> None:
    """The published DINOv2 ViT-S/14 with registers, made small, under its own name in timm."""
    timm = pytest.importorskip("timm")
    shape = VitShape(width=24, depth=2, heads=2, patch=14, grid=5, registers=4,
                     class_position=False, layer_scale=True)  # fmt: skip
    ours = randomized(image_vit(shape))
    other = timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=70, embed_dim=24, depth=2, num_heads=2,
        dynamic_img_size=True,
    ).eval()  # fmt: skip
    other.load_state_dict(ours.state_dict())
    images = torch.rand(2, 3, size, size)
    assert torch.allclose(ours(images), other.forward_features(images)[:, 0], atol=1e-4)


def test_positions_are_resized_as_dino_does() -> None:
    """Against the formula of DINO's repository, for a square grid; a table of another size stays."""
    shape = VitShape(width=8, depth=1, heads=1, patch=14, grid=5)
    table = torch.randn(1, 26, 8)
    image = table[:, 1:].reshape(1, 5, 5, 8).permute(0, 3, 1, 2)
    wanted = F.interpolate(image, scale_factor=(4.1 / 5, 4.1 / 5), mode="bicubic")
    wanted = wanted.permute(0, 2, 3, 1).reshape(1, 16, 8)
    found = resize_as_dino(table, shape, 56)
    assert torch.allclose(found[:, 1:], wanted) and torch.equal(found[:, :1], table[:, :1])
    assert resize_as_dino(table, shape, 70) is table
    assert resize_as_dino(table[:, :9], shape, 56).shape == (1, 9, 8)


@pytest.mark.parametrize("groups", ["(b f) h n e", "(b n) h f e"])
def test_divided_attention_is_masked_dense_attention(groups: str) -> None:
    frames, places, heads = 3, 4, 2
    attention = randomized(DividedAttention(8, heads))
    tokens = torch.randn(2, 1 + frames * places, 8)
    frame = torch.arange(frames).repeat_interleave(places)
    place = torch.arange(places).repeat(frames)
    group = frame if groups.startswith("(b f)") else place
    seen = torch.ones(len(group) + 1, len(group) + 1, dtype=torch.bool)
    seen[1:, 1:] = group[:, None] == group[None]
    q, k, v = (
        part.unflatten(2, (heads, -1)).transpose(1, 2)
        for part in attention.qkv(tokens).chunk(3, dim=-1)
    )
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    wanted = attention.proj(mixed.transpose(1, 2).flatten(2))
    assert torch.allclose(attention(tokens, frames, groups), wanted, atol=1e-6)


def test_video_tower_by_hand() -> None:
    """One block written out: time first, space fed by it, residual from the input."""
    shape = VitShape(width=8, depth=1, heads=2, patch=2, grid=2)
    trunk = randomized(SpaceTimeTransformer(shape, 3, clip_start=False, gated=False))
    clips = torch.randn(2, 3, 3, 4, 4)
    rows = [trunk.cls_token[0, 0] + trunk.pos_embed[0, 0]]
    weight, bias = trunk.patch_embed["proj"].weight.flatten(1), trunk.patch_embed["proj"].bias
    for f in range(3):
        for place in range(4):
            top, left = 2 * (place // 2), 2 * (place % 2)
            patch = clips[0, f, :, top : top + 2, left : left + 2].flatten()
            where = trunk.pos_embed[0, 1 + place] + trunk.temporal_embed[0, f]
            rows.append(weight @ patch + bias + where)
    x = torch.stack(rows)[None]
    block = trunk.blocks[0]
    over_time = block.timeattn(block.norm3(x), 3, "(b n) h f e")
    x = x + block.attn(block.norm1(x + over_time), 3, "(b f) h n e")
    x = x + block.mlp(block.norm2(x))
    assert torch.allclose(trunk(clips)[0], trunk.norm(x)[0, 0], atol=1e-5)


def test_a_closed_gate_ignores_time() -> None:
    shape = VitShape(width=8, depth=2, heads=2, patch=2, grid=2)
    trunk = randomized(SpaceTimeTransformer(shape, 3, clip_start=True, gated=True))
    clips = torch.randn(1, 3, 3, 4, 4)
    before = trunk(clips)
    for block in trunk.blocks:
        torch.nn.init.normal_(block.timeattn.qkv.weight)
    assert not torch.allclose(trunk(clips), before)
    for block in trunk.blocks:
        block.alpha_timeattn.zero_()
    closed = trunk(clips)
    for block in trunk.blocks:
        torch.nn.init.normal_(block.timeattn.qkv.weight)
    assert torch.allclose(trunk(clips), closed)


def test_time_positions_keep_their_ends() -> None:
    table = torch.tensor([[[0.0, 8.0], [4.0, 0.0]]])
    longer = resize_time({"x.temporal_embed": table, "y": table}, 5)
    assert torch.allclose(longer["x.temporal_embed"][0, :, 0], torch.arange(5.0))
    assert longer["y"] is table
    assert torch.equal(resize_time({"temporal_embed": table}, 1)["temporal_embed"], table[:, :1])


def test_published_egovlp_size() -> None:
    """The public ViT-B trunk with 4 frames; the sum is written out from its layer sizes."""
    w, blocks, patches = 768, 12, 196
    attention = 3 * w * w + 3 * w + w * w + w
    block = 2 * attention + 2 * 4 * w * w + 4 * w + w + 3 * 2 * w
    trunk = blocks * block + w + (patches + 1) * w + 4 * w + 3 * 256 * w + w + 2 * w
    with torch.device("meta"):
        config = EgoVlpConfig(weights="x.pth")  # type: ignore[arg-type]
        model = VideoTower(SpaceTimeTransformer(config.trunk, 4, False, False), config.projection())
    assert sum(p.numel() for p in model.parameters()) == trunk + w * 256 + 256


def test_slowfast_has_the_published_size() -> None:
    with torch.device("meta"):
        model = SlowFast(64, (3, 4, 23, 3), (3, 4, 23, 3), 5)
    trunk = sum(p.numel() for p in model.parameters())
    assert (trunk + 2304 * 400 + 400) / 1e6 == pytest.approx(SLOWFAST_R101_MILLIONS, abs=0.01)


def test_slow_pathway_reads_a_quarter_of_the_frames() -> None:
    torch.manual_seed(0)
    model = SlowFast(8, (1, 1, 1, 1), (1, 1, 1, 1), 5).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.kaiming_normal_(parameter)
        elif "_fuse.bn." in name:
            parameter.zero_()  # nothing passes from the fast to the slow pathway
    clips = torch.rand(1, 8, 3, 64, 64)
    changed = clips.clone()
    changed[:, 3] = 0  # of 8 frames the slow pathway reads the first and the last
    before, after = model(clips)[0], model(changed)[0]
    assert torch.allclose(before[:256], after[:256], atol=1e-6)
    assert not torch.allclose(before[256:], after[256:], atol=1e-4)


def test_most_changing_patches_by_loops() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(2, 4, 10, 3)
    wanted = torch.zeros(2, 4, 3)
    for b in range(2):
        for t in range(4):
            a, c = (t, t + 1) if t < 3 else (2, 3)
            change = [float((tokens[b, a, n] - tokens[b, c, n]).abs().mean()) for n in range(10)]
            chosen = sorted(range(10), key=lambda n: -change[n])[:3]
            wanted[b, t] = torch.stack([tokens[b, t, n] for n in chosen]).mean(dim=0)
    assert torch.allclose(most_changing(tokens, 0.3), wanted, atol=1e-6)


def center(image: Tensor, size: int) -> Tensor:
    top, left = ((side - size) // 2 for side in image.shape[-2:])
    return image[..., top : top + size, left : left + size]


def test_preprocess_equals_torchvision() -> None:
    transforms = pytest.importorskip("torchvision.transforms.v2.functional")
    clips = np.random.default_rng(0).integers(0, 256, (1, 2, 60, 90, 3), dtype=np.uint8)
    prepare = Preprocess(frames=2, size=28, resize=32, colors=IMAGENET)
    image = torch.from_numpy(clips[0, 1]).permute(2, 0, 1).float() / 255
    resized = transforms.resize(image, [32], interpolation=3, antialias=True).clamp(0, 1)
    wanted = transforms.normalize(center(resized, 28), *map(list, IMAGENET))
    assert torch.allclose(prepare(clips)[0, 1], wanted, atol=1e-5)


def test_frames_are_spread_and_repeated() -> None:
    ramp = np.zeros((1, 5, 4, 4, 3), np.uint8) + np.arange(5, dtype=np.uint8)[:, None, None, None]
    plain = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    for frames, wanted in ((3, [0, 2, 4]), (10, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]), (1, [0])):
        found = Preprocess(frames=frames, size=4, colors=plain)(ramp)[0, :, 0, 0, 0]
        assert found.round().int().tolist() == wanted
    wide = np.zeros((1, 1, 4, 12, 3), np.uint8)
    wide[:, :, :, :4] = 255  # a crop loses the left third, a stretch keeps it
    crop, stretch = (
        Preprocess(frames=1, size=4, colors=CLIP_COLORS, stretch=s)(wide) for s in (False, True)
    )
    assert crop.std() < stretch.std()
