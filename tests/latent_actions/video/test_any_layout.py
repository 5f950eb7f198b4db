"""Layouts as they arrive: copies of SSV2 in other containers, flat folders, links, single views."""

import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.data.video.frames import decode_frames, true_actions
from latent_actions.labelers.actions import ActionsConfig, pair_actions
from latent_actions.labelers.pairs import PairConfig
from latent_actions.video.index import build_index
from latent_actions.video.source import held_out
from latent_actions.video.sources import (
    DemonstrationsSource,
    EgoExo4dSource,
    FolderSource,
    NtuSource,
    Ssv2Source,
)
from tests.latent_actions.sources import (
    SSV2_VIDEOS,
    ego_only,
    flat,
    labeled,
    lerobot,
    libero,
    ntu,
    ssv2,
    write_clip,
    write_pictures,
)
from tests.recipes.fixtures import write_demos


@pytest.mark.parametrize("kind", ["webm", "mp4", "MP4", "pictures"])
def test_ssv2_in_any_container(tmp_path, kind):
    clips = ssv2(tmp_path / "a", kind).clips("train")
    assert [clip.clip_id for clip in clips] == ["ssv2/0", "ssv2/1", "ssv2/2"]
    suffix = "" if kind == "pictures" else f".{kind}"
    assert [clip.video.name for clip in clips] == [f"{n}{suffix}" for n in range(3)]
    assert all(
        clip.end_s == pytest.approx(20 / (12 if kind == "pictures" else 10)) for clip in clips
    )


def test_ssv2_prefers_the_released_files_and_knows_the_rate_of_pictures(tmp_path):
    ssv2(tmp_path / "a")
    write_clip(tmp_path / "a" / SSV2_VIDEOS / "0.mp4", 5)
    write_pictures(tmp_path / "a" / SSV2_VIDEOS / "1", 5)
    clips = Ssv2Source(root=tmp_path / "a").clips("train")
    assert [clip.video.suffix for clip in clips] == [".webm"] * 3
    source = ssv2(tmp_path / "b", "pictures")
    assert Ssv2Source(root=source.root, pictures_fps=30.0).clips("train")[0].end_s == pytest.approx(
        20 / 30
    )


