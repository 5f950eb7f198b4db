"""Post-training: every head resumes exactly, LoRA leaves its base alone, pieces and processes add up."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from invact_vla.core.errors import UserError
from invact_vla.core.schema import Observation
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.frame_cache import FrameCache
from invact_vla.data.readers import open_dataset
from invact_vla.openvla.adapters.lora import LoraConfig
from invact_vla.openvla.checkpoints.checkpoint import load_pretrained
from invact_vla.openvla.config import HeadConfig, OftHeadConfig, TextHeadConfig
from invact_vla.openvla.inference.policy import OpenVLAPolicy
from invact_vla.recipes import export, posttrain, train
from invact_vla.recipes.export import ExportConfig
from invact_vla.recipes.posttrain import PosttrainConfig
from invact_vla.recipes.train import Batches
from invact_vla.training.loop import LoopConfig
from tests.latent_actions.encoder.test_distributed import rows, torchrun
from tests.openvla.small import tiny_folder
from tests.recipes.fixtures import write_demos

HEADS = {
    **{name: kind() for name, kind in HeadConfig.get_known_choices().items()},
    "oft": OftHeadConfig(slots_per_action=1, learned_slots=True),
    "published oft": OftHeadConfig(),
    "text": TextHeadConfig(steps=50),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("posttrain")
    tiny_folder(folder / "start")
    write_demos(folder / "demos", count=4)
    return folder


def config_of(home: Path, out: Path, **changes: object) -> PosttrainConfig:
    loop = LoopConfig(steps=6, batch_size=8, log_every=1, checkpoint_every=2, warmup_steps=2)
    config = PosttrainConfig(
        out=out, model=home / "start", demos=home / "demos", held_out=1, chunk=2, wrist=True,
        proprio=True, frames=home / "frames", workers=0, loop=loop, device="cpu",
    )  # fmt: skip
    return replace(config, **changes)


def weights(run: Path, name: str = "model") -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for path in sorted((run / name).glob("*.safetensors")):
        found |= load_file(path)
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


class Killed(Exception):
    pass


def killed_after(config: PosttrainConfig, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run it and let it die while it makes the batch of a step."""
    whole = Batches.__call__

    def dying(self: Batches, at: int) -> dict[str, torch.Tensor]:
        if at == step:
            raise Killed
        return whole(self, at)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Batches, "__call__", dying)
        posttrain.main(config)


@pytest.mark.parametrize("head", HEADS)
def test_resumed_as_never_killed(
    home: Path, tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = config_of(home, tmp_path / "whole", head=HEADS[head])
    torn = replace(whole, out=tmp_path / "torn")
    posttrain.main(whole)
    killed_after(torn, 5, monkeypatch)
    posttrain.main(torn)
    assert rows(whole.out) == rows(torn.out)
    assert same(weights(whole.out), weights(torn.out))
    summary = json.loads((whole.out / "summary.json").read_text())
    assert summary["demonstrations"] == 3 and "held_out_loss_other_picture" in summary


@pytest.mark.parametrize("head", HEADS)
def test_what_was_trained_acts(home: Path, tmp_path: Path, head: str) -> None:
    run = posttrain.main(config_of(home, tmp_path / "run", head=HEADS[head]))
    policy = OpenVLAPolicy.from_pretrained(run / "model")
    assert policy.needs == ("agentview", "wrist") and policy.chunk == 2
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 255, (64, 64, 3), np.uint8)
    seen = Observation(frame, frame, np.zeros(8, np.float32), "put the cup on the plate")
    chunk = policy.act(seen)
    assert chunk.values.shape == (2, 7) and set(np.unique(chunk.values[:, 6])) <= {-1.0, 1.0}


def test_bounds_and_rest_stand_in_the_checkpoint_and_outlive_its_export(
    home: Path, tmp_path: Path
) -> None:
    changes = {"action_bounds": "minmax", "action_rest": True, "head": HEADS["published oft"]}
    config = config_of(home, tmp_path / "run", **changes)
    run = posttrain.main(config)
    numbers = [open_dataset(config.source).numbers(i).actions for i in range(3)]
    least = np.concatenate(numbers).min(0)[:6].tolist()
    policy = OpenVLAPolicy.from_pretrained(run / "model", device="cpu")
    assert policy.actions.bounds == "minmax" and policy.actions.low[:6].tolist() == least
    assert policy.actions.rest_fraction is not None
    plain = OpenVLAPolicy.from_pretrained(home / "start", device="cpu")
    assert plain.actions.bounds == "quantile" and plain.actions.rest_fraction is None
    out = export.main(ExportConfig(folder=run, out=tmp_path / "out"))
    exported = OpenVLAPolicy.from_pretrained(out, device="cpu").actions
    assert exported.low.tolist() == policy.actions.low.tolist() == exported.q01.tolist()
    assert exported.bounds == "minmax"
    assert "rest_fraction" in (out / "README.md").read_text()
    statistics = json.loads((out / "dataset_statistics.json").read_text())["libero_10"]["action"]
    assert statistics["q01"][:6] == least, "where stock code looks for the bounds"


