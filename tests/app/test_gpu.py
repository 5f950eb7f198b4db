"""What a GPU computes, held against the CPU; and the script that measures on one.

Both sides compute in fp32 without TF32 (`exact`), so they differ by the order of sums alone.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from invact_vla.app import gpu
from invact_vla.core.errors import UserError
from invact_vla.openvla.checkpoints.checkpoint import load_pretrained
from invact_vla.openvla.heads import action_head
from invact_vla.openvla.inference.policy import OpenVLAPolicy
from invact_vla.training.device import exact, place
from invact_vla.training.loop import LoopConfig, fit
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.labelers.guard.collapse import CollapseConfig
from latent_actions.labelers.guard.guarded import after_step, guarded_loss
from latent_actions.labelers.lapa import LapaLabeler
from latent_actions.labelers.laq.checkpoint import save_pretrained as save_laq
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.labelers.laq.task import LaqTask, batches
from tests.gpu import needs_gpu
from tests.openvla.small import INSTRUCTIONS, pixels, tiny_folder
from tests.paths import REPOSITORY
from tests.placement.test_latents import TINY
from tests.placement.test_openvla import HEADS, config_of, seen

DEVICES = ("cpu", "cuda")


@needs_gpu
@pytest.mark.parametrize("name", HEADS)
def test_losses_gradients_and_actions(name: str, tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "vla", config_of(HEADS[name]))
    losses, norms, chunks = [], [], []
    for device in DEVICES:
        pretrained = load_pretrained(folder, device=device)
        head, model = action_head(pretrained), pretrained.model
        batch = head.batch(INSTRUCTIONS[:2], np.zeros((2, head.chunk, head.action_dim)))
        batch["pixel_values"] = pixels(2, pretrained.config)
        batch["proprio"] = torch.linspace(-1, 1, 16).reshape(2, 8)
        with exact():
            loss, _ = head.loss(model, place(batch, model.device))
            loss.backward()
            chunks.append(OpenVLAPolicy(pretrained).act_batch([seen(t) for t in INSTRUCTIONS[:2]]))
        losses.append(float(loss))
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(gradients)))
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)
    for one, other in zip(*chunks, strict=True):
        assert np.allclose(one.values, other.values, atol=1e-4)


@needs_gpu
def test_bf16_weights_are_read_to_the_gpu(tmp_path: Path) -> None:
    policy = OpenVLAPolicy.from_pretrained(tiny_folder(tmp_path / "vla"))
    parameters = list(policy.pretrained.model.parameters())
    assert {(p.device.type, p.dtype) for p in parameters} == {("cuda", torch.bfloat16)}
    assert np.isfinite(policy.act(seen(INSTRUCTIONS[0])).values).all()


def laq_codes(folder: Path, device: str, frames: np.ndarray) -> np.ndarray:
    return LapaLabeler(folder, torch.device(device)).codes(frames)


@needs_gpu
def test_codes_of_laq(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_laq(LatentActionQuantizer(TINY), tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (200, 2, 16, 16, 3), np.uint8)
    codes = {device: laq_codes(tmp_path, device, frames) for device in DEVICES}
    assert (
        codes["cpu"] == codes["cuda"]
    ).mean() > 0.995  # ties within rounding may fall either way
    # on one device a pair's codes never depend on what else is labeled
    for rows in (slice(3, 4), slice(10, 90), np.random.default_rng(1).permutation(200)):
        assert np.array_equal(laq_codes(tmp_path, "cuda", frames[rows]), codes["cuda"][rows])


@needs_gpu
@pytest.mark.parametrize("size", [16, 64])  # of 8 and of 256 patches: masked and grouped attention
def test_embeddings_of_the_encoder(size: int) -> None:
    torch.manual_seed(0)
    shape = EncoderConfig(frames=8, size=size, width=32, depth=3, heads=2, embedding=16)
    encoder = InvActEncoder(shape).eval()
    clips = np.random.default_rng(0).integers(0, 256, (20, 8, size, size, 3), np.uint8)
    on_cpu = encoder.embed(clips)
    assert np.allclose(encoder.to("cuda").embed(clips), on_cpu, atol=1e-4)


@needs_gpu
def test_training_is_resumed_exactly(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (64, 2, 16, 16, 3), np.uint8)
    loop = LoopConfig(steps=12, batch_size=16, log_every=3, checkpoint_every=6)
    ends = {}
    for name in ("whole", "killed"):
        for stop in [12] if name == "whole" else [8, 12]:
            torch.manual_seed(0)
            task = LaqTask(TINY, CollapseConfig(window=5), steps=12, seed=0)

            def hook(model, step, metrics, stop=stop) -> None:
                after_step(model, step, metrics)
                if step == stop:
                    raise KeyboardInterrupt

            (tmp_path / name).mkdir(exist_ok=True)
            try:
                fit(
                    task,
                    guarded_loss,
                    batches(frames, 16, 0),
                    loop,
                    tmp_path / name,
                    hook,
                    device="cuda",
                )
            except KeyboardInterrupt:
                continue
            assert task.guard.counts.device.type == "cuda"
            ends[name] = task.state_dict()
    for key, value in ends["whole"].items():
        assert torch.allclose(value.float(), ends["killed"][key].float(), atol=1e-5), key


def test_without_a_gpu_the_script_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device here"):
        gpu.main(gpu.GpuConfig(out=tmp_path / "gpu"))
    assert not (tmp_path / "gpu").exists()


def small(tmp_path: Path, **options: object) -> gpu.GpuConfig:
    debug = REPOSITORY / "configs/vla/model_debug.yaml"
    return gpu.GpuConfig(
        out=tmp_path / "gpu", device="cpu", model=debug, batch_size=2, rank=2,
        tests=False, rollout=False, **options,
    )  # fmt: skip


def test_the_script_measures_every_part(tmp_path: Path) -> None:
    assert gpu.main(small(tmp_path)) == 0
    found = json.loads((tmp_path / "gpu/gpu.json").read_text())
    assert found["device"] == "cpu" and found["load"]["parameters"] > 1000
    for part in ("load", "token_action", "oft_chunk", "lora_step"):
        assert found[part]["seconds"] > 0, part
    assert 0 < found["lora_step"]["trained_parameters"] < found["load"]["parameters"]


def test_a_part_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(gpu, "lora_step", full)
    assert gpu.main(small(tmp_path)) == 1
    found = json.loads((tmp_path / "gpu/gpu.json").read_text())
    assert "out of memory" in found["lora_step"]["failed"] and found["oft_chunk"]["seconds"] > 0


def test_the_budget_holds(tmp_path: Path) -> None:
    assert gpu.main(small(tmp_path, budget_s=1.0)) == 0
    found = json.loads((tmp_path / "gpu/gpu.json").read_text())
    assert "skipped" in found["load"] and "skipped" in found["oft_chunk"]
    code, output = gpu._child(["sleep", "5"], 0.2)
    assert (code, output) == (124, "not finished after 0 s")


def test_the_policy_of_the_rollout_acts(tmp_path: Path) -> None:
    gpu.random_policy(REPOSITORY / "configs/vla/model_debug.yaml", tmp_path / "policy")
    policy = OpenVLAPolicy.from_pretrained(tmp_path / "policy")
    assert policy.act(seen(INSTRUCTIONS[0])).values.shape == (1, 7)
