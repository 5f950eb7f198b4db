"""`invact latent train` and `invact latent label` on a small SSV2 tree of real video files."""

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import draccus
import numpy as np
import pytest
import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_file, read_json
from invact_vla.data.label_store import read_labels
from invact_vla.data.video.video_io import write_video
from invact_vla.training.loop import LoopConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.labelers import (
    InvActConfig,
    LabelerConfig,
    LapaConfig,
    RandomConfig,
    ShuffledConfig,
    label,
)
from latent_actions.labelers.guard.collapse import CollapseConfig
from latent_actions.labelers.label import LabelConfig, store_path
from latent_actions.labelers.lapo import LapoConfig, LapoModelConfig
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.train import LaqTrainConfig
from latent_actions.labelers.laq.train import main as train_laq
from latent_actions.labelers.pairs import PairConfig, dataset_hash, evenly_spaced_indices, shards
from latent_actions.labelers.trained import FitConfig
from latent_actions.video.sources import FolderSource, Ssv2Source
from tests.paths import REPOSITORY

CLIPS = {"train": 14, "validation": 6}
FRAMES, FPS, HORIZON_S = 20, 10.0, 1.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SSV2 folder: a square that moves in one of four directions, 20 frames of 32 px."""
    folder = tmp_path_factory.mktemp("ssv2")
    directions = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
    templates = [f"Pushing [something] {name}" for name in directions]
    number = 0
    for split, count in CLIPS.items():
        rows = []
        for _ in range(count):
            template = templates[number % 4]
            step = list(directions.values())[number % 4]
            _write_clip(folder / "20bn-something-something-v2" / f"{number}.webm", step, number)
            rows.append({
                "id": str(number), "template": template, "placeholders": ["a box"],
                "label": template.replace("[something]", "a box"),
            })  # fmt: skip
            number += 1
        _write(folder / "labels" / f"{split}.json", rows)
    classes = {t.replace("[", "").replace("]", ""): str(i) for i, t in enumerate(templates)}
    _write(folder / "labels" / "labels.json", classes)
    return folder


def _write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _write_clip(path: Path, step: tuple[int, int], seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    frames = np.full((FRAMES, 32, 32, 3), rng.integers(40, 120, 3), np.uint8)
    start = rng.integers(10, 14, 2)
    for t, frame in enumerate(frames):
        row, column = np.clip(start + np.multiply(step, t), 0, 24)
        frame[row : row + 8, column : column + 8] = 230
    write_video(path, frames, FPS, codec="vp9")


def pairs(root: Path, **changes: object) -> PairConfig:
    values = {
        "horizon_s": HORIZON_S,
        "pairs_per_clip": 3,
        "size": 16,
        "frames": 4,
        "shard": 12,
        **changes,
    }
    return PairConfig(source=Ssv2Source(root=root), **values)  # type: ignore[arg-type]


def laq_config(root: Path, out: Path) -> LaqTrainConfig:
    sizes = {"dim": 16, "quant_dim": 4, "image_size": 16, "patch_size": 2, "spatial_depth": 1}
    model = LaqConfig(**sizes, temporal_depth=1, dim_head=8, heads=2, residual=True)
    loop = LoopConfig(steps=6, batch_size=8, weight_decay=0.0, log_every=2, checkpoint_every=4)
    return LaqTrainConfig(
        out=out, pairs=pairs(root, frames=2), model=model, loop=loop, guard=CollapseConfig(window=3)
    )


@pytest.fixture(scope="module")
def parts(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, LabelerConfig]:
    folder = tmp_path_factory.mktemp("parts")
    train_laq(laq_config(root, folder / "laq"))
    torch.manual_seed(0)
    sizes = {"frames": 4, "size": 16, "tubelet": 2, "patch": 8, "width": 16, "depth": 3, "heads": 2}
    InvActEncoder(EncoderConfig(**sizes, embedding=16)).save_pretrained(folder / "encoder")
    return {
        "lapa": LapaConfig(laq=folder / "laq"),
        "invact": InvActConfig(encoder=folder / "encoder"),
    }


def test_training_writes_its_products(parts: dict[str, LabelerConfig]) -> None:
    labeler = parts["lapa"]
    assert isinstance(labeler, LapaConfig)
    folder = labeler.laq
    assert {p.name for p in (folder / "model").iterdir()} == {"config.json", "model.safetensors"}
    summary = read_json(folder / "summary.json")
    assert summary["pairs"] == 3 * CLIPS["train"]
    assert summary["health"]["pairs"] == 3 * CLIPS["validation"]
    assert {"r2_true", "r2_shuffled", "r2_zero", "problems"} <= set(summary)
    assert (folder / "reconstructions.png").stat().st_size > 100
    assert not (folder / "frames").exists()


@pytest.mark.parametrize("name", ["lapa", "invact"])
def test_labels_of_both_splits(
    name: str, parts: dict[str, LabelerConfig], root: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = LabelConfig(out=tmp_path / "labels", labeler=parts[name], pairs=pairs(root))
    folder = label.main(config)
    for split, count in (("train", 42), ("val", 18)):
        store = read_labels(store_path(folder, split), labeler=name, dataset=f"ssv2/{split}")
        assert len(store) == count and store.labels.codes.shape == (count, 4)
        assert set(store.frame_end - store.frame) == {10} and store.frame_end.max() < FRAMES
        assert store.text[0].startswith("Pushing a box")
        assert f"{name} {split}: {count} pairs" in capsys.readouterr().out or split == "val"
    assert read_json(folder / "summary.json")["val"]["pairs"] == 18
    assert (folder / "quantizer").is_dir() == (name == "invact")
    assert not (folder / "shards").exists() and not (folder / "frames").exists()
    with pytest.raises(UserError, match="expected 'other'"):
        read_labels(store_path(folder, "train"), labeler="other")


KILLED = """
import os, signal, sys
import draccus
from latent_actions.labelers import label

