"""Random tensors under the published names of research checkpoints, written out independently of
our modules: what a download would hold, at small sizes.

W width of a transformer, L its depth.
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, inside: int, out: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (out, inside)} | ({f"{name}.bias": (out,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def batch_norm(name: str, width: int) -> Shapes:
    return norm(name, width) | {
        f"{name}.running_mean": (width,),
        f"{name}.running_var": (width,),
        f"{name}.num_batches_tracked": (),
    }


def merged(parts: Iterable[Shapes]) -> Shapes:
    return {name: shape for part in parts for name, shape in part.items()}


def vit_block(name: str, width: int, layer_scale: bool = False) -> Shapes:
    found = (
        norm(f"{name}.norm1", width)
        | linear(f"{name}.attn.qkv", width, 3 * width)
        | linear(f"{name}.attn.proj", width, width)
        | norm(f"{name}.norm2", width)
        | linear(f"{name}.mlp.fc1", width, 4 * width)
        | linear(f"{name}.mlp.fc2", 4 * width, width)
    )
    gains = {f"{name}.ls1.gamma": (width,), f"{name}.ls2.gamma": (width,)}
    return found | (gains if layer_scale else {})


def space_time_vit(name: str, width: int, depth: int, patch: int, places: int, frames: int,
                   clip_start: bool = False, gated: bool = False) -> Shapes:  # fmt: skip
    """The frozen-in-time video transformer of EgoVLP, EgoVLPv2 and LaViLa."""
    found: Shapes = {
        f"{name}.cls_token": (1, 1, width),
        f"{name}.pos_embed": (1, places + 1, width),
        f"{name}.temporal_embed": (1, frames, width),
        f"{name}.patch_embed.proj.weight": (width, 3, patch, patch),
        **norm(f"{name}.norm", width),
    }
    if clip_start:
        found |= norm(f"{name}.ln_pre", width)
    else:
        found[f"{name}.patch_embed.proj.bias"] = (width,)
    for i in range(depth):
        block = f"{name}.blocks.{i}"
        found |= vit_block(block, width) | norm(f"{block}.norm3", width)
        found |= linear(f"{block}.timeattn.qkv", width, 3 * width)
        found |= linear(f"{block}.timeattn.proj", width, width)
        if gated:
            found[f"{block}.alpha_timeattn"] = ()
    return found


def egovlp(width: int = 16, depth: int = 2, embedding: int = 8) -> Shapes:
    return (
        space_time_vit("module.video_model", width, depth, 4, 16, 4)
        | linear("module.vid_proj.0", width, embedding)
        | linear("module.txt_proj.1", 12, embedding)
        | {"module.text_model.embeddings.word_embeddings.weight": (5, 12)}
    )


def egovlp_converted(width: int = 16, depth: int = 2, embedding: int = 8) -> Shapes:
    return (
        space_time_vit("module.visual", width, depth, 4, 16, 4)
        | linear("module.image_projection.0", width, embedding)
        | linear("module.text_projection.1", 12, embedding)
        | {"module.textual.embeddings.word_embeddings.weight": (5, 12)}
    )


def egovlpv2(width: int = 16, depth: int = 2, embedding: int = 8) -> Shapes:
    fusion = "module.video_model.blocks.1.attn"
    return (
        space_time_vit("module.video_model", width, depth, 4, 16, 4)
        | linear(f"{fusion}.qkv_text_i2t", width, 2 * width)
        | linear(f"{fusion}.qkv_i2t", width, width)
        | linear(f"{fusion}.proj_i2t", width, width)
        | norm(f"{fusion}.norm_i2t_i", width)
        | {f"{fusion}.alpha_i2t": (1,), "module.cls_token": (1, 1, width)}
        | norm("module.norm", width)
        | linear("module.vid_proj.0", width, embedding, bias=False)
        | linear("module.vid_proj.2", embedding, embedding)
        | linear("module.vid_proj.4", embedding, embedding)
        | linear("module.txt_proj.0", 12, embedding, bias=False)
        | linear("module.cross_modal_video_transform", width, width)
        | linear("module.cross_modal_text_pooler.dense", width, width)
        | linear("module.itm_score.fc", 2 * width, 2)
        | {"module.mlm_score.bias": (5,), "module.text_model.pooler.dense.bias": (12,)}
    )


def lavila(gated: bool, width: int = 16, depth: int = 2, embedding: int = 8) -> Shapes:
    return (
        space_time_vit("module.visual", width, depth, 4, 16, 4, clip_start=True, gated=gated)
        | norm("module.ln_final", 12)
        | linear("module.transformer.resblocks.0.mlp.c_fc", 12, 48)
        | {
            "module.image_projection": (width, embedding),
            "module.text_projection": (12, embedding),
            "module.token_embedding.weight": (5, 12),
            "module.positional_embedding": (7, 12),
            "module.logit_scale": (),
        }
    )


def flowfeat(width: int = 24, depth: int = 4, patch: int = 14, grid: int = 5) -> Shapes:
    """Hub DINOv2 under `encoder.`, DPT decoder of 128 channels under `decoder.`."""
    f = 128
    found: Shapes = {
        "encoder.cls_token": (1, 1, width),
        "encoder.mask_token": (1, width),
        "encoder.pos_embed": (1, grid**2 + 1, width),
        "encoder.patch_embed.proj.weight": (width, 3, patch, patch),
        "encoder.patch_embed.proj.bias": (width,),
        **norm("encoder.norm", width),
        **merged(vit_block(f"encoder.blocks.{i}", width, True) for i in range(depth)),
        **norm("decoder.norm.norm", f),
    }

    def conv(name: str, inside: int, out: int, kernel: int, bias: bool = True) -> Shapes:
        shape = {f"{name}.weight": (out, inside, kernel, kernel)}
        return shape | ({f"{name}.bias": (out,)} if bias else {})

    for i, resize in ((1, 4), (2, 2), (3, 0), (4, 3)):
        found |= conv(f"decoder.act_postprocess{i}.post.0", width, width, 1)
        if resize:
            found |= conv(f"decoder.act_postprocess{i}.post.1", width, width, resize)
        found |= conv(f"decoder.scratch.layer{i}_rn", width, f, 3, bias=False)
        for unit in (1, 2):
            for layer in (1, 2):
                name = f"decoder.scratch.refinenet{i}.resConfUnit{unit}.conv{layer}"
                found |= conv(name, f, f, 3)
    found |= conv("decoder.scratch.output_conv0", f, f, 3)
    found |= conv("decoder.scratch.output_conv1.0", f, f, 3)
    return found | conv("decoder.scratch.output_conv1.2", f, f, 1)


def timm_dinov2_registers(width: int = 24, depth: int = 4, grid: int = 5) -> Shapes:
    return {
        "cls_token": (1, 1, width),
        "reg_token": (1, 4, width),
        "pos_embed": (1, grid**2, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        **merged(vit_block(f"blocks.{i}", width, True) for i in range(depth)),
        **norm("norm", width),
    }


def torch_layer(name: str, width: int, hidden: int) -> Shapes:
    return {
        f"{name}.self_attn.in_proj_weight": (3 * width, width),
        f"{name}.self_attn.in_proj_bias": (3 * width,),
        **linear(f"{name}.self_attn.out_proj", width, width),
        **linear(f"{name}.linear1", width, hidden),
        **linear(f"{name}.linear2", hidden, width),
        **norm(f"{name}.norm1", width),
        **norm(f"{name}.norm2", width),
    }


def lift(features: int = 24, width: int = 16, steps: int = 20) -> Shapes:
    encoder = "model.encoder"
    found: Shapes = {
        f"{encoder}.pos_encoder.pe": (1, steps, width),
        f"{encoder}.cls_static": (1, 1, width),
        f"{encoder}.cls_dynamic": (1, 1, width),
        **linear(f"{encoder}.input_proj", features, width),
        **merged(torch_layer(f"{encoder}.transformer.layers.{i}", width, 4 * width)
                 for i in range(4)),
    }  # fmt: skip
    for name in ("static", "dynamic"):
        found |= linear(f"{encoder}.{name}_proj", width, width)
        found |= norm(f"{encoder}.{name}_norm", width)
    return found | linear("model.decoder.model.0", width, 2 * width)


def resnet50_trunk(name: str) -> Shapes:
    """torchvision's names, without the last stage."""
    found: Shapes = {f"{name}.conv1.weight": (64, 3, 7, 7)} | batch_norm(f"{name}.bn1", 64)
    inside = 64
    for stage, (blocks, middle) in enumerate(((3, 64), (4, 128), (6, 256)), start=1):
        for i in range(blocks):
            block = f"{name}.layer{stage}.{i}"
            sizes = ((middle, inside, 1), (middle, middle, 3), (4 * middle, middle, 1))
            for n, (out, into, kernel) in enumerate(sizes, start=1):
                found[f"{block}.conv{n}.weight"] = (out, into, kernel, kernel)
                found |= batch_norm(f"{block}.bn{n}", out)
            if i == 0:
                found[f"{block}.downsample.0.weight"] = (4 * middle, inside, 1, 1)
                found |= batch_norm(f"{block}.downsample.1", 4 * middle)
            inside = 4 * middle
    return found