def test_the_test_split_of_ssv2(tmp_path):
    source = ssv2(tmp_path / "a")
    clips = source.clips("test")
    assert len(clips) == 3 and {(clip.text, clip.verb) for clip in clips} == {("", "")}
    assert len(PairConfig(source=source, horizon_s=0.5).records("test")) == 3 * 4
    with pytest.raises(UserError, match=r"3 clips without a verb"):
        build_index(source, ("test",))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("labels", [], "expected an object of classes"),
        *(
            ("labels", {"Pushing something away": number}, "expected an object of classes")
            for number in ("a", None, 1.7, True, -1, {"id": 0}, float("inf"))
        ),
        (
            "train",
            [{"id": "0", "template": None, "label": "a"}],
            "expected a list of clips with id",
        ),
        (
            "train",
            [{"id": "0", "template": "a", "label": None}],
            "expected a list of clips with id",
        ),
        (
            "train",
            [{"id": ["0"], "template": "a", "label": "b"}],
            "expected a list of clips with id",
        ),
        ("test", ["0"], "expected a list of clips with id, as"),
    ],
)
def test_odd_label_files_of_ssv2(tmp_path, name, content, said):
    source = ssv2(tmp_path / "a")
    (source.root / f"labels/{name}.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said):
        source.clips("test" if name == "test" else "train")


def test_an_id_listed_twice_or_leading_elsewhere(tmp_path):
    source = ssv2(tmp_path / "a")
    path = source.root / "labels/train.json"
    rows = json.loads(path.read_text())
    write_clip(source.root / "secret.webm", 0)
    path.write_text(json.dumps([*rows, rows[0], {**rows[1], "id": "../secret"}]))
    clips, dropped = source.index("train")
    assert [clip.clip_id for clip in clips] == ["ssv2/0", "ssv2/1", "ssv2/2"]
    assert dropped.counts == {"listed twice": 1, "videos missing": 1}
    with pytest.raises(UserError, match=r"1 of 4 videos .*no ../secret.webm"):
        source.clips("train")


def test_a_clip_listed_for_training_is_not_held_out(tmp_path):
    source = ssv2(tmp_path / "a")
    rows = json.loads((source.root / "labels/train.json").read_text())
    path = source.root / "labels/validation.json"
    held_out = source.clips("val")
    path.write_text(json.dumps([*json.loads(path.read_text()), *rows]))
    assert source.clips("val") == held_out
    assert source.index("val")[1].counts == {"listed for training too": len(rows)}


def test_classes_named_with_brackets(tmp_path):
    source = ssv2(tmp_path / "a")
    clips, path = source.clips("train"), source.root / "labels/labels.json"
    path.write_text(path.read_text().replace("something", "[something]"))
    assert "[something]" in path.read_text() and source.clips("train") == clips


def test_label_files_that_begin_with_a_mark(tmp_path):
    source = ssv2(tmp_path / "a")
    clips = source.clips("train")
    for path in (source.root / "labels").iterdir():
        path.write_text(path.read_text(), encoding="utf-8-sig")
    assert source.clips("train") == clips


def test_a_few_broken_videos_of_any_kind_are_left_out(tmp_path):
    root = tmp_path / "a"
    for number in (1, 2, 3):
        write_clip(root / f"{number}.mp4", number)
    (root / "pointer.mp4").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (root / "zero.webm").write_bytes(b"")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    Path(os.fsdecode(os.fsencode(root) + b"/caf\xe9.mp4")).write_bytes(b"x")
    (write_pictures(root / "gap", 0) / "img_00004.jpg").unlink()
    source = FolderSource(root=root, held_out=0.0, max_skipped=0.7, workers=1)
    for _ in range(2):  # the second time with the lengths of the good ones known
        clips, dropped = source.index("train")
        assert [clip.clip_id for clip in clips] == ["1", "2", "3"]
        assert dropped.damaged == 5
    with pytest.raises(UserError, match="5 of 8 videos"):
        replace(source, max_skipped=0.5).clips("train")


@pytest.mark.parametrize("value", [0.0, -5.0, float("nan"), float("inf"), 1e6])
def test_impossible_rates_are_refused(value):
    for make in (
        lambda: DemonstrationsSource(fps=value),
        lambda: FolderSource(pictures_fps=value),
        lambda: Ssv2Source(pictures_fps=value),
    ):
        with pytest.raises(ValueError, match=r"fps must be in \(0, 10000\), got"):
            make()


def test_impossible_options_of_demonstrations_are_refused():
    with pytest.raises(ValueError, match=r"rotation must be one of .*, got '45'"):
        DemonstrationsSource(rotation="45")
    with pytest.raises(ValueError, match="max_demos must be at least 1, got 0"):
        DemonstrationsSource(max_demos=0)
    for value in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="clip_s must be a positive number of seconds, got"):
            DemonstrationsSource(clip_s=value)


def test_both_cameras_of_a_robot_are_one_moment_in_one_split(tmp_path):
    write_demos(tmp_path / "a", "KITCHEN_SCENE3_open_the_drawer", count=6, steps=30)
    source = DemonstrationsSource(root=tmp_path / "a", camera="all", held_out=0.3)
    train, val = source.clips("train"), source.clips("val")
    assert len(train) == 8 and len(val) == 4
    for clips in (train, val):
        seen = [(clip.moment_id, clip.take, clip.camera, clip.view) for clip in clips]
        moments = sorted({moment for moment, *_ in seen})
        assert sorted(seen) == [
            (moment, moment, camera, view)
            for moment in moments
            for camera, view in (("agentview", "exo"), ("wrist", "ego"))
        ]
        assert {clip.scene for clip in clips} == {"KITCHEN_SCENE3"}
    pairs = PairConfig(source=source, horizon_s=0.5, pairs_per_clip=3, frames=2, size=16).records(
        "val"
    )
    spans = {camera: [(p.frame, p.frame_end) for p in pairs if p.video.name.startswith(camera)]
             for camera in ("agentview", "wrist")}  # fmt: skip
    assert len(spans["wrist"]) == 6 and spans["wrist"] == spans["agentview"]
    for camera in ("agentview", "wrist"):
        alone = replace(source, camera=camera).clips("val")
        assert alone == [clip for clip in val if clip.camera == camera]
    with pytest.raises(
        UserError, match="no camera 'front', only agentview, wrist: say another, all,"
    ):
        replace(source, camera="front").clips("train")
    with pytest.raises(ValueError, match="leave out key"):
        replace(source, key="observation.images.front")


