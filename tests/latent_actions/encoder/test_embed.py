"""`embed` computes less than the training forward, and gives the same vectors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from latent_actions.encoder.commit import CommitConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inference import action_token


@st.composite
def shapes(draw):
    """Any encoder of a few tokens; conv stems take patches that are powers of 2."""
    pick = lambda *values: draw(st.sampled_from(values))
    depth, patch = pick(1, 2, 3), pick(2, 4, 8)
    estimator = pick("st_gumbel", "st_argmax", "topk", "soft", "none")
    commit = CommitConfig(
        estimator=estimator, registers=pick(1, 3) if estimator == "topk" else pick(0, 1, 3),
        start=draw(st.integers(0, depth - 1)), pre_routing=pick("idle", "joint"),
        patch_attention=pick("block", "full", "none"),
        schedule=pick("per_block", "once", "once_in_eval"),
        register_encoder=pick("shared", "separate"), motion_prior=pick(0.0, 2.0), router_width=8,
    )  # fmt: skip
    return EncoderConfig(
        frames=4, tubelet=pick(1, 2, 4), patch=patch, size=patch * pick(2, 3), width=16, heads=2,
        streams=pick(("rgb",), ("diff",), ("rgb", "diff"), ("steady", "rgb")), depth=depth,
        displacement=pick(0, 3),
        fusion=pick("channels", "sum", "gated"), stem=pick("linear", "conv"), embedding=8,
        action_dim=pick(0, 5), kernel=pick("matmul", "sdpa"), commit=commit,
    )  # fmt: skip


def make(config, seed):
    """Random weights, also of what starts at zero."""
    torch.manual_seed(seed)
    encoder = InvActEncoder(config).eval()
    for name, parameter in encoder.named_parameters():
        if name.endswith(("null_key", "null_value", "action_bias", "bias")):
            torch.nn.init.normal_(parameter, std=0.5)
    return encoder


@settings(max_examples=80, deadline=None, derandomize=True)
@given(config=shapes(), seed=st.integers(0, 1000), count=st.integers(1, 3), side=st.integers(9, 30))
def test_embed_is_the_embedding_of_the_training_forward(config, seed, count, side):
    encoder = make(config, seed)
    shape = (count, config.frames, side, side, 3)
    clips = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    expected = encoder(torch.from_numpy(clips))
    np.testing.assert_allclose(encoder.embed(clips), expected.embedding.detach(), atol=1e-5)
    if config.displacement:
        parts = {"displacement": [expected.displacement]}
        parts["both"] = [expected.embedding, expected.displacement]
        for vector, values in parts.items():
            wanted = torch.cat(values, dim=1).detach()
            np.testing.assert_allclose(encoder.embed(clips, vector=vector), wanted, atol=1e-5)
    with torch.no_grad():
        found = action_token(encoder, torch.from_numpy(clips))
    torch.testing.assert_close(found, expected.action.detach(), atol=3e-5, rtol=1e-4)


def test_embed_reads_nothing_that_registers_have_for_themselves():
    """Neither their encoder nor, in the last block, the queries and the MLP of any other token."""
    config = EncoderConfig(
        frames=4, size=16, width=16, heads=2, depth=2,
        commit=CommitConfig(start=1, register_encoder="separate", motion_prior=1.0),
    )  # fmt: skip
    encoder, seen = make(config, 0), []
    encoder.register_encoder.register_forward_hook(lambda *_: seen.append("registers"))
    mlp = encoder.commit_blocks[-1].mlp
    mlp.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
    clips = np.zeros((2, 4, 16, 16, 3), np.uint8)
    encoder.embed(clips)
    assert seen == [1]
    encoder(torch.from_numpy(clips))
    assert seen == [1, 1 + 4 + 8, "registers"]


@pytest.mark.parametrize("schedule", ["once", "once_in_eval"])
def test_routed_once_embed_sends_only_the_patches_of_the_action_token_on(schedule):
    """As many of each clip as the clip with the most of them has, with the two tokens that take them."""
    commit = CommitConfig(start=1, schedule=schedule, motion_prior=1.0)
    config = EncoderConfig(frames=4, size=32, width=16, heads=2, depth=3, commit=commit)
    encoder, seen = make(config, 0), []
    clips = np.random.default_rng(0).integers(0, 256, (5, 4, 32, 32, 3), dtype=np.uint8)
    most = int(encoder(torch.from_numpy(clips)).assignments[0].used[..., 0].sum(dim=1).max())
    encoder.commit_blocks[0].mlp.register_forward_hook(lambda _, x, __: seen.append(x[0].shape[1]))
    encoder.train().embed(clips)  # the mode is nothing to it
    assert seen == [2 + most] and most < 32


@pytest.mark.parametrize("streams", [("diff",), ("rgb", "diff")])
def test_embed_under_bf16_autocast_is_close(streams):
    encoder = make(EncoderConfig(frames=4, size=16, width=32, streams=streams), 0)
    clips = np.random.default_rng(0).integers(0, 256, (20, 4, 16, 16, 3), dtype=np.uint8)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder.embed(clips)
    assert found.dtype == np.float32
    assert np.median((found * encoder.embed(clips)).sum(axis=1)) > 0.999
