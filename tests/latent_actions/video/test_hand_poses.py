"""Where hands go by EgoPose annotations: the frame that views share, gaps, and missing files."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.clips import VideoClips
from latent_actions.synthetic.truth import read_pose
from latent_actions.video.sources import EgoExo4dSource, Ssv2Source

FPS = 8.0


@pytest.fixture
def copy(tree, tmp_path) -> Path:
    """The synthetic Ego-Exo4D tree, to be changed."""
    return shutil.copytree(tree / "egoexo4d", tmp_path / "egoexo4d")


def poses(root: Path, kind: str) -> list[Path]:
    return sorted((root / "annotations" / "ego_pose").rglob(f"{kind}/*.json"))


def test_views_share_up_and_length_and_not_heading(tree):
    source = EgoExo4dSource(root=tree / "egoexo4d", workers=1)
    clips = source.clips("train")
    frames = [np.arange(round(c.start_s * FPS), round(c.end_s * FPS)) for c in clips]
    for clip, span in zip(clips, frames, strict=True):
        path = source.hand_paths([clip], [span], [FPS])[0]
        true = read_pose(tree / "truth" / "egoexo4d" / f"{clip.take}.npz")[span, :3]
        way, true = path - path[0], true - true[0]
        np.testing.assert_allclose(way[:, 2], true[:, 2], atol=1e-4)
        np.testing.assert_allclose(
            np.linalg.norm(way, axis=1), np.linalg.norm(true, axis=1), atol=1e-4
        )
        if clip.view == "ego":  # its wearer sits at -y and looks along y
            np.testing.assert_allclose(way[:, :2], true[:, :2], atol=0.02 + 0.25 * np.ptp(true))


def test_forward_is_away_from_the_camera(copy):
    source = EgoExo4dSource(root=copy, workers=1)
    clip = next(c for c in source.clips("train") if c.view == "exo")
    camera = next(p for p in poses(copy, "camera_pose") if clip.take in p.read_text())
    extrinsics = np.array(json.loads(camera.read_text())[clip.camera]["camera_extrinsics"])
    place = -extrinsics[:, :3].T @ extrinsics[:, 3]
    hand = next(p for p in poses(copy, "annotation") if p.name == camera.name)
    along = np.array([0, 0, 0.1]) - place
    ends = {"0": [0.0, 0.0, 0.1], "4": [*(0.1 * along[:2]), 0.3]}
    joints = {f: {"left_wrist": dict(zip("xyz", p, strict=True))} for f, p in ends.items()}
    hand.write_text(json.dumps({f: [{"annotation3D": joint}] for f, joint in joints.items()}))
    (path,) = source.hand_paths([clip], [np.array([0, 2, 4])], [FPS])
    way = path - path[0]
    np.testing.assert_allclose(way[2], [0, 0.1 * np.linalg.norm(along[:2]), 0.2], atol=0.02)
    np.testing.assert_allclose(way[1], way[2] / 2, atol=1e-6)
    (path,) = source.hand_paths([clip], [np.array([0, 2, 4])], [4.0])  # a gap of 1 s
    assert np.isnan(path).all()
    (path,) = source.hand_paths([clip], [np.array([4, 5, 6])], [FPS])  # beyond the last
    assert np.isnan(path).all()


def test_clips_without_poses_are_unknown_and_none_at_all_is_an_error(copy, tmp_path):
    source = EgoExo4dSource(root=copy, workers=1)
    clips = VideoClips(source=source, size=16, oversample=2, hands=True)
    whole = clips.table(2, tmp_path / "frames", 1)
    assert whole.hand is not None and whole.hand.shape == (len(whole), 4, 3)
    assert np.isfinite(whole.hand).all()
    frames, way = whole.read_with_hand(np.arange(3))
    np.testing.assert_array_equal(frames, whole.read(np.arange(3)))
    np.testing.assert_array_equal(way, whole.hand[:3, 3] - whole.hand[:3, 1])
    assert replace(clips, hands=False).table(2, tmp_path / "frames", 1).hand is None
    removed = poses(copy, "camera_pose")[0]
    removed.unlink()
    part = clips.table(2, tmp_path / "frames", 1)
    unknown = np.isnan(part.hand).all(axis=(1, 2))
    assert unknown.any() and not unknown.all()
    shutil.rmtree(copy / "annotations" / "ego_pose")
    with pytest.raises(UserError, match=r"no hand poses in .*ego_pose.*displacement\.target flow"):
        clips.table(2, tmp_path / "frames", 1)


def test_files_of_another_form_are_named(copy):
    source = EgoExo4dSource(root=copy, workers=1)
    clip = source.clips("train")[0]
    for path in poses(copy, "annotation"):
        path.write_text('{"0": [{"annotation3D": {"right_wrist": 3}}]}')
    with pytest.raises(UserError, match="is no hand annotation of EgoPose"):
        source.hand_paths([clip], [np.array([0])], [FPS])


def test_other_sources_know_no_hands(tree):
    with pytest.raises(UserError, match="ssv2 knows no hand poses"):
        Ssv2Source(root=tree / "ssv2").hand_paths([], [], [])