def test_demonstrations_are_cut_into_clips(tmp_path):
    write_demos(tmp_path / "a", "KITCHEN_SCENE3_open_the_drawer", count=6, steps=30)
    source = DemonstrationsSource(root=tmp_path / "a", camera="all", clip_s=0.4, held_out=0.3)
    whole = replace(source, clip_s=None)
    for split in ("train", "val"):
        clips, takes = source.clips(split), {clip.take for clip in whole.clips(split)}
        assert {clip.take for clip in clips} == takes, "one split, however it is cut"
        assert len({clip.clip_id for clip in clips}) == len(clips) == 6 * len(takes)
        for take in takes:
            moments = {c.moment_id: (c.start_s, c.end_s) for c in clips if c.take == take}
            spans = [(0.0, 0.4), (0.4, 0.8), (0.8, 1.2)]  # of 1.5 s, both cameras
            assert np.allclose(sorted(moments.values()), spans)
    assert len(replace(source, clip_s=0.5).clips("train")) == 2 * 4 * 3, "the last one ends with it"
    with pytest.raises(UserError, match=r"clip_s 0.09 is shorter than two frames .* at least 0.1"):
        replace(source, clip_s=0.09).clips("train")
    longer = replace(source, clip_s=9.0).clips("train")
    assert [c.end_s for c in longer] == [c.end_s for c in whole.clips("train")]


def test_a_flat_folder(tmp_path):
    source = flat(tmp_path / "a")
    train, val = source.clips("train"), source.clips("val")
    clips = {clip.clip_id: clip for clip in [*train, *val]}
    assert sorted(clips) == [
        "dumped", "film 2", "film 3", "film 4", "garage/1", "kitchen/1",
    ]  # fmt: skip
    assert len(val) == 1 and source.clips("train") == train
    assert {(clip.verb, clip.text) for clip in clips.values()} == {("", "doing something")}
    assert clips["garage/1"].scene == "garage/1", "a clip without a place is its own"
    with pytest.raises(UserError, match="no pairs"):
        PairConfig(source=source).records("test")


def test_splits_by_their_longer_names(tmp_path):
    """As Kinetics and others name them: not a flat folder whose validation is trained on."""
    for number, split in enumerate(("Training", "training", "validation")):
        write_clip(tmp_path / "a" / split / "kitchen" / "push_it" / f"{number}.mp4", number)
    with pytest.raises(UserError, match=r"Training and .*training are both the split 'train'"):
        FolderSource(root=tmp_path / "a").clips("train")
    shutil.rmtree(tmp_path / "a" / "Training")
    source = FolderSource(root=tmp_path / "a")
    for split, name in (("train", "1"), ("val", "2")):
        (clip,) = source.clips(split)
        assert (clip.clip_id, clip.scene, clip.verb) == (
            f"kitchen/push_it/{name}",
            "kitchen",
            "push it",
        )
    with pytest.raises(UserError, match="test"):
        source.clips("test")
    (tmp_path / "a" / "validation").rename(tmp_path / "a" / "matches")
    clips = [*source.clips("train"), *source.clips("val")]
    assert {clip.verb for clip in clips} == {""}, "one folder named training may be anything"
    (tmp_path / "a" / "training").rename(tmp_path / "a" / "train")
    assert [clip.clip_id for clip in source.clips("train")] == ["kitchen/push_it/1"]


def test_the_views_of_a_moment_are_held_out_together(tmp_path):
    for number in range(6):
        for camera in ("ego", "side"):
            write_clip(tmp_path / f"{number}.{camera}.mp4", number)
    source = FolderSource(root=tmp_path, held_out=0.5)
    for split in ("train", "val"):
        views = [(clip.moment_id, clip.view) for clip in source.clips(split)]
        assert len(views) == 6 and len({moment for moment, _ in views}) == 3


def test_a_part_of_a_folder_without_splits_is_held_out():
    names = [f"{n}.mp4" for n in range(50)]
    assert len(held_out(names, 0.1)) == 5 and held_out(names[::-1], 0.1) == held_out(names, 0.1)
    assert len(held_out(names[:2], 0.1)) == 1
    assert not held_out(names[:1], 0.1) and not held_out(names, 0.0)


def test_a_labeled_folder_and_videos_that_lie_elsewhere_in_it(tmp_path):
    source = labeled(tmp_path / "a")
    write_clip(source.root / "train/extra.mp4", 3)
    clips = {clip.clip_id: clip for clip in source.clips("train")}
    assert {(c.scene, c.verb, c.text) for c in clips.values() if c.verb} == {
        ("kitchen", "push it", "push it")
    }
    assert (clips["extra"].verb, clips["extra"].text) == ("", "")
    assert build_index(source, ("train",)).report["splits"]["train"]["dropped"] == {
        "clips without a verb": {"count": 1, "damage": False, "examples": ["extra"]}
    }


