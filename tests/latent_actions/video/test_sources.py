"""Every registered source keeps the same contract; SSV2 and plain folders besides."""

import json
import shutil
from pathlib import Path

import pytest

from invact_vla.core.errors import UserError
from invact_vla.data.video.frames import probe
from latent_actions.labelers.pairs import PairConfig
from latent_actions.video.phyworld import PhyWorldConfig
from latent_actions.video.phyworld import main as generate
from latent_actions.video.probes import PROBES
from latent_actions.video.records import (
    ClipRecord,
    PairRecord,
    Split,
    decode_record,
    encode_record,
)
from latent_actions.video.sources import FolderSource, SourceConfig, Ssv2Source
from tests.recipes.fixtures import write_demos

NO_BRACKETS = str.maketrans("", "", "[]")
# tests register members of their own
MEMBERS = sorted(
    name
    for name, member in SourceConfig.get_known_choices().items()
    if member.__module__.startswith("latent_actions.")
)


@pytest.fixture(scope="session")
def roots(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Root folder of a small data set for every source; a source without a line gets the videos of
    `folder`."""
    folder = tmp_path_factory.mktemp("folder")
    videos = sorted((tree / "ssv2").rglob("*.webm"))
    for number, video in enumerate(videos[:4]):
        verb = ("pick_up", "push")[number % 2]
        camera = ("ego", "side")[number // 2]
        target = folder / "train" / "kitchen" / verb / f"first.{camera}.webm"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(video, target)
    ntu = tmp_path_factory.mktemp("ntu")
    for number, video in enumerate(videos[:4]):
        shutil.copy(video, ntu / f"S001C00{1 + number % 3}P001R00{1 + number // 3}A007_rgb.avi")
    phyworld = tmp_path_factory.mktemp("phyworld") / "run"
    generate(PhyWorldConfig(out=phyworld, train=2, val=1, size=32, workers=1))
    egoexo4d = tree / "egoexo4d"
    demos = write_demos(tmp_path_factory.mktemp("demos"), steps=30)
    return {
        **dict.fromkeys(MEMBERS, folder), "ssv2": tree / "ssv2",
        "egoexo4d": egoexo4d, "egoexo4d_keystep": egoexo4d,
        "ntu": ntu, "phyworld": phyworld, "demonstrations": demos,
    }  # fmt: skip


def pairs_of(
    source: SourceConfig,
    pairs_per_clip: int,
    seed: int,
    split: Split = "train",
    horizon_s: float = 0.5,
) -> list[PairRecord]:
    config = PairConfig(
        source=source, horizon_s=horizon_s, pairs_per_clip=pairs_per_clip, seed=seed
    )
    return config.draw(split)[0]


@pytest.mark.parametrize("name", MEMBERS)
class TestContract:
    def test_clips(self, name, roots):
        source = SourceConfig.get_choice_class(name)(root=roots[name])
        clips = source.clips("train")
        assert clips and clips == source.clips("train")
        assert len({clip.clip_id for clip in clips}) == len(clips)
        for clip in clips:
            assert isinstance(clip, ClipRecord)
            info = probe(clip.video)
            assert clip.split == "train" and clip.verb and clip.scene and clip.text
            assert decode_record(encode_record(clip)) == clip
            assert clip.end_s <= info.n_frames / info.fps + 1e-6

    def test_pairs(self, name, roots):
        source = SourceConfig.get_choice_class(name)(root=roots[name])
        pairs = pairs_of(source, 3, seed=1)
        assert pairs and pairs == pairs_of(source, 3, seed=1)
        assert pairs != pairs_of(source, 3, seed=2)
        for pair in pairs:
            assert isinstance(pair, PairRecord) and pair.text
            assert pair.frame_end - pair.frame == round(0.5 * pair.fps)
            assert pair.frame_end <= probe(pair.video).n_frames - 1
        starts = [(pair.video_id, pair.frame) for pair in pairs]
        assert len(set(starts)) == len(starts)
        assert pairs_of(source, 3, seed=1, horizon_s=999.0) == []

    def test_missing_root(self, name, tmp_path):
        source = SourceConfig.get_choice_class(name)(root=tmp_path / "nowhere")
        with pytest.raises(UserError, match=r"no folder .*nowhere"):
            pairs_of(source, 3, seed=1)


def test_folder_layout(roots):
    clips = FolderSource(root=roots["folder"]).clips("train")
    assert {(c.verb, c.scene, c.view, c.camera) for c in clips} == {
        ("pick up", "kitchen", "ego", "ego"), ("pick up", "kitchen", "exo", "side"),
        ("push", "kitchen", "ego", "ego"), ("push", "kitchen", "exo", "side"),
    }  # fmt: skip
    assert len({clip.moment_id for clip in clips}) == 2
    with pytest.raises(UserError, match="expected <split>/<scene>/<verb>"):
        FolderSource(root=roots["folder"]).clips("val")


def entries(root: Path, name: str = "train") -> list[dict[str, str]]:
    return json.loads((root / "labels" / f"{name}.json").read_text())


def test_ssv2_labels_and_templates(tree):
    clips = Ssv2Source(root=tree / "ssv2").clips("train")
    classes = json.loads((tree / "ssv2" / "labels" / "labels.json").read_text())
    assert len(clips) == 4 and all(clip.tags["class_index"] < len(classes) for clip in clips)
    for clip, entry in zip(clips, entries(tree / "ssv2"), strict=True):
        assert "[something]" in entry["template"] and "[" not in clip.text
        assert clip.text == clip.tags["label"] == entry["label"]
    hidden = Ssv2Source(root=tree / "ssv2", text="template").clips("train")
    assert all("something" in clip.text for clip in hidden)


def test_ssv2_old_file_names_and_damage(tree, tmp_path):
    root = tmp_path / "ssv2"
    shutil.copytree(tree / "ssv2", root)
    for path in list((root / "labels").glob("*.json")):
        path.rename(path.with_name(f"something-something-v2-{path.name}"))
    source = Ssv2Source(root=root)
    assert pairs_of(source, 2, seed=0, split="val")
    video = source.clips("train")[0].video
    video.write_bytes(video.read_bytes()[:100])
    with pytest.raises(UserError, match=rf"1 of 4 videos .* {video}"):
        pairs_of(source, 2, seed=0)
    lenient = pairs_of(Ssv2Source(root=root, max_skipped=0.25), 2, seed=0)
    assert len({pair.video_id for pair in lenient}) == 3


def test_a_camera_stands_after_the_last_dot(roots, tmp_path):
    video = next(roots["folder"].rglob("*.webm"), None) or next(roots["folder"].rglob("*.mp4"))
    folder = tmp_path / "train/kitchen/push"
    folder.mkdir(parents=True)
    for name in ("take_1.5s.ego", "take_1.5s.side", "plain"):
        shutil.copy(video, folder / f"{name}{video.suffix}")
    clips = FolderSource(root=tmp_path).clips("train")
    assert {(c.moment_id, c.view, c.camera) for c in clips} == {
        ("kitchen/push/take_1.5s", "ego", "ego"), ("kitchen/push/take_1.5s", "exo", "side"),
        ("kitchen/push/plain", "exo", "cam01"),
    }  # fmt: skip


@pytest.mark.parametrize("content", ['[{"id": "1"}]', '{"id": "1"}', '["a"]'])
def test_ssv2_labels_of_another_type_are_refused(tree, tmp_path, content):
    shutil.copytree(tree / "ssv2", tmp_path / "ssv2")
    (tmp_path / "ssv2/labels/train.json").write_text(content)
    with pytest.raises(UserError, match="expected a list of clips with id, label and template"):
        Ssv2Source(root=tmp_path / "ssv2").clips("train")


def test_ssv2_unknown_template_is_named(tree, tmp_path):
    shutil.copytree(tree / "ssv2", tmp_path / "ssv2")
    path = tmp_path / "ssv2" / "labels" / "train.json"
    rows = json.loads(path.read_text())
    rows[0]["template"] = "Juggling [something]"
    path.write_text(json.dumps(rows))
    with pytest.raises(UserError, match="Juggling"):
        Ssv2Source(root=tmp_path / "ssv2").clips("train")


def test_ssv2_clips_are_of_their_class(tree):
    source = Ssv2Source(root=tree / "ssv2")
    clips, rows = source.clips("train"), entries(tree / "ssv2")
    classes = json.loads((tree / "ssv2" / "labels" / "labels.json").read_text())
    names = [row["template"].translate(NO_BRACKETS) for row in rows]
    assert [clip.verb for clip in clips] == names
    assert [clip.tags["class_index"] for clip in clips] == [int(classes[name]) for name in names]
    assert len({clip.scene for clip in clips}) == len(clips)


def test_pairs_are_the_same_from_the_cache_and_with_more_workers(tree, tmp_path):
    """The second listing probes nothing; parallel probing changes nothing."""
    root = tmp_path / "ssv2"
    shutil.copytree(tree / "ssv2", root, ignore=shutil.ignore_patterns(PROBES))
    first = pairs_of(Ssv2Source(root=root, workers=1), 2, seed=0)
    known = json.loads((root / PROBES).read_text())["videos"]
    assert sorted(known) == sorted(
        f"20bn-something-something-v2/{entry['id']}.webm" for entry in entries(root)
    )
    assert pairs_of(Ssv2Source(root=root), 2, seed=0) == first
    (root / PROBES).unlink()
    assert pairs_of(Ssv2Source(root=root, workers=2), 2, seed=0) == first


def test_folder_with_a_damaged_video_names_it(roots, tmp_path):
    root = tmp_path / "folder"
    shutil.copytree(roots["folder"], root, ignore=shutil.ignore_patterns(PROBES))
    video = sorted(root.rglob("*.webm"))[0]
    video.write_bytes(b"not a video")
    with pytest.raises(UserError, match=rf"1 of 4 videos .* {video}"):
        FolderSource(root=root).clips("train")
    clips, dropped = FolderSource(root=root).index("train")
    assert len(clips) == 3 and dropped.counts == {"corrupt videos": 1}
    assert len(FolderSource(root=root, max_skipped=0.25).clips("train")) == 3
