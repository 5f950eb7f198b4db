"""`invact latent report` on real stores of small videos: with truth, without, and with broken parts."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from invact_vla.app.cli import prepare
from invact_vla.core.errors import UserError
from invact_vla.data.label_store import read_labels, write_labels
from invact_vla.data.video.video_io import write_video
from latent_actions.labelers import LabelerConfig, label
from latent_actions.labelers.actions import ActionsConfig
from latent_actions.labelers.controls import RandomConfig
from latent_actions.labelers.difference import FeatureDifferenceConfig
from latent_actions.labelers.features import RandomFeatureConfig
from latent_actions.labelers.label import LabelConfig
from latent_actions.labelers.pairs import PairConfig
from latent_actions.labelers.true_actions import TrueActionsConfig
from latent_actions.report.measure import Measured
from latent_actions.report.stores import Labeled, open_stores
from latent_actions.report.verdict import MARKS, verdict
from latent_actions.video.sources import FolderSource

FRAMES, FPS, SIDE = 20, 10.0, 32
STEPS = {"push left": (0, -1), "push right": (0, 1), "push up": (-1, 0), "push down": (1, 0)}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<films>/videos/<split>/<scene>/<verb>/<n>.mp4, and truth/videos/<n>.npz: a square that moves."""
    folder, number = tmp_path_factory.mktemp("films"), 0
    for split, copies in (("train", 2), ("val", 3)):
        for scene in ("kitchen", "garage"):
            for verb, step in STEPS.items():
                for _ in range(copies):
                    place = folder / "videos" / split / scene / verb.replace(" ", "_")
                    _write(
                        place / f"{number}.mp4", folder / f"truth/videos/{number}.npz", step, number
                    )
                    number += 1
    return folder


def _write(video: Path, truth: Path, step: tuple[int, int], seed: int) -> None:
    video.parent.mkdir(parents=True, exist_ok=True)
    truth.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    frames = np.full((FRAMES, SIDE, SIDE, 3), rng.integers(40, 120, 3), np.uint8)
    start = rng.integers(10, 14, 2)
    for t, frame in enumerate(frames):
        row, column = np.clip(start + np.multiply(step, t), 0, SIDE - 8)
        frame[row : row + 8, column : column + 8] = 230
    write_video(video, frames, FPS)
    velocity = np.tile([*map(float, step), 0, 0, 0, 0, 0], (FRAMES, 1))
    velocity[:, :2] += 0.01 * rng.normal(size=(FRAMES, 2))
    axes = np.tile([[0, 0, 1], [-1, 0, 0], [0, -1, 0]], (FRAMES, 1, 1))
    np.savez(truth, velocity=velocity, ego_axes=axes)


def labeled(films: Path, out: Path, labeler: LabelerConfig, root: Path | None = None) -> Path:
    source = FolderSource(root=root or films / "videos", workers=1)
    pairs = PairConfig(source=source, horizon_s=0.8, pairs_per_clip=3, frames=2, size=SIDE)
    return label.main(
        LabelConfig(out=out, labeler=labeler, pairs=pairs, vectors=out.name == "diff")
    )