def test_lora_changes_the_adapter_alone_and_resumes(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = OftHeadConfig(slots_per_action=1, learned_slots=True)
    whole = config_of(home, tmp_path / "whole", head=head, lora=LoraConfig(rank=2))
    torn = replace(whole, out=tmp_path / "torn")
    posttrain.main(whole)
    killed_after(torn, 3, monkeypatch)
    kept = load_file(torn.out / "checkpoint" / "model.safetensors")
    assert kept and not any("base_layer" in name for name in kept), "the base is not kept again"
    posttrain.main(torn)
    for name in ("adapter", "model"):
        assert same(weights(whole.out, name), weights(torn.out, name)), name
    start, merged = load_pretrained(home / "start").model, load_pretrained(whole.out).model
    before, after = start.state_dict(), merged.state_dict()
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert changed and all(n.endswith("weight") and before[n].ndim == 2 for n in changed)
    assert "language_model.model.embed_tokens.weight" not in changed


def test_pieces_add_up(home: Path, tmp_path: Path) -> None:
    """Accumulation 4 x 8 is batch 32, for a head whose samples have unequal numbers of targets too."""
    for head in ("oft", "text"):
        runs = []
        for name, micro in (("one", None), ("pieces", 8), ("uneven", 12)):
            config = config_of(home, tmp_path / f"{head}-{name}", head=HEADS[head])
            config = replace(config, loop=replace(config.loop, batch_size=32, micro_batch=micro))
            runs.append(rows(posttrain.main(config)))
        for other in runs[1:]:
            worst = max(abs(a["loss"] - b["loss"]) for a, b in zip(runs[0], other, strict=True))
            assert worst < 1e-4, head


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp", "ddp-lora", "fsdp-lora"])
def test_two_processes_train_as_one(home: Path, tmp_path: Path, kind: str) -> None:
    options = [
        "-m", "invact_vla.app.cli", "vla", "posttrain", "--model", str(home / "start"),
        "--demos", str(home / "demos"), "--held_out", "1", "--chunk", "2", "--proprio", "true",
        "--head.type", "oft", "--frames", str(home / "frames"), "--workers", "0", "--device", "cpu",
        "--loop.steps", "6", "--loop.batch_size", "32", "--loop.log_every", "1",
        "--loop.checkpoint_every", "2",
    ]  # fmt: skip
    if "lora" in kind:
        options += ["--lora.rank", "2"]
    if "fsdp" in kind:
        environment = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2",
                       "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
                       "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer"}  # fmt: skip
    else:
        environment = {}
    found = {}
    for processes in (1, 2):
        out = tmp_path / f"{kind}{processes}"
        extra = environment if processes == 2 else {}
        pieces = ["--loop.micro_batch", "8"] if processes == 2 else []
        done = torchrun(processes, *options, *pieces, "--out", str(out), environment=extra)
        assert done.returncode == 0, done.stderr[-3000:]
        found[processes] = rows(out)
    worst = max(abs(a["loss"] - b["loss"]) for a, b in zip(found[1], found[2], strict=True))
    assert worst < 1e-4
    assert load_pretrained(tmp_path / f"{kind}2").config.invact.chunk == 2