real, calls = label._label_shard, []

def killed(*args):
    calls.append(1)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)

label._label_shard = killed
label.main(draccus.parse(label.LabelConfig, config_path=sys.argv[1], args=[]))
"""


def test_a_killed_run_gives_the_same_bytes(
    parts: dict[str, LabelerConfig], root: Path, tmp_path: Path
) -> None:
    def config(folder: str) -> LabelConfig:
        return LabelConfig(out=tmp_path / folder, labeler=parts["invact"], pairs=pairs(root))

    path = tmp_path / "killed.yaml"
    path.write_text(draccus.dump(config("killed")))
    child = [sys.executable, "-c", KILLED, str(path)]
    done = subprocess.run(child, capture_output=True, cwd=REPOSITORY, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    kept = sorted(p.name for p in (tmp_path / "killed" / "shards").glob("*.npz"))
    assert kept == ["train-00000.npz", "train-00001.npz"]
    resumed, whole = label.main(config("killed")), label.main(config("whole"))
    for split in ("train", "val"):
        assert hash_file(store_path(whole, split)) == hash_file(store_path(resumed, split))
    before = store_path(whole, "train").stat().st_mtime_ns
    label.main(config("whole"))
    assert store_path(whole, "train").stat().st_mtime_ns == before  # finished: skipped


def test_labels_do_not_depend_on_how_they_are_made(
    parts: dict[str, LabelerConfig], root: Path, tmp_path: Path
) -> None:
    """Two processes, other shards, shared frames, and another order of the clips: the same bytes."""
    shuffled = tmp_path / "shuffled"
    shutil.copytree(root, shuffled)
    for path in (shuffled / "labels" / "train.json", shuffled / "labels" / "validation.json"):
        path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
    made: dict[str, tuple[Path, dict]] = {
        "plain": (root, {}),
        "two workers": (root, {"workers": 2}),
        "other shards": (root, {"workers": 2, "shard": 7}),
        "one shard": (root, {"shard": 999}),
        "shared frames": (root, {"frames_folder": tmp_path / "frames"}),
        "reshuffled": (shuffled, {"workers": 2, "shard": 5}),
    }
    hashes: dict[str, list[str]] = {}
    for name, (place, options) in made.items():
        shard = options.pop("shard", 12)
        config = LabelConfig(
            out=tmp_path / name, labeler=parts["lapa"], pairs=pairs(place, shard=shard), **options
        )
        run = label.main(config)
        hashes[name] = [hash_file(store_path(run, split)) for split in ("train", "val")]
    assert len(set(map(tuple, hashes.values()))) == 1, hashes


def test_a_ray_cluster_gives_the_same_bytes(
    parts: dict[str, LabelerConfig], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    runs = [
        label.main(
            LabelConfig(
                out=tmp_path / name, labeler=parts["invact"], pairs=pairs(root, shard=7), **options
            )
        )
        for name, options in (("here", {}), ("ray", {"ray": "local", "workers": 2}))
    ]
    for split in ("train", "val"):
        assert len({hash_file(store_path(run, split)) for run in runs}) == 1


def test_without_ray_a_cluster_is_refused(
    parts: dict[str, LabelerConfig], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    config = LabelConfig(
        out=tmp_path / "r", labeler=parts["lapa"], pairs=pairs(root), ray="local", splits=("val",)
    )
    with pytest.raises(UserError, match="--ray needs Ray: pip install"):
        label.main(config)


def test_a_folder_of_frames_that_is_a_file(
    parts: dict[str, LabelerConfig], root: Path, tmp_path: Path
) -> None:
    (tmp_path / "frames").write_text("x")
    config = LabelConfig(out=tmp_path / "labels", labeler=parts["lapa"], pairs=pairs(root))
    for place in (tmp_path / "frames", tmp_path / "frames/deep"):
        with pytest.raises(UserError, match=f"{place} is no folder, or below a file"):
            label.main(replace(config, frames_folder=place))


def test_a_run_that_was_killed_after_its_last_shard(
    parts: dict[str, LabelerConfig], root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left to label; and whatever became of a shard meanwhile, the labels are the same."""
    config = LabelConfig(
        out=tmp_path / "labels", labeler=parts["lapa"], pairs=pairs(root), splits=("val",)
    )
    whole = label.main(replace(config, out=tmp_path / "whole"))
    expected = hash_file(store_path(whole, "val"))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    changes: list[dict[str, Any]] = [
        {}, {"codes": lambda c: c[:, :2]}, {"codes": lambda c: c[:1]}, {"codes": lambda c: c + 0.5},
        {"codes": lambda c: c + 100}, {"rows": lambda r: r + 1000}, {"codes": lambda c: c[0, 0]},
        dict.fromkeys(("rows", "keys", "codes", "vectors"), lambda values: values[:0]),
    ]  # fmt: skip
    for seed, change in enumerate(changes):
        config = replace(config, overwrite=True, seed=seed)
        with monkeypatch.context() as patch:
            patch.setattr(label, "write_labels", stop)
            with pytest.raises(KeyboardInterrupt):
                label.main(config)
        path = config.out / "shards/val-00000.npz"
        with np.load(path) as saved:
            np.savez(path, **{n: change.get(n, lambda v: v)(saved[n]) for n in saved.files})
        assert hash_file(store_path(label.main(config), "val")) == expected