@pytest.fixture(scope="module")
def stores(films: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out, truth = tmp_path_factory.mktemp("stores"), ActionsConfig(folder=films / "truth/videos")
    difference = FeatureDifferenceConfig(features=RandomFeatureConfig(side=2))
    labelers = {
        "diff": difference,
        "true": TrueActionsConfig(actions=truth),
        "random": RandomConfig(),
    }
    return {name: labeled(films, out / name, labeler) for name, labeler in labelers.items()}


def report(out: Path, *words: str) -> tuple[Path, dict]:
    folder = prepare("latent report", [*words, "--out", str(out)])()
    assert isinstance(folder, Path)
    return folder, json.loads((folder / "report.json").read_text())


def test_a_report_with_truth(stores: dict[str, Path], tmp_path: Path, capsys) -> None:
    words = [str(stores[name]) for name in ("diff", "true", "random")]
    folder, found = report(tmp_path / "r", *words, "--measure.codes_shown", "2")
    said = capsys.readouterr().out
    assert set(found["stores"]) == {"feature_difference", "true_actions", "random"}
    scores = {
        name: [one["actions"]["scores"]["world"]["codes"]["dims"][d]["value"] for d in (0, 1)]
        for name, one in found["stores"].items()
    }
    assert min(scores["true_actions"]) > 0.9 and max(scores["random"]) < 0.1
    own = found["stores"]["feature_difference"]
    assert set(own["actions"]["scores"]) == {"world", "wearer"} and own["actions"]["budget"]
    assert {"codes", "vectors", "first frame alone", "random codes"} <= set(
        own["actions"]["scores"]["world"]
    )
    assert own["meaning"]["stored"]["value"] == 1
    assert own["scene"]["normalized"]["n"] == len(
        read_labels(stores["diff"] / "labels_val.parquet")
    )
    assert "no moment was seen by two cameras" in own["view"]
    assert found["stores"]["random"]["marks"]["codes tell the action"] == "fail"
    assert found["verdicts"][0]["sentence"] in said and "feature_difference" in said
    page = (folder / "index.html").read_text()
    assert found["verdicts"][0]["by"] == "true actions" and "data:image/webp" in page
    assert "What cannot be said" in page and "nan" not in page.replace("nan,", "")
    before = (folder / "index.html").stat().st_mtime_ns
    assert report(tmp_path / "r", *words, "--measure.codes_shown", "2")[1] == found
    assert (folder / "index.html").stat().st_mtime_ns == before


def test_twelve_films_without_truth(films: Path, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    root.mkdir()
    for number, video in enumerate(sorted((films / "videos/val").rglob("*.mp4"))[:12]):
        shutil.copy(video, root / f"film {number}.mp4")
    own = labeled(
        films, tmp_path / "l", FeatureDifferenceConfig(features=RandomFeatureConfig(side=2)), root
    )
    _, found = report(tmp_path / "r", str(own / "labels_train.parquet"))
    (store,) = found["stores"].values()
    assert "true actions" in store["actions"] and isinstance(store["scene"], str)
    assert (
        store["usage"]["entropy"]["n"] == store["pairs"] and store["meaning"]["noop"]["value"] > 0
    )
    assert found["verdicts"][0]["sentence"].startswith("Cannot be said: neither true actions nor")


def test_broken_and_missing_videos_are_listed(
    films: Path, stores: dict[str, Path], tmp_path: Path
) -> None:
    root = tmp_path / "videos"
    shutil.copytree(films / "videos", root)
    videos = sorted((root / "val").rglob("*.mp4"))
    videos[3].write_bytes(b"nothing")
    videos[5].unlink()
    words = [str(stores["diff"]), "--videos", str(root), "--measure.codes_shown", "1"]
    _, found = report(tmp_path / "r", *words, "--measure.truth", str(films / "truth/videos"))
    (store,) = found["stores"].values()
    assert {videos[3].name, videos[5].name} <= {
        name for name in (v.name for v in videos) if any(name in line for line in store["broken"])
    }
    assert store["actions"]["scores"]["world"]["codes"]["mean"]["clusters"] == len(videos) - 2


def test_a_file_without_its_run_and_its_videos(stores: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "alone.parquet"
    shutil.copy(stores["diff"] / "labels_val.parquet", file)
    _, found = report(tmp_path / "r", str(file))
    (store,) = found["stores"].values()
    assert any("no run folder" in note for note in store["notes"])
    assert any("no videos at hand" in note for note in store["notes"])
    assert store["meaning"] == "its videos are not at hand" and store["clips"] == []
    assert store["scene"]["normalized"]["n"] > 0  # the text of a pair stands in for its verb


def test_empty_stores_and_single_labels(stores: dict[str, Path], tmp_path: Path) -> None:
    store = read_labels(stores["random"] / "labels_val.parquet")
    for name, rows in (("none", []), ("one", [0])):
        write_labels(tmp_path / f"{name}.parquet", store.select(np.array(rows, np.int64)))
    files = [str(tmp_path / f"{name}.parquet") for name in ("none", "one")]
    _, found = report(tmp_path / "r", *files)
    empty, single = found["stores"].values()
    assert empty["usage"] == "the store is empty" and single["usage"]["entropy"]["value"] == 0
    assert "controls" in found["verdicts"][0]["sentence"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.parquet"], "no label store nowhere.parquet"),
        (["{diff}", "{diff}"], "named twice"),
        (["{empty}"], "has no labels_val.parquet"),
        (["{diff}", "--measure.truth", "nowhere"], "no folder nowhere"),
    ],
)
def test_mistakes(words: list[str], said: str, stores: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    places = {"diff": stores["diff"], "empty": tmp_path / "empty"}
    with pytest.raises(UserError, match=said):
        report(tmp_path / "r", *(word.format(**places) for word in words))


def test_most_pairs_are_whole_videos(stores: dict[str, Path]) -> None:
    (one,) = open_stores([stores["diff"]], [], 10)
    (other,) = open_stores([stores["random"]], [], 10)
    assert len(one.store) == 9 and one.store.path == other.store.path


def test_the_verdict_needs_intervals(stores: dict[str, Path]) -> None:
    """Without numbers nothing is chosen, and every mark says so."""
    (one,) = open_stores([stores["diff"]], [], 100)
    bare = Measured(Labeled("x", one.store))
    assert {mark.judge(bare)[0] for mark in MARKS} == {"cannot be said"}
    assert verdict([bare]).chosen is None


def test_a_name_is_longer_where_another_has_it_too(stores: dict[str, Path], tmp_path: Path) -> None:
    twin = shutil.copytree(stores["random"], tmp_path / "twin")
    opened = open_stores([stores["diff"], stores["random"], twin], [], 10)
    random = stores["random"].name
    assert [one.name for one in opened] == [
        "feature_difference",
        f"random ({random})",
        "random (twin)",
    ]
