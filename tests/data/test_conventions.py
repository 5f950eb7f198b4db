"""Grippers, rotations and masks: what can be told is converted, the rest names the option."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invact_vla.core.errors import UserError
from invact_vla.data.conventions import (
    ROTATIONS,
    Gripper,
    GripperTrack,
    compose_rotations,
    finger_distance,
    gripper_to_training,
    judge_gripper,
    normalization_mask,
    rotate,
    to_libero_action,
)

COMMANDS = np.repeat([-1.0, 1.0, -1.0], 10)  # open, close, open in LIBERO's convention
OPENED = np.repeat([1.0, 0.0, 1.0], 10)
FINGERS = np.concatenate([np.full(11, 0.08), np.full(10, 0.02), np.full(9, 0.08)])


def track(commands: object, fingers: np.ndarray | None = None) -> GripperTrack:
    return GripperTrack("demo_0", np.asarray(commands, np.float64), fingers)


@pytest.mark.parametrize(
    ("stored", "low", "open_value"),
    [
        (COMMANDS, -1, -1),
        (0.98 * COMMANDS, -1, -1),
        (OPENED, 0, 1),
        (1 - OPENED, 0, 0),
        (0.02 + 0.96 * OPENED, 0, 1),
        (0.98 - 0.96 * OPENED, 0, 0),
    ],
)
def test_fingers_tell_what_opens(stored: np.ndarray, low: int, open_value: int) -> None:
    found = judge_gripper([track(stored, FINGERS)], "auto", "x")
    assert (found.low, found.open_value) == (low, open_value)
    np.testing.assert_array_equal(found.to_training(stored), OPENED)


def test_libero_needs_no_fingers_and_refuses_contradicting_ones() -> None:
    assert judge_gripper([track(COMMANDS)], "auto", "x").open_value == -1
    assert judge_gripper([track(-np.ones(9))], "auto", "x").open_value == -1, "always open"
    with pytest.raises(UserError, match="fingers open after"):
        judge_gripper([track(-COMMANDS, FINGERS)], "auto", "x")
    found = judge_gripper([track(-COMMANDS, FINGERS)], "open_is_one", "x")
    np.testing.assert_array_equal(found.to_training(-COMMANDS), OPENED)


@pytest.mark.parametrize("values", [OPENED, 0.02 + 0.96 * OPENED, np.ones(9), np.zeros(9)])
def test_what_cannot_be_told_names_the_option(values: np.ndarray) -> None:
    with pytest.raises(UserError, match=r"--data\.gripper open_is_one"):
        judge_gripper([track(values)], "auto", "x")
    found = judge_gripper([track(values)], "open_is_one", "x")
    np.testing.assert_array_equal(found.to_training(values), np.round(values))
    found = judge_gripper([track(values)], "open_is_zero", "x")
    np.testing.assert_array_equal(found.to_training(values), 1 - np.round(values))


def test_all_demonstrations_count() -> None:
    """One that is always +1 is closed, because another one says what range it is in."""
    found = judge_gripper([track(np.ones(9)), track(COMMANDS)], "auto", "x")
    np.testing.assert_array_equal(found.to_training(np.ones(9)), np.zeros(9))
    with pytest.raises(UserError, match=r"-1\.\.1 in demo_0 but 0\.\.1 in demo_0"):
        judge_gripper([track(OPENED), track(COMMANDS)], "auto", "x")


def test_a_command_that_never_changes_is_told_by_how_the_fingers_stay() -> None:
    wide, shut = np.full(9, 0.079), np.full(9, 0.001)
    assert judge_gripper([track(np.ones(9), wide)], "auto", "x").open_value == 1
    assert judge_gripper([track(np.ones(9), shut)], "auto", "x").open_value == 0
    assert judge_gripper([track(np.zeros(9), wide)], "auto", "x").open_value == 0


@pytest.mark.parametrize(
    "values",
    [[0, 100.0], [0, 0.08], [-3, 0.5], [0.4, 0.4], [-1.0, 8.0], [0.0, 0.3], [-1.0, 0.0], [-0.5, 0.5],
     [-0.7, 0.4], [-1.0, 0.5], [-0.9, -0.3]],
)  # fmt: skip
@pytest.mark.parametrize("option", ["auto", "open_is_one", "open_is_minus_one"])
def test_no_gripper_range(values: list[float], option: str) -> None:
    commands = np.repeat(values, 10)
    fingers = np.repeat([0.08, 0.02], 10)
    for one in (track(commands), track(commands, fingers), track(commands[::-1], fingers)):
        with pytest.raises(UserError, match=r"rescale it, or say --data\.gripper none"):
            judge_gripper([one], option, "x")


@pytest.mark.parametrize("stored", [COMMANDS, OPENED])
def test_one_demonstration_that_is_turned_round_is_named(stored: np.ndarray) -> None:
    turned = GripperTrack("demo_9", stored.max() + stored.min() - stored, FINGERS)
    for others in (1, 2, 9):
        tracks = [turned, *[track(stored, FINGERS)] * others]
        with pytest.raises(UserError, match=r"demo_.: the fingers open where they close in other"):
            judge_gripper(tracks, "auto", "x")
        judge_gripper(tracks, "open_is_one", "x")  # asked for
    with pytest.raises(UserError, match="demo_9: the fingers open"):
        judge_gripper([*[track(stored, FINGERS)] * 9, turned], "auto", "x")


def test_options_that_the_values_deny() -> None:
    with pytest.raises(UserError, match=r"deny --data\.gripper open_is_zero"):
        judge_gripper([track(COMMANDS)], "open_is_zero", "x")
    with pytest.raises(UserError, match=r"deny --data\.gripper open_is_minus_one"):
        judge_gripper([track(OPENED)], "open_is_minus_one", "x")


def test_implausible_fingers_do_not_vote() -> None:
    assert finger_distance(np.random.default_rng(0).normal(size=(30, 8))) is None
    assert finger_distance(np.zeros((30, 7))) is None and finger_distance(None) is None
    state = np.zeros((30, 8))
    state[:, 6], state[:, 7] = FINGERS / 2, -FINGERS / 2
    np.testing.assert_allclose(finger_distance(state), FINGERS)


@given(st.lists(st.sampled_from([-1.0, 1.0]), min_size=1, max_size=20))
def test_libero_round_trip(gripper: list[float]) -> None:
    """Stored -> training -> simulator gives what was stored."""
    actions = np.zeros((len(gripper), 7))
    actions[:, 6] = Gripper(-1, -1, "").to_training(np.array(gripper))
    np.testing.assert_array_equal(actions[:, 6], gripper_to_training(np.array(gripper)))
    np.testing.assert_array_equal(to_libero_action(actions)[:, 6], gripper)
    np.testing.assert_array_equal(to_libero_action(actions, open_value=0)[:, 6], -np.array(gripper))


@given(st.sampled_from(sorted(ROTATIONS)), st.sampled_from(sorted(ROTATIONS)))
def test_rotations_compose_and_undo_themselves(first: str, second: str) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 3), dtype=np.uint8)
    both = rotate(rotate(frames, first), second)
    np.testing.assert_array_equal(both, rotate(frames, compose_rotations(first, second)))
    np.testing.assert_array_equal(rotate(rotate(frames, first), first), frames)


def test_mask() -> None:
    assert normalization_mask(7, True) == (True,) * 6 + (False,)
    assert normalization_mask(14, False) == (True,) * 14