def test_torn_shards_and_those_of_other_pairs_are_made_again(
    parts: dict[str, LabelerConfig], root: Path, tmp_path: Path
) -> None:
    config = LabelConfig(
        out=tmp_path / "labels", labeler=parts["lapa"], pairs=pairs(root), splits=("val",)
    )
    whole = label.main(config)
    expected = hash_file(store_path(whole, "val"))
    shards_of = whole / "shards"
    shards_of.mkdir()
    (shards_of / "val-00000.npz").write_bytes(b"")
    np.savez(
        shards_of / "val-00001.npz", identity="of something else", rows=np.arange(6),
        keys=np.array(["k"] * 6), codes=np.zeros((6, 4), np.int64),
    )  # fmt: skip
    (whole / "done.json").unlink()
    store_path(whole, "val").unlink()
    assert hash_file(store_path(label.main(config), "val")) == expected


def test_damaged_videos_count_against_the_whole_split(tmp_path: Path) -> None:
    """Not against their shard: one of twelve is too many for a shard of one or two, not for all."""
    films = [tmp_path / f"videos/{number}.mp4" for number in range(12)]
    for film in films:
        film.parent.mkdir(exist_ok=True)
        write_video(film, np.zeros((12, 16, 16, 3), np.uint8), FPS)
    source = FolderSource(root=tmp_path / "videos", held_out=0.0, max_skipped=0.1)
    for size in (1, 2):
        chosen = PairConfig(source=source, horizon_s=HORIZON_S, pairs_per_clip=1, shard=size)
        config = LabelConfig(
            out=tmp_path / f"labels{size}", labeler=RandomConfig(), pairs=chosen, splits=("train",)
        )
        _spoil(films[5])
        store = read_labels(store_path(label.main(config), "train"))
        assert sorted(store.path) == sorted(film.name for film in films if film != films[5])
    _spoil(films[6])
    with pytest.raises(UserError, match=r"2 of 12 train pairs are damaged .*5\.mp4; .*6\.mp4"):
        label.main(replace(config, out=tmp_path / "more"))