def test_two_files_that_differ_in_the_suffix_are_two_clips(tmp_path):
    for number, name in enumerate(("IMG_1.mp4", "IMG_1.MOV", "IMG_2.ego.mp4", "IMG_2.side.mp4")):
        write_clip(tmp_path / name, number)
    clips = FolderSource(root=tmp_path, held_out=0.0).clips("train")
    assert [clip.clip_id for clip in clips] == ["IMG_1.MOV", "IMG_1.mp4", "IMG_2.ego", "IMG_2.side"]
    assert [clip.moment_id for clip in clips] == ["IMG_1.MOV", "IMG_1.mp4", "IMG_2", "IMG_2"]
    assert [clip.view for clip in clips] == ["exo", "exo", "ego", "exo"]


def test_ntu_in_a_linked_folder_with_upper_case_suffixes(tmp_path):
    source = ntu(tmp_path / "a")
    clips = source.clips("train")
    assert [clip.clip_id for clip in clips] == [
        "ntu/S001C001P001R001A007", "ntu/S001C002P001R001A007",
    ]  # fmt: skip
    assert len({clip.moment_id for clip in clips}) == 1
    with pytest.raises(UserError, match="ntu has no split 'test', only train, val"):
        NtuSource(root=source.root).clips("test")


def test_a_sample_of_ntu_that_is_there_twice(tmp_path):
    """Copies of one recording are no views of it."""
    source = ntu(tmp_path / "a")
    clips = source.clips("train")
    write_clip(source.root / "S001C002P001R001A007.mp4", 0)
    write_clip(source.root / "copy/S001C001P001R001A007_rgb.avi", 0)
    found, dropped = source.index("train")
    assert [clip.clip_id for clip in found] == [clip.clip_id for clip in clips]
    assert dropped.counts == {"listed twice": 2}
    listed = tmp_path / "missing.txt"
    listed.write_text("s001c001p001r001a007\n")
    ignored = NtuSource(root=source.root, missing_skeletons=listed).clips("train")
    assert [clip.clip_id for clip in ignored] == [clips[1].clip_id]


def test_one_view_is_enough_for_labels(tree, tmp_path):
    source = ego_only(tree, tmp_path / "a")
    clips, dropped = source.index("train")
    assert not clips and dropped.counts == {"takes without an exo camera": 2}
    pairs = PairConfig(source=source, horizon_s=0.5).records("train")
    assert pairs and {pair.video.name[:4] for pair in pairs} == {"aria"}
    both = PairConfig(source=EgoExo4dSource(root=tree / "egoexo4d"), horizon_s=0.5).records("train")
    own = [(p.video_id, p.frame) for p in both if p.video.name.startswith("aria")]
    assert own == [(p.video_id, p.frame) for p in pairs], "the same pairs, whatever other views see"


@pytest.mark.parametrize("make", [libero, lerobot])
def test_demonstrations(make, tmp_path):
    source = make(tmp_path / "a")
    clips = [*source.clips("train"), *source.clips("val")]
    assert len({clip.clip_id for clip in clips}) == 6 and len(source.clips("val")) == 2
    assert {clip.text for clip in clips} <= {"open the drawer", "close it"}
    pairs = PairConfig(source=source, horizon_s=0.5).records("val")
    actions = pair_actions(pairs, ActionsConfig(folder=tmp_path / "none"))
    own = true_actions(pairs[-1].video)
    assert own is not None and actions.shape == (len(pairs), 7)
    np.testing.assert_allclose(actions[-1], own[pairs[-1].frame : pairs[-1].frame_end].mean(axis=0))
    frames = [decode_frames(clip.video, [0]) for clip in clips]
    assert len({frame.tobytes() for frame in frames}) == 6, "equal names keep their own pictures"
    with pytest.raises(UserError, match=r"has no camera 'front', only agentview"):
        type(source)(root=source.root, camera="front").clips("train")


def test_a_single_file_of_demonstrations(tmp_path):
    root = libero(tmp_path / "a").root / "a/open_the_drawer_demo.hdf5"
    clips = type(libero(tmp_path / "b"))(root=root, max_demos=2, fps=10.0, held_out=0.0).clips(
        "train"
    )
    assert [clip.clip_id for clip in clips] == ["demo_0/agentview", "demo_1/agentview"]
    assert clips[0].end_s == 3.0
    assert np.ptp(decode_frames(clips[0].video, [0])) > 0
    assert Path(clips[0].video).parents[1] == root
