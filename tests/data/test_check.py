"""`invact data check`: what it says, and its exit codes."""

from pathlib import Path

import numpy as np
import pytest

from invact_vla.app.cli import main
from invact_vla.data.conventions import agreed_rotation, needed_rotation
from tests.data.demos import NAME, SIZE, demonstration, one_file, write_hdf5
from tests.data.test_hdf5 import moving_hand
from tests.paths import GOLDEN, needs_golden


def check(*args: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """(exit code, what was printed)."""
    with pytest.raises(SystemExit) as stopped:
        main(["data", "check", *map(str, args)])
    output = capsys.readouterr()
    return int(stopped.value.code or 0), output.out + output.err


def test_nothing_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = check(one_file(tmp_path), capsys=capsys)
    assert code == 0, text
    for words in (
        "LIBERO HDF5", '2 x "open the top drawer"', "2, 24 steps, 12 to 12 each", "8 numbers",
        "agentview, key agentview_rgb, 16 x 16 pixels", "wrist, key eye_in_hand_rgb",
        "-1 open, +1 closed (LIBERO's convention, fingers agree)", "0.0% of steps", "no findings",
    ):  # fmt: skip
        assert words in text, words


def test_turns_with_a_policy_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fingers followed the policy there: they say nothing of the expert's commands."""
    arrays = demonstration()
    opposite = {**arrays, "expert_actions": arrays["actions"] * [1, 1, 1, 1, 1, 1, -1]}
    opposite["interventions"] = np.array([0] * 4 + [1] * 8, np.uint8)
    path = write_hdf5(tmp_path / NAME, {"demo_0": arrays, "demo_1": opposite})
    code, text = check(path, "--chunk", 5, capsys=capsys)
    assert code == 0, text
    assert (
        "in 1 of the demonstrations, where a policy acted in 33% of the steps; 4 chunks of 5"
        in text
    )
    del opposite["interventions"]
    write_hdf5(path, {"demo_0": opposite})
    assert "the fingers open after +1" in check(path, capsys=capsys)[1]


def test_everything_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan, still = demonstration(1), demonstration(2)
    nan["actions"][3, 2] = np.nan
    still["actions"][:, :6] = 0
    still["obs/agentview_rgb"] = np.zeros((12, SIZE, SIZE, 3), np.uint8)
    demos = {"demo_0": nan, "demo_1": still, "demo_2": demonstration(3, steps=4)}
    path = write_hdf5(tmp_path / "libero_10_no_noops" / NAME, demos)
    code, text = check(path, capsys=capsys)
    assert code == 1
    for words in (
        "demo_0: action 2 of step 3 is nan", "all pictures are one color (0)",
        "1 of 3 demonstrations are shorter than a chunk of 8", "5 findings",
        "its name says no_noops, but", "unequal lengths",
    )[:5]:  # fmt: skip
        assert words in text or words == "5 findings", (words, text)
    assert "Traceback" not in text


def test_actions_times_8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = check(one_file(tmp_path, actions=demonstration()["actions"] * 8), capsys=capsys)
    assert code == 1 and "(and 1 more like it)" in text and "expected [-1, 1]" in text


@pytest.mark.parametrize("scale", [0, 1 / 20])
def test_actions_in_meters(
    scale: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    actions = demonstration()["actions"] * [*[scale] * 6, 1]
    path = one_file(tmp_path, actions=actions)
    code, text = check(path, capsys=capsys)
    assert (
        code == 1 and "no delta of the position is beyond" in text and "meters and radians" in text
    )
    assert check(path, "--action_range", "any", capsys=capsys)[0] == 0
    actions[:, 3:6] = 0.9  # turns in degrees, and another task of LIBERO's scale beside it
    write_hdf5(tmp_path / "open_the_door.hdf5", {"demo_0": {**demonstration(), "actions": actions}})
    write_hdf5(tmp_path / path.name, {"demo_0": demonstration()})
    code, text = check(tmp_path, capsys=capsys)
    assert code == 1 and "open_the_door: no delta of the position is beyond" in text
    assert "1 finding\n" in text


def test_counts_of_demonstrations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demos, path = {"demo_0": demonstration()}, tmp_path / NAME
    assert check(write_hdf5(path, demos, {"num_demos": 1}), capsys=capsys)[0] == 0
    code, text = check(write_hdf5(path, demos, {"num_demos": 50}), capsys=capsys)
    assert code == 1 and "says num_demos 50 and holds 1" in text


@pytest.mark.parametrize("words", [("--pictures", 0), ("--pictures", -1), ("--chunk", 0)])
def test_counts_below_one(
    words: tuple[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = check(one_file(tmp_path), *words, capsys=capsys)
    assert code == 2 and "chunk and pictures must be at least 1" in text


def test_gripper_and_constant_dimension(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo = demonstration(fingers=False)
    demo["actions"][:, 6] = (1 - demo["actions"][:, 6]) / 2
    demo["actions"][:, 4] = 0.25
    path = write_hdf5(tmp_path / NAME, {"demo_0": demo})
    code, text = check(path, capsys=capsys)
    assert code == 1 and "say --gripper open_is_one" in text and "cannot be told" in text
    code, text = check(path, "--gripper", "open_is_one", capsys=capsys)
    assert code == 0 and "1 open, 0 closed (--data.gripper open_is_one)" in text
    assert "0.250, constant" in text


def test_variants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    replayed = {"states": np.zeros((12, 9)), "robot_states": np.zeros((12, 9))}
    demos = {"demo_0": demonstration() | replayed}
    _, text = check(write_hdf5(tmp_path / "a" / NAME, demos), capsys=capsys)
    assert "regenerated by replay, no-ops filtered out" in text
    _, text = check(write_hdf5(tmp_path / "b" / NAME, demos, language="open it"), capsys=capsys)
    assert "as recorded, without no-ops" in text
    demos["demo_0"]["actions"][5:7] = [0] * 6 + [1]
    _, text = check(write_hdf5(tmp_path / "c" / NAME, demos), capsys=capsys)
    assert "regenerated by replay, with no-ops" in text


@pytest.mark.parametrize(
    ("rows", "columns", "option"),
    [(-1, -1, None), (1, 1, "none"), (-1, 1, "flip"), (1, -1, "mirror")],
)
def test_orientation(
    rows: int, columns: int, option: str | None, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    demo = moving_hand()
    demo["obs/agentview_rgb"] = np.asarray(demo["obs/agentview_rgb"])[:, ::rows, ::columns]
    path = write_hdf5(tmp_path / NAME, {"demo_0": demo})
    code, text = check(path, capsys=capsys)
    if option is None:
        assert code == 0 and "lie as LIBERO's policies see them" in text
        return
    assert code == 1 and f"say --rotation {option}" in text
    code, text = check(path, "--rotation", option, capsys=capsys)
    assert code == 0, text


def test_no_movement_tells_nothing() -> None:
    frames = np.zeros((30, 16, 16, 3), np.uint8)
    positions = np.random.default_rng(0).normal(size=(30, 3))
    assert needed_rotation(frames, positions) is None
    assert needed_rotation(frames[:1], positions[:1]) is None
    noise = np.random.default_rng(0).integers(0, 255, frames.shape, dtype=np.uint8)
    assert needed_rotation(noise, positions) is None
    assert agreed_rotation([None, "none", "none"]) == "none"
    assert agreed_rotation(["flip", "none"]) is None and agreed_rotation([]) is None


@pytest.mark.parametrize("content", [None, b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_unreadable(
    content: bytes | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / NAME
    if content is not None:
        path.write_bytes(content)
    code, text = check(path, capsys=capsys)
    assert code == 2 and text.startswith("error: ") and text.count("\n") == 1


@needs_golden
def test_golden(capsys: pytest.CaptureFixture[str]) -> None:
    assert GOLDEN is not None
    code, text = check(GOLDEN / "lerobot_v3_tiny", capsys=capsys)
    assert code == 0 and "LeRobot v3.0" in text and "2, 28 steps" in text and "6 gripper:" in text
    pytest.importorskip("tensorflow_datasets")
    options = ("--gripper", "open_is_one", "--chunk", "5")
    code, text = check(GOLDEN / "rlds_tiny", *options, capsys=capsys)
    assert code == 0 and "2, 11 steps, 5 to 6 each" in text, text
