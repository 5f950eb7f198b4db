"""Probes find what is there and nothing else; frames turn as by hand; videos do not leak."""

import numpy as np
import pytest

from invact_vla.core.schema import LatentLabels
from invact_vla.data.label_store import LabelIdentity, LabelStore
from latent_actions.report.frames import heading_axes, into_frame
from latent_actions.report.probes import mlp, one_hot, ridge, transfer
from latent_actions.report.truth import CAMERA, HEADING, WEARER, WORLD, true_motion, truth_folder

VIDEOS, PAIRS = 40, 6
GROUPS = np.repeat(np.arange(VIDEOS), PAIRS).tolist()
N = len(GROUPS)


def codes_and_actions(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Codes (N, 4) of 8, and actions (N, 3) that are a function of the first two."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(8, size=(N, 4))
    table = rng.normal(size=(2, 8, 3))
    return codes, table[0][codes[:, 0]] + table[1][codes[:, 1]] + 0.05 * rng.normal(size=(N, 3))


@pytest.mark.parametrize("probe", [ridge, mlp])
def test_codes_that_are_the_action_are_read_and_random_ones_are_not(probe) -> None:
    codes, actions = codes_and_actions()
    found = probe(one_hot(codes, 8), actions, GROUPS).r2()
    assert found.value > 0.95 and found.low > 0.9 and found.n == N and found.clusters == VIDEOS
    assert found.low <= found.value <= found.high
    other = np.random.default_rng(1).integers(8, size=(N, 4))
    assert probe(one_hot(other, 8), actions, GROUPS).r2().value < 0.05


def test_wide_features_give_what_narrow_ones_give() -> None:
    """More features than pairs: the other matrix of products."""
    codes, actions = codes_and_actions()
    narrow = one_hot(codes, 8)
    turned = np.linalg.qr(np.random.default_rng(2).normal(size=(300, 300)))[0][: narrow.shape[1]]
    assert ridge(narrow @ turned, actions, GROUPS).r2().value > 0.8


def test_what_a_video_is_known_by_does_not_leak() -> None:
    """Features name the video, actions are constant in a video: known in the fold, unknown outside."""
    actions = np.random.default_rng(3).normal(size=(VIDEOS, 2))[GROUPS]
    names = np.eye(VIDEOS)[GROUPS]
    assert ridge(names, actions, GROUPS).r2().value < 0.05
    assert ridge(names, actions, list(range(N))).r2().value > 0.8  # what a leak would look like


def test_more_labels_tell_more() -> None:
    codes, actions = codes_and_actions()
    curve = [ridge(one_hot(codes, 8), actions, GROUPS, train_pairs=n).r2().value for n in (12, 96)]
    assert curve[0] < curve[1] - 0.1


def test_a_code_that_only_the_test_videos_have() -> None:
    codes, actions = codes_and_actions()
    codes[:, 3] = np.array(GROUPS) == 7
    for probe in (ridge, mlp):
        assert probe(one_hot(codes, 8), actions, GROUPS).r2().value > 0.9


def test_degenerate_inputs() -> None:
    codes, actions = codes_and_actions()
    same = one_hot(np.zeros((N, 4), int), 8)
    assert ridge(same, actions, GROUPS).r2().value == pytest.approx(0, abs=1e-9)
    still = np.concatenate([actions[:, :1], np.ones((N, 1))], axis=1)
    probed = ridge(one_hot(codes, 8), still, GROUPS)
    assert np.isnan(probed.r2([1]).value) and probed.r2().value == probed.r2([0]).value
    with pytest.raises(ValueError, match="5 videos"):
        ridge(one_hot(codes, 8), actions, [i % 4 for i in range(N)])


def test_a_probe_of_one_set_is_used_on_another() -> None:
    codes, actions = codes_and_actions()
    half = N // 2
    found = transfer(
        one_hot(codes[:half], 8), actions[:half], GROUPS[:half], one_hot(codes[half:], 8)
    )
    assert np.corrcoef(found[:, 0], actions[half:, 0])[0, 1] > 0.95


# a camera that looks along world +x and 60 degrees down: right is world -y
DOWN = np.radians(60)
BACKWARDS = np.array([-np.cos(DOWN), 0, np.sin(DOWN)])
LOOKS_X = np.stack([[0, -1, 0], [np.sin(DOWN), 0, np.cos(DOWN)], BACKWARDS], axis=-1)


def test_frames_turn_as_by_hand() -> None:
    world = np.array([[1.0, 2.0, 3.0, 0.0, 0.0, 1.0, 0.5]])
    level = into_frame(world, heading_axes(LOOKS_X)[None])
    np.testing.assert_allclose(
        level, world, atol=1e-12
    )  # it looks along x: forward is x, left is y
    seen = into_frame(world, LOOKS_X[None])[0]
    up = np.sin(DOWN) * 1 + np.cos(DOWN) * 3
    back = -np.cos(DOWN) * 1 + np.sin(DOWN) * 3
    np.testing.assert_allclose(seen[:3], [-2, up, back], atol=1e-12)
    np.testing.assert_allclose(seen[3:], [0, np.cos(DOWN), np.sin(DOWN), 0.5], atol=1e-12)
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])  # now it looks along y
    turned = into_frame(world, heading_axes(quarter @ LOOKS_X)[None])[0]
    np.testing.assert_allclose(turned[:3], [2, -1, 3], atol=1e-12)


