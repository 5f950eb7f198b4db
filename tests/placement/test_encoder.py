"""The InvAct encoder on a fake GPU: every term of the loss, embedding, tokens, text side, readout."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from latent_actions.encoder.commit import CommitConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.language import FEATURES, LanguageHead
from latent_actions.encoder.losses import BatchLabels, ContrastConfig
from latent_actions.encoder.model import TERMS, Batch, InvActModel, LossConfig
from latent_actions.encoder.readout import ReadoutConfig, project_action
from latent_actions.encoder.routing import Routing
from latent_actions.retrieval.encoders import evaluated, references, text_side
from tests.fake_cuda import CUDA, build, fake_cuda

SHAPE = EncoderConfig(frames=4, size=16, width=16, depth=3, heads=2, embedding=8)
LONG = replace(SHAPE, frames=8, size=64)  # over 256 tokens: grouped attention
VERBS = ("open", "close")


def batch(count: int = 8) -> Batch:
    """On the GPU, as the loop gives it: moved by its own `to`."""
    ids = torch.zeros(count, dtype=torch.long)
    backwards, meaning = torch.zeros(count, dtype=torch.bool), torch.zeros(count, FEATURES)
    items = BatchLabels(ids, ids, ids, ids, ids, backwards, meaning)
    pixels = torch.zeros(count, SHAPE.frames, 16, 16, 3)
    return Batch(pixels, items, ids, torch.zeros(count, FEATURES)).to(CUDA)


@pytest.mark.parametrize(
    "contrast",
    [
        {"kind": "scene_aware"}, {"kind": "scene_aware", "beta": 2.0}, {"kind": "supcon"},
        {"kind": "infonce_pair"}, {"negative_mask": "text"},
        {"negative_mask": "none", "positives_in_denominator": True},
    ],
    ids=str,
)  # fmt: skip
def test_every_contrast(contrast: dict) -> None:
    config = LossConfig(contrast=ContrastConfig(**contrast))
    with fake_cuda():
        model = build(lambda: InvActModel(SHAPE, config, VERBS))
        loss, metrics = model(batch(), Routing(hard=True, noise=True))
        assert loss.device == CUDA and {m.device for m in metrics.values()} == {CUDA}


@pytest.mark.parametrize("registers", ["shared", "separate"])
def test_every_term_of_the_loss(registers: str) -> None:
    config = LossConfig(scene=0.1, scene_leakage=0.1, entropy=0.1)
    shape = replace(SHAPE, commit=CommitConfig(register_encoder=registers))  # type: ignore[arg-type]
    with fake_cuda():
        model = build(lambda: InvActModel(shape, config, VERBS))
        for routing in (Routing(hard=False), Routing(hard=True, noise=True)):
            loss, metrics = model(batch(), routing)
            assert loss.device == CUDA and {m.device for m in metrics.values()} == {CUDA}
            assert set(TERMS) <= set(metrics)


COMMIT = [
    {"estimator": "st_argmax"}, {"estimator": "topk"},
    {"estimator": "soft"}, {"estimator": "none", "registers": 0}, {"registers": 0},
    {"pre_routing": "joint"}, {"schedule": "once"}, {"schedule": "once_in_eval"},
    {"patch_attention": "full"}, {"patch_attention": "none"}, {"motion_prior": 1.0},
]  # fmt: skip
EMBEDDER = [
    {"streams": ("rgb", "diff", "flow"), "fusion": "sum"}, {"fusion": "gated", "stem": "linear"},
    {"kernel": "sdpa"},
]  # fmt: skip


@pytest.mark.parametrize(
    "shape",
    [*(replace(SHAPE, commit=CommitConfig(**c)) for c in COMMIT),
     *(replace(SHAPE, **e) for e in EMBEDDER)],
    ids=[str(c) for c in COMMIT + EMBEDDER],
)  # fmt: skip
def test_every_architecture_embeds(shape: EncoderConfig) -> None:
    clips = np.zeros((3, 5, 20, 20, 3), np.uint8)[:, : shape.frames]
    with fake_cuda():
        encoder = build(lambda: InvActEncoder(shape))
        assert encoder.device == CUDA
        assert encoder.embed(clips).shape == (3, shape.embedding)
        known = evaluated(encoder, "it")
        if known.tokens is not None:
            assert known.tokens(clips).committed.shape == (3, *encoder.grid)
            assert encoder.committed(clips).shape == (3, *encoder.grid)


@pytest.mark.parametrize("hard", [True, False])
def test_long_clips(hard: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if hard:  # jagged tensors are made, but fake ones have no attention kernel
        monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", lambda q, k, v: v)
    with fake_cuda():
        encoder = build(lambda: InvActEncoder(LONG))
        frames = torch.zeros(2, 8, 64, 64, 3, device=CUDA)
        assert encoder(frames, Routing(hard=hard, noise=True)).embedding.device == CUDA


def test_frozen_features_follow_the_frames(dino_folder: str) -> None:
    shape = replace(SHAPE, streams=("rgb", "features"), fusion="sum", features=dino_folder)
    real = InvActEncoder(shape)
    assert real.embedder.features is not None
    config = real.embedder.features.model.config
    with fake_cuda():
        from transformers import Dinov2Model

        from latent_actions.encoder.inputs import features

        class Made(features.FrozenFeatures):
            """The same, its weights made here: safetensors cannot read into fake tensors."""

            def __init__(self, folder: str) -> None:
                self.model = Dinov2Model(config).eval().requires_grad_(False)
                self.width, self.size = config.hidden_size, config.image_size
                self.patch, self.scaling = config.patch_size, ((0.5,) * 3, (0.5,) * 3)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("latent_actions.encoder.embedder.FrozenFeatures", Made)
            encoder = InvActEncoder(shape).to(CUDA)  # features are no part of it and stay behind
        assert encoder.embedder.features is not None
        assert next(encoder.embedder.features.model.parameters()).device.type == "cpu"
        assert encoder.embed(np.zeros((2, 4, 16, 16, 3), np.uint8)).shape == (2, 8)


def test_the_text_side() -> None:
    with fake_cuda():
        embed = text_side(build(lambda: LanguageHead(VERBS, 8)))
        assert embed(["opens a door", "closes it"]).shape == (2, 8)


def test_the_readout() -> None:
    class Table:
        def read(self, rows: np.ndarray) -> np.ndarray:
            return np.zeros((len(rows), 4, 16, 16, 3), np.uint8)

    with fake_cuda():
        encoder = build(lambda: InvActEncoder(SHAPE))
        project_action(encoder, Table(), np.arange(20), ReadoutConfig(width=3))  # type: ignore[arg-type]
        assert encoder.head.weight.device == encoder.action_projection.weight.device == CUDA
        assert encoder.embed(np.zeros((2, 4, 16, 16, 3), np.uint8)).shape == (2, 8)


def test_random_weights_beside_it_run_there_too() -> None:
    with fake_cuda():
        for reference in references(SHAPE, 0, CUDA):
            assert len(reference.embed(np.zeros((2, 4, 16, 16, 3), np.uint8))) == 2


def test_a_constant_left_on_the_cpu_is_found() -> None:
    with fake_cuda():
        model = build(lambda: InvActModel(SHAPE, LossConfig(), VERBS))
        model(batch(), Routing())
        model.language.verb_features = model.language.verb_features.cpu()
        with pytest.raises(RuntimeError, match="same device"):
            model(batch(), Routing())


@pytest.fixture(scope="module")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import Dinov2Config, Dinov2Model

    folder: Path = tmp_path_factory.mktemp("dino")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=14)).save_pretrained(folder)
    return str(folder)
