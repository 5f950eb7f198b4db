"""Keysteps of Ego-Exo4D: labels at three levels, the atomic actions inside, one record a camera."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from latent_actions.video.sources import EgoExo4dKeystepSource
from tests.latent_actions.video.test_egoexo4d import annotation, row, write_tree

TAXONOMY = {
    "Cooking an Omelet": {
        "3": {"name": "Cooking an Omelet", "is_leafnode": False, "parent_id": None,
              "parent_name": None, "unique_id": 3},
        "11": {"name": "Get eggs", "is_leafnode": True, "parent_id": 3,
               "parent_name": "Get ingredients", "unique_id": 11},
    }
}  # fmt: skip


def segment(start_s, end_s, step_id: int | str = 11, **fields):
    return {
        "start_time": start_s, "end_time": end_s, "step_id": step_id, "step_name": "Get eggs",
        "step_description": "gets eggs from the fridge", "is_essential": True,
        "step_unique_id": 11, **fields,
    }  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> EgoExo4dKeystepSource:
    rows = [
        row(2.0, "C opens the fridge"), row(3.5, "C takes an egg"), row(9.0, "C closes it"),
        row(9.4, "C taps the egg"), row(12.0, "C stirs"),
    ]  # fmt: skip
    segments = [
        segment(1.0, 10.0),
        segment(11.0, 19.0, 3, step_name="Cooking an Omelet", is_essential="0"),
        segment(19.0, 20.0, step_name=None),
        segment(19.0, 18.0),
    ]
    write_tree(tmp_path, [annotation(rows)], [])
    content = {
        "annotations": {
            "u1": {"take_name": "iiith_cooking_57_2", "scenario": "Cooking an Omelet",
                   "segments": segments}
        },
        "taxonomy": TAXONOMY, "vocabulary": {"11": "Get eggs"},
    }  # fmt: skip
    (tmp_path / "annotations" / "keystep_val.json").write_text(json.dumps(content))
    return EgoExo4dKeystepSource(root=tmp_path, max_skipped=0.5)


def test_segments_with_their_labels_and_parts(source):
    clips, dropped = source.index("val")
    assert [(c.view, c.camera, c.start_s, c.end_s) for c in clips] == [
        ("ego", "aria03_214-1", 1.0, 10.0), ("exo", "cam01", 1.0, 10.0),
        ("ego", "aria03_214-1", 11.0, 19.0), ("exo", "cam01", 11.0, 19.0),
    ]  # fmt: skip
    first, second = clips[0], clips[2]
    assert first.verb == "Get eggs" and first.text == "gets eggs from the fridge"
    assert first.moment_id == clips[1].moment_id != second.moment_id
    assert first.tags["parent"] == "Get ingredients"
    assert second.tags["parent"] == "Cooking an Omelet"  # the top is its own parent
    assert first.tags["scenario"] == "Cooking an Omelet"
    assert first.tags["step_id"] == "11" and first.tags["step_unique_id"] == "11"
    assert first.tags["is_essential"] == 1 and second.tags["is_essential"] == 0
    assert first.scene == "iiith" and first.tags["scene.keyword"] == "cooking"
    assert first.parts == ((2.0, 3.5), (3.5, 9.0))  # 9.0-9.4 and 9.4-10.0 are too short
    assert second.parts == ((12.0, 19.0),)
    assert dropped.counts == {"keysteps without a name": 1, "keysteps with unparsable times": 1}
    assert dropped.damaged == 1 and dropped.seen == 4


def test_options(source):
    assert {c.verb for c in replace(source, label_level="parent").clips("val")} == {
        "Get ingredients", "Cooking an Omelet",
    }  # fmt: skip
    assert {c.verb for c in replace(source, label_level="scenario").clips("val")} == {
        "Cooking an Omelet"
    }
    essential = replace(source, essential_only=True).clips("val")
    assert {clip.start_s for clip in essential} == {1.0}
    everything = replace(source, exo="all", scene_key="capture").clips("val")
    assert len(everything) == 6 and everything[0].scene == "iiith_cooking_57"
    assert {c.start_s for c in replace(source, min_duration_s=8.5).clips("val")} == {1.0}


def test_without_descriptions_there_are_no_parts(source):
    (source.root / "annotations" / "atomic_descriptions_val.json").unlink()
    clips = source.clips("val")
    assert len(clips) == 4 and all(clip.parts == () for clip in clips)