def test_a_camera_that_looks_straight_down_has_a_heading() -> None:
    down = np.stack([[1, 0, 0], [0, 1, 0], [0, 0, 1.0]], axis=-1)  # top of the picture points to y
    np.testing.assert_allclose(heading_axes(down), [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    portrait = np.stack([[0, 0, 1.0], [0, 1, 0], [-1, 0, 0]], axis=-1)
    np.testing.assert_allclose(heading_axes(portrait), np.eye(3), atol=1e-12)


def store_of(paths: list[str], frame: int = 0, frame_end: int = 4) -> LabelStore:
    n = len(paths)
    identity = LabelIdentity("x", "h", "folder/val", "d", 8, 4)
    return LabelStore(
        identity=identity, video_id=tuple(paths), path=tuple(paths), video_key=tuple(paths),
        frame=np.full(n, frame), frame_end=np.full(n, frame_end), text=("",) * n,
        labels=LatentLabels(np.zeros((n, 4), np.int64), 8),
    )  # fmt: skip


def test_true_actions_of_pairs_in_every_frame(tmp_path) -> None:
    """A clip of its own, a take with two cameras, and a video without truth."""
    velocity = np.zeros((8, 7))
    velocity[:4, 0] = np.arange(4)  # mean 1.5 along x
    axes = {"camera_axes": LOOKS_X, "ego_axes": np.eye(3), "cam01_axes": LOOKS_X}
    tiled = {name: np.tile(value, (8, 1, 1)) for name, value in axes.items()}
    (tmp_path / "truth/ssv2").mkdir(parents=True)
    assert truth_folder("auto", tmp_path / "ssv2") == tmp_path / "truth/ssv2"
    for name in ("7", "take_1"):
        np.savez(tmp_path / f"truth/ssv2/{name}.npz", velocity=velocity, **tiled)
    store = store_of(["v/7.webm", "takes/take_1/448/cam01.mp4", "v/none.webm"])
    motion = true_motion(store, tmp_path, tmp_path / "truth/ssv2")
    assert motion.rows.tolist() == [0, 1] and list(motion.frames) == [
        WORLD,
        CAMERA,
        HEADING,
        WEARER,
    ]
    assert len(motion.missing) == 1 and "none.webm" in motion.missing[0]
    assert (
        motion.translations == (0, 1, 2)
        and motion.names(WEARER)[0] == "forward"
        and motion.names(WORLD)[6] == "grip"
    )
    for row in range(2):
        np.testing.assert_allclose(motion.frames[WORLD][row, :3], [1.5, 0, 0], atol=1e-6)
        np.testing.assert_allclose(motion.frames[HEADING][row, :3], [1.5, 0, 0], atol=1e-6)
        np.testing.assert_allclose(motion.frames[WEARER][row, :3], [0, -1.5, 0], atol=1e-6)
        assert motion.frames[CAMERA][row, 0] == pytest.approx(0, abs=1e-6)


def test_no_truth_at_all(tmp_path) -> None:
    motion = true_motion(store_of(["a.mp4"]), tmp_path, None)
    assert not len(motion.rows) and motion.frames == {} and motion.translations == ()
