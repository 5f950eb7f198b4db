"""A small checkpoint that really uses both cameras and the words, trained in a minute.

Tasks 0 and 1 of LIBERO-10 share a scene and differ in what is to be fetched, so the words matter.
Without the robot's state among the inputs, only the frames tell where the hand is; the first steps
of the training show the wrist camera alone, which would be left unread beside the other.
"""

from dataclasses import replace
from pathlib import Path

from einops import rearrange
from torch import Tensor

from invact_vla.data.readers import open_dataset
from invact_vla.openvla.checkpoints.checkpoint import fresh, save_pretrained
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.config import OpenVLAConfig, TowerConfig
from invact_vla.openvla.tokenizer import prompt_of
from invact_vla.recipes import posttrain
from invact_vla.recipes.train import Batches
from invact_vla.training.loop import LoopConfig, fit
from libero_eval.demos.command import DemosConfig
from libero_eval.demos.command import main as make_demos
from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.tasks import instruction, task_name
from tests.paths import REPOSITORY

TASKS = (0, 1)
PIXELS = 64
PIECES = 640  # of the tokenizer, 256 of them for actions: prompts of some 20 ids
DARK, FLAT = (0.28, 0.18, 0.16), (0.15, 0.12, 0.12)  # colors of the wrist camera's frames
WRIST_STEPS = 25  # of training in which the agentview is hidden


def demonstrations(out: Path) -> Path:
    """A demonstration of each task with both cameras: about 10 s."""
    return make_demos(
        DemosConfig(
            out=out, tasks=TASKS, n_per_task=1, image_size=PIXELS, wrist=True, verify=False,
            assets=ProceduralPack(), workers=0,
        )
    )  # fmt: skip


def size() -> OpenVLAConfig:
    """The debug size with 64 px images, wider, and with more pieces."""
    config = load_model_config(REPOSITORY / "configs/vla/model_debug.yaml")
    text = replace(
        config.text_config,
        hidden_size=96,
        head_dim=48,
        intermediate_size=192,
        vocab_size=PIECES + 64,
    )
    towers = tuple(_tower(tower) for tower in config.towers)
    return replace(
        config, towers=towers, image_sizes=(PIXELS, PIXELS), text_config=text,
        pad_token_id=PIECES, invact=replace(config.invact, text_vocab_size=PIECES),
    )  # fmt: skip


def _tower(tower: TowerConfig) -> TowerConfig:
    return replace(tower, img_size=PIXELS, embed_dim=48, num_heads=3, depth=3)


def checkpoint(out: Path, demos: Path, steps: int = 550) -> Path:
    """Train it; the checkpoint folder."""
    words = [prompt_of(instruction(task_name("libero_10", task))) for task in TASKS]
    config = posttrain.PosttrainConfig(
        out=out, demos=demos, chunk=2, wrist=True, augment=False, held_out=0,
        frames=out / "frames", workers=0,
        loop=LoopConfig(
            steps=steps, batch_size=32, learning_rate=2e-3, warmup_steps=30, weight_decay=0.01,
            log_every=50, checkpoint_every=1000,
        ),
    )  # fmt: skip
    start = fresh(size(), words, 0)
    contrast = replace(start.processor, means=(DARK,) * 2, stds=(FLAT,) * 2)
    dataset = open_dataset(config.source)
    task = posttrain.policy_task(config, dataset, replace(start, processor=contrast))
    batches = Batches(task.training, config.loop, config.augment)

    def batch_at(step: int) -> dict[str, Tensor]:
        batch = batches(step)
        if step < WRIST_STEPS:
            rearrange(batch["pixel_values"], "b (v c) h w -> v b c h w", v=2)[0] = 0
        return batch

    out.mkdir(parents=True, exist_ok=True)
    fit(task.checkpoint.model, task.head.loss, batch_at, config.loop, out)
    save_pretrained(task.checkpoint, out / "model")
    return out / "model"
