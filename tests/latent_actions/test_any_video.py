"""Videos of every source are labeled and the labels pretrained on, with the pixels of their videos."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from invact_vla.core.files import read_json
from invact_vla.data.label_store import find_videos, read_labels
from invact_vla.data.video.frames import decode_frames
from invact_vla.recipes import pretrain
from invact_vla.recipes.pretrain import PretrainConfig
from invact_vla.training.loop import LoopConfig
from latent_actions.labelers import RandomConfig, ShuffledConfig, label
from latent_actions.labelers.label import LabelConfig, store_path
from latent_actions.labelers.pairs import PairConfig
from latent_actions.video.source import SourceConfig
from tests.latent_actions.sources import OTHERS, all_sources, flat, ssv2
from tests.openvla.small import tiny_folder

NAMES = (
    "ssv2 webm", "ssv2 mp4", "ssv2 pictures", "flat", "folder", "ntu", "egoexo4d", "ego only", "libero",
    "lerobot", "keysteps", "phyworld", *OTHERS,
)  # fmt: skip


@pytest.fixture(scope="module")
def sources(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, SourceConfig]:
    return all_sources(tmp_path_factory.mktemp("sources"), tree)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model") / "start")


def pairs_of(source: SourceConfig, **changes: Any) -> PairConfig:
    values = {"horizon_s": 0.5, "pairs_per_clip": 2, "frames": 2, "size": 16, **changes}
    return PairConfig(source=source, **values)


def labels_of(source: SourceConfig, out: Path, **changes: Any) -> Path:
    return label.main(
        LabelConfig(out=out, labeler=RandomConfig(), pairs=pairs_of(source), **changes)
    )


def one_step(labels: Path, videos: Path, model: Path, out: Path, **changes: Any) -> Path:
    loop = LoopConfig(steps=1, batch_size=2, log_every=1, checkpoint_every=1)
    return pretrain.main(
        PretrainConfig(
            out=out,
            model=model,
            labels=store_path(labels, "train"),
            videos=videos,
            loop=loop,
            **changes,
        )
    )


def test_there_is_a_name_for_every_source(sources):
    assert set(NAMES) == set(sources)
    members = SourceConfig.get_known_choices().items()
    known = {name for name, member in members if member.__module__.startswith("latent_actions.")}
    assert {source.name for source in sources.values()} == known


@pytest.mark.parametrize("name", NAMES)
def test_labeled_and_pretrained_on(name, sources, start, tmp_path):
    source = sources[name]
    labels = labels_of(source, tmp_path / "random")
    shuffled = label.main(
        LabelConfig(
            out=tmp_path / "shuffled", labeler=ShuffledConfig(labels=labels), pairs=pairs_of(source)
        )
    )
    held_out = store_path(shuffled, "val")
    run = one_step(shuffled, source.root, start, tmp_path / "run", held_out=held_out)
    summary = read_json(run / "summary.json")
    store = read_labels(store_path(shuffled, "train"), labeler="shuffled")
    assert summary["pairs"] == len(store) > 0 and summary["held_out_pairs"] > 0
    assert len(set(store.video_id)) > 1
    # the frame that was decoded for a row is that of the row's own video
    frames = np.load(run / "frames.npy")
    found = find_videos(store, source.root)
    for row in {0, len(store) // 2, len(store) - 1}:
        own = decode_frames(found[store.path[row]], [int(store.frame[row])])[0]
        assert abs(frames[row].astype(int).mean() - own.mean()) < 12


def test_the_test_split_has_no_labels(tmp_path, start):
    source = ssv2(tmp_path / "ssv2")
    run = labels_of(source, tmp_path / "labels", splits=("train", "test"))
    store = read_labels(store_path(run, "test"))
    assert len(store) == 6 and set(store.text) == {""}
    labels = (tmp_path / "labels/labels_test.parquet").rename(
        tmp_path / "labels/labels_train.parquet"
    )
    assert read_json(
        one_step(labels.parent, source.root, start, tmp_path / "run") / "summary.json"
    )["pairs"] == 6  # fmt: skip


def test_two_videos_of_one_name_keep_their_pixels(tmp_path, start):
    """Labeled from kitchen/1.mp4 and garage/1.mp4, pretrained on kitchen/1.mp4 and garage/1.mp4."""
    source = replace(flat(tmp_path / "videos", suffixes=()), held_out=0.0)
    labels = labels_of(source, tmp_path / "labels", splits=("train",))
    store = read_labels(store_path(labels, "train"))
    found = find_videos(store, source.root)
    means = {
        path: decode_frames(video, [0]).mean(axis=(0, 1, 2))
        for path, video in found.items() if path.endswith("1.mp4")
    }  # fmt: skip
    assert len(means) == 2 and np.abs(np.subtract(*means.values())).max() > 20
    run = one_step(labels, source.root, start, tmp_path / "run")
    frames = np.load(run / "frames.npy")
    for row, path in enumerate(store.path):
        if path in means:
            near = {p: np.abs(frames[row].mean(axis=(0, 1)) - m).max() for p, m in means.items()}
            assert min(near, key=lambda p: near[p]) == path