def ae2(objects: bool) -> Shapes:
    found = resnet50_trunk("model.base_model")
    for i, inside in ((0, 1024), (3, 256)):
        found[f"model.conv_layers.{i}.weight"] = (256, inside, 3, 3, 3)
        found[f"model.conv_layers.{i}.bias"] = (256,)
        found |= batch_norm(f"model.conv_layers.{i + 1}", 256)
    found |= linear("model.fc_layers.1", 256, 256) | linear("model.fc_layers.4", 256, 256)
    if not objects:
        return found | linear("model.embedding_layer", 256, 128)
    return {
        **found,
        "model.pos_embed": (5, 128),
        "model.token_embed": (1, 5, 128),
        **linear("model.proj_local", 1024, 128),
        **linear("model.proj_global", 256, 128),
        **norm("model.ln", 128),
        **norm("model.embedding_layer.0", 128),
        **linear("model.embedding_layer.1", 128, 128),
        **merged(torch_layer(f"model.transformer_encoder.layers.{i}", 128, 2048)
                 for i in range(3)),
    }  # fmt: skip


def byov(width: int = 16, embedding: int = 16, frames: int = 6) -> Shapes:
    """transformers 4's names of CLIP's tower, one block of each kind."""
    clip = "model.base_model.vision_model"
    layer = f"{clip}.encoder.layers.0"
    return {
        f"{clip}.embeddings.class_embedding": (width,),
        f"{clip}.embeddings.patch_embedding.weight": (width, 3, 8, 8),
        f"{clip}.embeddings.position_embedding.weight": (17, width),
        **norm(f"{clip}.pre_layrnorm", width),
        **norm(f"{clip}.post_layernorm", width),
        **merged(linear(f"{layer}.self_attn.{n}_proj", width, width) for n in ("q", "k", "v")),
        **linear(f"{layer}.self_attn.out_proj", width, width),
        **norm(f"{layer}.layer_norm1", width),
        **norm(f"{layer}.layer_norm2", width),
        **linear(f"{layer}.mlp.fc1", width, 4 * width),
        **linear(f"{layer}.mlp.fc2", 4 * width, width),
        **norm("encoder.embedding_layer.0", width),
        **linear("encoder.embedding_layer.1", width, embedding),
        "encoder.pos_embed": (1, frames, width),
        **vit_block("encoder.encoder.0", embedding),
        **norm("encoder.norm", embedding),
        "decoder.mask_token": (1, 1, embedding),
    }


