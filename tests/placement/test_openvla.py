"""OpenVLA on a fake GPU: forward, every head's loss and decoding, the policy, direct loading."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from invact_vla.core.schema import Observation
from invact_vla.openvla.attention import AttentionImpl
from invact_vla.openvla.checkpoints.checkpoint import VLACheckpoint
from invact_vla.openvla.config import (
    HeadConfig,
    OftHeadConfig,
    OpenVLAConfig,
    TextHeadConfig,
    TokensHeadConfig,
)
from invact_vla.openvla.heads import action_head
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.inference.policy import OpenVLAPolicy
from invact_vla.openvla.model import build_model
from invact_vla.training.device import place
from invact_vla.untrusted import torch_files
from tests.fake_cuda import CUDA, build, fake_cuda
from tests.openvla.small import (
    INSTRUCTIONS,
    debug_config,
    pixels,
    tiny,
    tiny_folder,
    with_statistics,
)

HEADS = {
    **{name: kind() for name, kind in HeadConfig.get_known_choices().items()},
    "oft_tokens": OftHeadConfig(output="tokens"),
    "oft_learned": OftHeadConfig(slots_per_action=1, learned_slots=True),
    "text": TextHeadConfig(steps=100),
}
TEXTS = INSTRUCTIONS[:2]  # of different lengths: the shorter is padded


def config_of(head: HeadConfig, **options: object) -> OpenVLAConfig:
    return with_statistics(
        debug_config(head=head, chunk=2, proprio_dim=8, cameras=("agentview", "wrist"), **options)
    )


def on_gpu(config: OpenVLAConfig, dtype: torch.dtype = torch.float32) -> VLACheckpoint:
    pretrained = build(lambda: tiny(config))
    pretrained.model.to(dtype)
    return pretrained


def seen(text: str) -> Observation:
    frame = np.zeros((64, 64, 3), np.uint8)
    return Observation(
        agentview=frame, wrist=frame, state=np.zeros(8, np.float32), instruction=text
    )


def inputs(pretrained: VLACheckpoint) -> dict[str, Tensor]:
    """A batch on the GPU, as the loop gives it."""
    head = action_head(pretrained)
    actions = np.zeros((len(TEXTS), head.chunk, head.action_dim))
    batch = head.batch(TEXTS, actions)
    batch["pixel_values"] = torch.zeros_like(pixels(len(TEXTS), pretrained.config))
    batch["proprio"] = torch.zeros(len(TEXTS), 8)
    return place(batch, CUDA)


@pytest.mark.parametrize("name", HEADS)
def test_loss(name: str) -> None:
    with fake_cuda():
        pretrained = on_gpu(config_of(HEADS[name]))
        loss, metrics = action_head(pretrained).loss(pretrained.model.train(), inputs(pretrained))
        assert loss.device == CUDA and loss.requires_grad and metrics


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", HEADS)
def test_the_policy_acts(name: str, dtype: torch.dtype) -> None:
    with fake_cuda():
        policy = OpenVLAPolicy(on_gpu(config_of(HEADS[name]), dtype))
        assert policy.device == CUDA
        chunks = policy.act_batch([seen(text) for text in TEXTS])
        assert [chunk.values.shape for chunk in chunks] == [(2, 7)] * 2


def test_latent_pretraining() -> None:
    with fake_cuda():
        config = debug_config()
        config = debug_config(
            latent_token_ids=tuple(range(config.first_free_row, config.first_free_row + 8))
        )
        pretrained = on_gpu(config)
        ids = torch.zeros(2, 12, dtype=torch.long, device=CUDA)
        images = torch.zeros_like(pixels(2, config)).to(CUDA)
        batch = {"input_ids": ids, "labels": ids, "pixel_values": images}
        loss, metrics = action_head(pretrained).loss(pretrained.model, batch)
        assert loss.device == CUDA and "latent_accuracy" in metrics


def test_decoding_moves_its_inputs() -> None:
    with fake_cuda():
        config = debug_config()
        model = on_gpu(config).model
        prompt = torch.zeros(2, 6, dtype=torch.long)
        images, allowed = torch.zeros_like(pixels(2, config)), torch.arange(300, 310)
        mask = torch.ones_like(prompt)
        ids, logits = greedy_decode(model, prompt, 3, images, attention_mask=mask, allowed=allowed)
        assert ids.device == logits.device == CUDA


@pytest.mark.parametrize("attention", ["sdpa", "matmul"])
def test_both_kernels(attention: AttentionImpl) -> None:
    with fake_cuda():
        config = debug_config()
        model = build(lambda: build_model(config, 0, attention))
        ids = torch.zeros(2, 6, dtype=torch.long, device=CUDA)
        mask = torch.ones_like(ids)
        assert model(ids, mask, pixels(2, config).to(CUDA)).logits.device == CUDA


@pytest.mark.parametrize("constant", ["mask", "pos_embed", "projector"])
def test_a_constant_left_on_the_cpu_is_found(constant: str) -> None:
    """What all tests here rest on."""
    with fake_cuda():
        pretrained = on_gpu(config_of(TokensHeadConfig()))
        batch, model = inputs(pretrained), pretrained.model
        action_head(pretrained).loss(model, batch)
        if constant == "mask":
            batch["attention_mask"] = batch["attention_mask"].cpu()
        elif constant == "pos_embed":
            tower = model.vision_backbone.featurizer
            tower.pos_embed = torch.nn.Parameter(tower.pos_embed.detach().cpu())
        else:
            model.projector.cpu()
        with pytest.raises(RuntimeError, match="device"):
            action_head(pretrained).loss(model, batch)


def test_weights_are_read_straight_to_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """safetensors is told the device, and nothing of the model stays elsewhere."""
    folder = tiny_folder(tmp_path / "vla")
    asked: set[str] = set()
    real = torch_files.safe_open

    class OnFakeDevice:
        """safetensors' file, its tensors fakes on the asked device: there is no GPU to read to."""

        def __init__(self, path: Path, framework: str, device: str) -> None:
            with torch._C._DisableTorchDispatch(), real(path, framework) as file:
                self.shapes = {n: file.get_slice(n).get_shape() for n in file.keys()}  # noqa: SIM118
            self.device = device

        def __enter__(self) -> "OnFakeDevice":
            return self

        def __exit__(self, *exception: object) -> None:
            pass

        def keys(self) -> list[str]:
            return list(self.shapes)

        def get_slice(self, name: str) -> SimpleNamespace:
            return SimpleNamespace(get_shape=lambda: self.shapes[name])  # the header alone

        def get_tensor(self, name: str) -> Tensor:
            asked.add(str(self.device))
            return torch.empty(self.shapes[name], device=self.device)

    monkeypatch.setattr(torch_files, "safe_open", OnFakeDevice)
    with fake_cuda():
        policy = OpenVLAPolicy.from_pretrained(folder, device=CUDA)
        model = policy.pretrained.model
        assert asked == {"cuda:0"}
        places = {t.device for t in (*model.parameters(), *model.buffers())}
        assert places == {CUDA}
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}  # auto, on CUDA
        [chunk] = policy.act_batch([seen(TEXTS[0])])
        assert chunk.values.shape == (1, 7)