def test_processes_see_no_sample_twice(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(home, tmp_path / "run")
    dataset = open_dataset(config.source)
    task = posttrain.policy_task(config, dataset, load_pretrained(config.model))
    batches = Batches(task.training, config.loop, config.augment)
    whole = batches(3)
    halves = []
    for rank in range(2):
        place = np.arange(8)[rank * 4 : rank * 4 + 4]
        monkeypatch.setattr(train, "local_positions", lambda size, place=place: place)
        halves.append(batches(3))
    for name, value in whole.items():
        assert torch.equal(torch.cat([half[name] for half in halves]), value), name


def test_one_demonstration_reads_one(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    config = config_of(home, tmp_path / "run", held_out=0, max_demos=1, frames=tmp_path / "frames")
    dataset = open_dataset(config.source)
    kind = type(dataset)
    frames = kind.frames
    monkeypatch.setattr(kind, "frames", lambda d, i, c: read.append(i) or frames(d, i, c))
    posttrain.main(config)
    assert set(read) == {0}


def test_a_frame_cache_is_shared_and_goes_on(home: Path, tmp_path: Path) -> None:
    dataset = open_dataset(DatasetConfig(path=home / "demos"))
    made = []

    def prepare(frames: np.ndarray) -> np.ndarray:
        made.append(len(frames))
        return frames[:, :8, :8]

    cache = FrameCache.of(tmp_path, dataset, ("agentview", "wrist"), 8, "cut")
    cache.build(dataset, [0, 2], prepare, 0)
    assert len(made) == 4
    cache.path(2).write_bytes(b"torn")
    cache.build(dataset, [0, 1, 2], prepare, 0)
    assert len(made) == 8  # episodes 1 and 2, two cameras each
    found = cache.reader()(np.array([2, 0]), np.array([5, 11]))
    wanted = [dataset.frames(i, "wrist")[t, :8, :8] for i, t in ((2, 5), (0, 11))]
    assert np.array_equal(found[:, 1], wanted)
    assert FrameCache.of(tmp_path, dataset, ("agentview",), 8, "cut").folder != cache.folder


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from invact_vla.data.dataset import EpisodeInfo, EpisodeNumbers, RobotDataset
from invact_vla.data.frame_cache import FrameCache
class Many(RobotDataset):
    cameras, action_dim, state_dim, action_mask = ("agentview",), 7, 0, (True,) * 7
    key = "many"
    def __init__(self, count):
        self.episodes = tuple(EpisodeInfo(str(i), "t", "t", 40) for i in range(count))
    def numbers(self, index): return EpisodeNumbers(np.zeros((40, 7)), None)
    def frames(self, index, camera): return np.full((40, 128, 128, 3), index % 256, np.uint8)
data = Many(int(sys.argv[2]))
cache = FrameCache.of(Path(sys.argv[1]), data, data.cameras, 128, "as it is")
cache.build(data, range(len(data.episodes)), lambda f: f, 0)
read, rng = cache.reader(), np.random.default_rng(0)
for _ in range(60):
    rows = rng.integers(0, len(data.episodes), 32)
    frames = read(rows, rng.integers(0, 40, 32))
    assert (frames[:, 0, 0, 0, 0] == rows % 256).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_resident_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """20 and 400 episodes, 40 MB and 790 MB of frames."""
    script = tmp_path / "memory.py"
    script.write_text(MEMORY)
    used = []
    for count in (20, 400):
        folder = tmp_path / str(count)
        done = subprocess.run(
            [sys.executable, script, folder, str(count)], capture_output=True, text=True, check=True
        )
        used.append(int(done.stdout))
        shutil.rmtree(folder)
    assert used[1] - used[0] < 100, used  # MB


def test_too_few_demonstrations_are_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="4 demonstrations, 9 of them held out"):
        posttrain.main(config_of(home, tmp_path / "run", held_out=9))


def test_only_what_the_expert_did_is_learned_from(home: Path, tmp_path: Path) -> None:
    """Where a policy took turns; a demonstration without a whole chunk of the expert's is left out."""
    shutil.copytree(home / "demos", tmp_path / "demos")
    (path,) = (tmp_path / "demos").glob("*.hdf5")
    with h5py.File(path, "a") as file:
        for index, name in enumerate(sorted(file["data"])):
            group = file["data"][name]
            turns = np.zeros(len(group["actions"]), np.uint8)
            turns[2:5] = index != 1
            group["expert_actions"], group["interventions"] = group["actions"][()], turns
    dataset = open_dataset(DatasetConfig(path=path))
    config = config_of(home, tmp_path / "run", demos=path, chunk=3)
    examples = posttrain.policy_task(config, dataset, load_pretrained(config.model)).training
    assert isinstance(examples, posttrain.RobotExamples)
    assert examples.episodes.tolist() == [0, 2] and examples._step.tolist() == [2, 3] * 2
    np.testing.assert_array_equal(examples.other_episode(np.arange(4)), [2, 3, 0, 1])
    with pytest.raises(UserError, match="act for 4 steps in a row"):
        posttrain.policy_task(replace(config, chunk=5), dataset, load_pretrained(config.model))


def test_demonstrations_have_one_place_to_be_named() -> None:
    with pytest.raises(ValueError, match="as --demos elsewhere, not"):
        PosttrainConfig(data=DatasetConfig(path=Path("elsewhere")))
    with pytest.raises(ValueError, match="dataset needs a name"):
        PosttrainConfig(dataset="")
