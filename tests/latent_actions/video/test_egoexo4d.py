"""The Ego-Exo4D reader: every trap of the real annotation files, on a hand-made take."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.data.video.video_io import write_video
from latent_actions.video.sources import EgoExo4dSource
from latent_actions.video.sources.egoexo4d_takes import as_bool, scene_of

TAKE = {
    "take_uid": "u1", "take_name": "iiith_cooking_57_2", "best_exo": None, "duration_sec": 20.0,
    "physical_setting_uid": "ps9", "root_dir": "takes/iiith_cooking_57_2",
}  # fmt: skip


def row(time_s: float, text: str, **fields):
    base = {"text": text, "timestamp": time_s, "subject": "C", "ego_visible": True}
    return {**base, "unsure": False, "best_exo": {"cam_id": "cam02"}, **fields}


def annotation(rows, **fields):
    return {"annotator_id": "a", "rejected": False, "descriptions": rows, **fields}


def write_tree(root: Path, annotations, segments, take=TAKE, cameras=None) -> EgoExo4dSource:
    """A take with the given annotations and keystep segments; its videos are 2 frames long."""
    folder = root / "takes" / take["take_name"] / "frame_aligned_videos/downscaled/448"
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    streams = ("aria03_214-1", "aria03_1201-1", "aria03_211-1", "cam01", "cam02")
    for camera in cameras or streams:
        write_video(folder / f"{camera}.mp4", frames, 10)
    (root / "annotations").mkdir()
    (root / "takes.json").write_text(json.dumps([take]))
    keysteps = {"annotations": {"u1": {"take_name": take["take_name"], "segments": segments}}}
    descriptions = {"annotations": {"u1": annotations}, "take_cam_id_map": {}}
    for name, value in (("keystep", keysteps), ("atomic_descriptions", descriptions)):
        (root / "annotations" / f"{name}_val.json").write_text(json.dumps(value))
    return EgoExo4dSource(root=root)


SEGMENT = [{"start_time": 1.0, "end_time": 18.0}]


def test_clips_run_to_the_next_description_and_are_cut_by_the_keystep(tmp_path):
    rows = [
        row(16.0, "C lowers the pan"),  # not sorted by time
        row(2.0, "C picks up the can"),
        row(5.0, "C stirs the soup", subject="C"),
        row(0.5, "C opens the door"),  # before the keystep
    ]
    source = write_tree(tmp_path, [annotation(rows)], SEGMENT)
    clips = [clip for clip in source.clips("val") if clip.view == "ego"]
    assert [(c.verb, c.start_s, c.end_s) for c in clips] == [
        ("pick up", 2.0, 5.0), ("stir", 5.0, 16.0), ("lower", 16.0, 18.0),
    ]  # fmt: skip
    assert clips[0].text == "picks up the can"
    assert clips[0].camera == "aria03_214-1" and clips[0].scene == "ps9"


def test_one_record_a_camera_share_a_moment(tmp_path):
    source = write_tree(tmp_path, [annotation([row(2.0, "C picks it")])], SEGMENT)
    clips = source.clips("val")
    assert [clip.camera for clip in clips] == ["aria03_214-1", "cam01", "cam02"]
    assert [clip.view for clip in clips] == ["ego", "exo", "exo"]
    assert len({clip.moment_id for clip in clips}) == 1 and len({c.clip_id for c in clips}) == 3
    best = replace(source, exo="best").clips("val")
    assert [clip.camera for clip in best] == ["aria03_214-1", "cam02"]
    assert [clip.best for clip in clips] == [False, False, True] and best[1].best


def test_collages_are_no_camera_and_some_gopros_are_ego(tmp_path):
    capture = {"cameras": [{"cam_id": "gp05", "is_ego": True}, {"cam_id": "gp01", "is_ego": False}]}
    take = {**TAKE, "capture": capture, "root_dir": None}
    cameras = ("ego_preview", "gp01", "gp05")
    source = write_tree(tmp_path, [annotation([row(2.0, "C picks it")])], SEGMENT, take, cameras)
    assert [(clip.camera, clip.view) for clip in source.clips("val")] == [
        ("gp01", "exo"), ("gp05", "ego"),
    ]  # fmt: skip


def test_a_collage_does_not_stand_for_an_exo_camera(tmp_path):
    cameras = ("aria01_214-1", "ego_preview")
    rows = [annotation([row(2.0, "C picks it")])]
    source = write_tree(tmp_path, rows, SEGMENT, cameras=cameras)
    _, dropped = source.index("val")
    assert dropped.counts == {"takes without an exo camera": 1}


@pytest.mark.parametrize(
    "annotations",
    [None, {"descriptions": 3}, ["text"], [annotation([], rejected="no")], [annotation("text")]],
)
def test_annotations_of_another_type_are_damage(tmp_path, annotations):
    source = write_tree(tmp_path, annotations, SEGMENT)
    clips, dropped = source.index("val")
    assert clips == [] and dropped.damaged == 1


def test_unreadable_keysteps_are_damage_of_their_take(tmp_path):
    source = write_tree(tmp_path, [annotation([row(2.0, "C picks it")])], "none")
    clips, dropped = source.index("val")
    assert clips == [] and "takes with unreadable keysteps" in dropped.damage


@pytest.mark.parametrize(
    ("of_row", "of_take", "camera", "named"),
    [
        ("cam02", None, "cam02", True),
        ("cam02", "cam01", "cam02", True),
        (None, "cam02", "cam02", True),
        (None, None, "cam01", False),
        ("cam09", None, "cam01", False),
    ],
)
def test_best_exo_falls_back(tmp_path, of_row, of_take, camera, named):
    chosen = {"cam_id": of_row} if of_row else None
    rows = [row(2.0, "C picks it", best_exo=chosen)]
    source = write_tree(tmp_path, [annotation(rows)], SEGMENT, {**TAKE, "best_exo": of_take})
    exo = replace(source, exo="best").clips("val")[1]
    assert (exo.camera, exo.best) == (camera, named)


def test_dropped_descriptions_are_counted(tmp_path):
    rows = [
        row(2.0, "C picks it"),
        row(4.0, "The man X waves", subject="O"),
        row(6.0, "The woman Y waves"),  # another person, though no subject says so
        {**row(8.0, "C places it"), "narration_subject": "O"},
        row(10.0, "C pours", unsure="1"),
        row(12.0, "C taps it"),
        row(12.9, "C shakes it", unsure="0", ego_visible="0"),
        row(19.0, "C wipes it"),
    ]
    second = annotation([row(3.0, "C lifts it")])
    rejected = annotation([row(3.0, "C jumps")] * 9, rejected=True)
    source = write_tree(tmp_path, [rejected, second, annotation(rows, rejected="0")], SEGMENT)
    clips, dropped = source.index("val")
    assert [clip.verb for clip in clips] == ["pick"] * 3 + ["shake"] * 3
    assert dropped.counts == {
        "of rejected annotations": 9, "of further annotators": 1, "about another person": 3,
        "marked unsure": 1, "not longer than 1.0 s": 1, "outside every keystep segment": 1,
    }  # fmt: skip
    visible = replace(source, need_ego_visible=True)
    assert {clip.verb for clip in visible.clips("val")} == {"pick"}
    unsure = replace(source, drop_unsure=False)
    assert {clip.verb for clip in unsure.clips("val")} == {"pick", "pour", "shake"}


def test_a_clip_of_exactly_the_minimum_is_dropped(tmp_path):
    rows = [row(2.0, "C picks it"), row(3.0, "C places it"), row(4.25, "C taps it")]
    source = write_tree(tmp_path, [annotation(rows)], SEGMENT)
    assert {clip.verb for clip in source.clips("val")} == {"place", "tap"}


def test_takes_without_keysteps_or_videos(tmp_path):
    source = write_tree(tmp_path, [annotation([row(2.0, "C picks it")])], SEGMENT)
    path = tmp_path / "annotations" / "keystep_val.json"
    whole = path.read_text()
    path.write_text(json.dumps({"annotations": {}}))
    assert source.index("val")[1].counts == {"takes without keysteps": 1}
    path.write_text(whole)
    for video in tmp_path.rglob("*.mp4"):
        video.unlink()
    assert source.index("val")[1].counts == {"takes without videos": 1}


@pytest.mark.parametrize(
    ("cameras", "reason"),
    [
        (("aria03_1201-1", "cam01"), "takes without an ego camera"),
        (("aria03_214-1", "aria03_211-1"), "takes without an exo camera"),
    ],
)
def test_a_take_without_one_of_the_views_is_left_out(tmp_path, cameras, reason):
    source = write_tree(tmp_path, [annotation([row(2.0, "C picks it")])], SEGMENT, cameras=cameras)
    clips, dropped = source.index("val")
    assert clips == [] and dropped.counts == {reason: 1}
    assert dropped.examples == {reason: ["iiith_cooking_57_2"]} and not dropped.damage


MIXED = [
    row(2.0, "C picks it"),
    "C places it",  # not an object
    row(4.0, 7),  # type: ignore[arg-type]  # not a text
    {**row(0, "C pours"), "timestamp": None},
    {**row(0, "C cuts"), "timestamp": "soon"},
    {**row(0, "C cuts"), "timestamp": float("nan")},
    {**row(0, "C stirs"), "timestamp": "6.5"},  # a number as text is one
    row(9.0, "C taps it", unsure="perhaps"),
]


def test_descriptions_of_mixed_types_are_damage(tmp_path):
    source = write_tree(tmp_path, [annotation(MIXED)], SEGMENT)
    clips, dropped = source.index("val")
    assert [(clip.verb, clip.start_s, clip.end_s) for clip in clips if clip.view == "ego"] == [
        ("pick", 2.0, 6.5), ("stir", 6.5, 9.0),
    ]  # fmt: skip
    assert dropped.counts == {
        "descriptions of another type": 2, "descriptions with unparsable timestamps": 3,
        "descriptions with unparsable truth values": 1,
    }  # fmt: skip
    assert dropped.damaged == 6 and dropped.seen == 8
    with pytest.raises(UserError, match=r"6 of 8 .* damaged or missing \(at most 1\.0% may be"):
        source.clips("val")
    assert len(replace(source, max_skipped=0.75).clips("val")) == 6


def test_keysteps_and_takes_with_unparsable_times(tmp_path):
    segments = [{"start_time": "x", "end_time": 3.0}, {"start_time": 4.0, "end_time": "18"}]
    take = {**TAKE, "duration_sec": None}
    rows = [row(2.0, "C picks it"), row(5.0, "C taps it")]
    source = write_tree(tmp_path, [annotation(rows)], segments, take)
    clips, dropped = source.index("val")
    assert {(clip.verb, clip.end_s) for clip in clips} == {("tap", 18.0)}
    assert dropped.counts == {
        "keysteps with unparsable times": 1, "outside every keystep segment": 1,
    }  # fmt: skip


def test_missing_files_are_user_errors(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*expected an Ego-Exo4D folder"):
        EgoExo4dSource(root=tmp_path / "nowhere").clips("val")
    with pytest.raises(UserError, match=r"takes\.json"):
        EgoExo4dSource(root=tmp_path).clips("val")


def test_foreign_files_are_user_errors(tmp_path):
    source = write_tree(tmp_path, [annotation([row(2.0, "C picks it")])], SEGMENT)
    (tmp_path / "annotations" / "keystep_val.json").write_text("[]")
    with pytest.raises(UserError, match=r'keystep_val\.json has no "annotations"'):
        source.clips("val")
    for wrong in ('[{"name": "x"}]', "[3]"):
        (tmp_path / "takes.json").write_text(wrong)
        with pytest.raises(UserError, match="no list of takes with take_uid"):
            source.clips("val")
    (tmp_path / "takes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8 text"):
        source.clips("val")


def test_mixed_truth_values():
    assert [as_bool(value) for value in (True, "1", 1, "true")] == [True] * 4
    assert [as_bool(value) for value in (False, "0", 0, None, "")] == [False] * 5
    with pytest.raises(UserError, match="maybe"):
        as_bool("maybe")


def test_scene_keys():
    scenes = {
        "physical_setting": "ps9", "institution_activity": "iiith_cooking", "keyword": "cooking",
        "capture": "iiith_cooking_57", "take": "iiith_cooking_57_2", "institution": "iiith",
    }  # fmt: skip
    assert {key: scene_of(TAKE, key) for key in scenes} == scenes
    assert scene_of({**TAKE, "physical_setting_uid": None}, "physical_setting") == "iiith_cooking"
    assert scene_of({"take_name": "sfu_cooking015_2"}, "institution_activity") == "sfu_cooking"
    upenn = {"take_name": "upenn_0711_Cooking_4_2"}
    assert scene_of(upenn, "institution_activity") == "upenn_cooking"
    assert scene_of(upenn, "keyword") == "cooking"