def _spoil(film: Path) -> None:
    """Make an MP4 file one whose frames can be counted and not decoded."""
    with av.open(str(film)) as container:
        last = max(packet.pos for packet in container.demux(video=0) if packet.size)
    content = bytearray(film.read_bytes())
    content[last : last + 4] = b"\xff" * 4  # the length of what follows
    film.write_bytes(content)


def test_shuffled_labels_of_a_run_and_shared_frames(
    parts: dict[str, LabelerConfig], root: Path, tmp_path: Path
) -> None:
    frames = tmp_path / "frames"
    base = label.main(
        LabelConfig(
            out=tmp_path / "base", labeler=parts["lapa"], pairs=pairs(root), frames_folder=frames
        )
    )
    assert len(list(frames.iterdir())) == 4 + 2
    shuffled = label.main(
        LabelConfig(
            out=tmp_path / "shuffled", labeler=ShuffledConfig(labels=base), pairs=pairs(root),
            frames_folder=frames,
        )
    )  # fmt: skip
    one, other = (read_labels(store_path(f, "train")) for f in (base, shuffled))
    assert other.identity.labeler == "shuffled"
    assert one.video_id == other.video_id and np.array_equal(one.frame, other.frame)
    assert sorted(map(tuple, one.labels.codes)) == sorted(map(tuple, other.labels.codes))
    assert one.identity.dataset_hash == other.identity.dataset_hash


def test_another_config_in_the_same_folder_is_refused(
    parts: dict[str, LabelerConfig], root: Path, tmp_path: Path
) -> None:
    config = LabelConfig(
        out=tmp_path / "l", labeler=parts["lapa"], pairs=pairs(root), splits=("val",)
    )
    label.main(config)
    other = LabelConfig(
        out=tmp_path / "l", labeler=parts["lapa"], pairs=pairs(root, seed=1), splits=("val",)
    )
    with pytest.raises(UserError, match="another config"):
        label.main(other)


def test_the_seed_of_the_command_is_that_of_the_training(root: Path, tmp_path: Path) -> None:
    """Three seeds of a labeler that trains are three networks, and one seed is one."""
    fit = FitConfig(loop=LoopConfig(steps=3, batch_size=4))
    labeler = LapoConfig(model=LapoModelConfig(size=16, width=4), training=fit)
    made = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / f"labels_{number}"
        label.main(LabelConfig(out=out, seed=seed, labeler=labeler, pairs=pairs(root)))
        made.append(read_labels(out / "labels_val.parquet").identity.labeler_hash)
    assert made[0] == made[1] != made[2]


def test_no_pair_fits_and_missing_parts(root: Path, tmp_path: Path) -> None:
    config = LabelConfig(
        out=tmp_path / "a", labeler=LapaConfig(laq=tmp_path / "absent"), pairs=pairs(root)
    )
    with pytest.raises(UserError, match="missing input"):
        label.main(config)
    with pytest.raises(UserError, match=r"no pairs 9\.0 s apart"):
        pairs(root, horizon_s=9.0).records("train")


def test_pair_config_and_shards(root: Path) -> None:
    records = pairs(root).records("train")
    assert [len(s) for s in shards(records, 12)] == [12, 12, 12, 6]
    assert dataset_hash(records) == dataset_hash(pairs(root).records("train"))
    assert dataset_hash(records) != dataset_hash(pairs(root, seed=1).records("train"))
    spaced = [evenly_spaced_indices(*sizes) for sizes in ((10, 3), (2, 5), (5, 1))]
    assert spaced == [[0, 4, 9], [0, 1], [0]]
    with pytest.raises(ValueError, match="at least 2 frames"):
        pairs(root, frames=1)
    with pytest.raises(ValueError, match="horizon_s"):
        pairs(root, horizon_s=0.0)
    with pytest.raises(ValueError, match="reads 2 frames"):
        LaqTrainConfig(pairs=pairs(root))