def slowfast(blocks: tuple[int, ...], width: int = 8, stem: str = "pathway") -> Shapes:
    """SlowFast with its exo twin and a head, as SUM-L keeps them; every block spans time."""
    one = _slowfast_trunk(blocks, width, stem)
    twin = {name.replace(".", "_t.", 1): shape for name, shape in one.items()}
    return one | twin | linear("headepic100.projection_verb", 36 * width, 97)


def _slowfast_trunk(blocks: tuple[int, ...], width: int, stem: str) -> Shapes:
    found: Shapes = {}
    names = ("pathway0_stem", "pathway1_stem") if stem == "pathway" else ("s0_stem", "s1_stem")
    for name, out, taps in zip(names, (width, width // 8), (1, 5), strict=True):
        found[f"s1.{name}.conv.weight"] = (out, 3, taps, 7, 7)
        found |= batch_norm(f"s1.{name}.bn", out)
    before = width
    for stage in (1, 2, 3, 4, 5):
        out = width * 2**stage if stage > 1 else width
        if stage > 1:
            for path, share in ((0, 1), (1, 8)):
                inside = (before + before // 4) if path == 0 else before // 8
                taps = (1 if stage < 4 else 3) if path == 0 else 3
                for i in range(blocks[stage - 2]):
                    name = f"s{stage}.pathway{path}_res{i}"
                    found |= _bottleneck(name, inside, out // share, taps, i == 0)
                    inside = out // share
        if stage < 5:
            found[f"s{stage}_fuse.conv_f2s.weight"] = (out // 4, out // 8, 5, 1, 1)
            found |= batch_norm(f"s{stage}_fuse.bn", out // 4)
        before = out
    return found


def _bottleneck(name: str, inside: int, out: int, taps: int, first: bool) -> Shapes:
    middle = out // 4
    found: Shapes = {
        f"{name}.branch2.a.weight": (middle, inside, taps, 1, 1),
        f"{name}.branch2.b.weight": (middle, middle, 1, 3, 3),
        f"{name}.branch2.c.weight": (out, middle, 1, 1, 1),
    }
    for layer, channels in (("a", middle), ("b", middle), ("c", out)):
        found |= batch_norm(f"{name}.branch2.{layer}_bn", channels)
    if first:
        found[f"{name}.branch1.weight"] = (out, inside, 1, 1, 1)
        found |= batch_norm(f"{name}.branch1_bn", out)
    return found


def drawn(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Random values: matrices shrink with their fan-in, variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            value = torch.zeros((), dtype=torch.int64)
        elif name.endswith("running_var") or ("norm" in name and name.endswith("weight")):
            value = 1 + 0.1 * value.abs()
        elif name.endswith("running_mean"):
            value = 0.1 * value
        elif value.ndim > 1 and not name.endswith(("pos_embed", "temporal_embed")):
            gain = 2 if value.ndim > 3 else 1  # convolutions lie behind rectifiers
            value = value * (gain / value[0].numel()) ** 0.5
        found[name] = value
    return found


def write(path: Path, shapes: Shapes, inside: str | None, seed: int = 0) -> Path:
    """Save as a research checkpoint does: a pickle, the tensors under `inside`."""
    state = drawn(shapes, seed)
    torch.save({inside: state, "epoch": 3} if inside else state, path)
    return path
