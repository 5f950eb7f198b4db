"""Pretraining and post-training on a fake GPU: held-out measurements, LoRA, a model made a policy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from invact_vla.data.dataset import EpisodeInfo, EpisodeNumbers, RobotDataset
from invact_vla.openvla.adapters.adapter import attach
from invact_vla.openvla.adapters.lora import LoraConfig
from invact_vla.openvla.config import OftHeadConfig, TokensHeadConfig
from invact_vla.openvla.heads import action_head
from invact_vla.openvla.inference.policy import as_policy
from invact_vla.recipes.posttrain import RobotExamples
from invact_vla.recipes.pretrain import LatentExamples
from tests.fake_cuda import CUDA, fake_cuda
from tests.openvla.small import INSTRUCTIONS, debug_config
from tests.placement.test_openvla import HEADS, config_of, inputs, on_gpu


class Demonstrations(RobotDataset):
    """Three steps of two episodes."""

    episodes = tuple(EpisodeInfo(str(i), "t", text, 3) for i, text in enumerate(INSTRUCTIONS[:2]))
    key = "demonstrations"

    def numbers(self, index: int) -> EpisodeNumbers:
        return EpisodeNumbers(np.zeros((3, 7)), np.zeros((3, 8), np.float32))

    def frames(self, index: int, camera: str) -> np.ndarray:
        raise NotImplementedError


@pytest.mark.parametrize("name", HEADS)
def test_measuring_a_policy(name: str) -> None:
    with fake_cuda():
        policy = on_gpu(config_of(HEADS[name]))
        head, size = action_head(policy), policy.processor.size

        def frames(episodes: np.ndarray, steps: np.ndarray) -> np.ndarray:
            return np.zeros((len(steps), 2, size, size, 3), np.uint8)

        examples = RobotExamples(policy, head, Demonstrations(), [0, 1], frames)
        found = examples.evaluate(head, policy.model)
        assert found["held_out_samples"] == 4 and "held_out_loss_other_picture" in found


def test_measuring_pretraining() -> None:
    config = debug_config()
    config = debug_config(
        latent_token_ids=tuple(range(config.first_free_row, config.first_free_row + 8))
    )
    codes = np.zeros((5, 4), np.int64)

    class Examples(LatentExamples):
        def __init__(self) -> None:
            self.store = SimpleNamespace(labels=SimpleNamespace(codes=codes))  # type: ignore[assignment]
            self.modes = codes[0]

        def __len__(self) -> int:
            return 5

        def batch(self, rows: np.ndarray, draws: None = None) -> dict[str, torch.Tensor]:
            ids = torch.zeros(len(rows), 9, dtype=torch.long)
            images = torch.zeros(len(rows), 6, config.image_size, config.image_size)
            return {"input_ids": ids, "labels": ids.clone(), "pixel_values": images}

    with fake_cuda():
        pretrained = on_gpu(config)
        found = Examples().evaluate(action_head(pretrained), pretrained.model)
        assert found["held_out_pairs"] == 5


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("targets", ["sane", "published"])
def test_adapters_are_where_their_layers_are(targets: str, checkpointing: bool) -> None:
    with fake_cuda():
        pretrained = on_gpu(config_of(OftHeadConfig()))
        attach(pretrained.model, LoraConfig(rank=2, targets=targets))  # type: ignore[arg-type]
        if checkpointing:
            pretrained.model.checkpoint_gradients()
        loss, _ = action_head(pretrained).loss(pretrained.model.train(), inputs(pretrained))
        assert loss.device == CUDA
        assert {p.device for p in pretrained.model.parameters()} == {CUDA}


def test_parts_that_a_head_adds_are_made_where_the_model_is() -> None:
    with fake_cuda():
        pretrained = on_gpu(debug_config())
        policy = as_policy(
            pretrained,
            head=OftHeadConfig(slots_per_action=1, learned_slots=True),
            chunk=2,
            cameras=("agentview", "wrist"),
            proprio_dim=8,
            action_dim=7,
            norm_stats=config_of(TokensHeadConfig()).norm_stats,
            crop=True,
            seed=0,
        )
        assert {p.device for p in policy.model.parameters()} == {CUDA}
        loss, _ = action_head(policy).loss(policy.model, inputs(policy))
        assert loss.device == CUDA
