"""What the numbers and pictures of a robot mean, and how one meaning becomes another: the one place.

Training convention (OpenVLA's): gripper 1 open and 0 closed, not normalized; pictures upright, that is
LIBERO's simulator frames turned by 180 degrees (which mirrors them, and so do OpenVLA's). LIBERO's own
convention: gripper -1 open and +1 close, pictures as OpenGL returns them.
Sources: github.com/openvla/openvla (rlds/oxe/transforms.py, experiments/robot/libero), robosuite 1.4
(robot_env.py: image convention).

Axis letters: T steps, A numbers of an action, S of a state, H W pixels.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from invact_vla.core.errors import UserError

LIBERO_ACTION_DIM = 7  # six deltas and the gripper
STATE_PARTS = ("ee_pos", "ee_ori", "gripper_states")  # m (3), axis-angle rad (3), fingers m (2)
LIBERO_STATE_DIM = 8
GRIPPER_WORDS = {
    "open_is_one": "1 open",
    "open_is_zero": "0 open, 1 closed",
    "open_is_minus_one": "-1 open, +1 closed",
    "none": "no gripper",
}
GRIPPERS = ("auto", *GRIPPER_WORDS)
OPEN_VALUES = {"open_is_minus_one": -1, "open_is_one": 1, "open_is_zero": 0}

ROTATIONS = {"none": (1, 1), "rotate180": (-1, -1), "flip": (-1, 1), "mirror": (1, -1)}
# robosuite's name of how pictures are stored -> what makes them upright as OpenVLA sees them. opencv
# pictures are upright; those that robosuite itself wrote are mirrored to what OpenVLA sees, which the
# reader finds out by what moves in them (`needed_rotation`).
STORED_ROTATION = {"opengl": "rotate180", "opencv": "none"}

BINARY_TOLERANCE = 0.1  # a command this close to an end means that end
FAR_FROM_UNIT = 1.5  # an action beyond this was not meant for [-1, 1]
FAR_BELOW_UNIT = 0.1  # nor were actions that all stay below this
WIDEST_GRIPPER = 0.2  # m; more than that are not fingers
DECISIVE_FRACTION = 0.8  # of the times when the fingers moved after a command
LEAST_CORRELATION = 0.6
LEAST_CHANGE = 30  # of a pixel's three channels together: less is noise
LEAST_FRAMES = 10


def rotate(frames: np.ndarray, how: str) -> np.ndarray:
    """(..., H, W, 3) with one of ROTATIONS done to it."""
    rows, columns = ROTATIONS[how]
    return np.ascontiguousarray(frames[..., ::rows, ::columns, :])


def compose_rotations(first: str, second: str) -> str:
    """The one of ROTATIONS that does both."""
    (a, b), (c, d) = ROTATIONS[first], ROTATIONS[second]
    return next(name for name, value in ROTATIONS.items() if value == (a * c, b * d))


def normalization_mask(action_dim: int, gripper: bool) -> tuple[bool, ...]:
    """Which of A dimensions are normalized: all but a gripper at the end."""
    return (True,) * (action_dim - gripper) + (False,) * gripper


def gripper_to_training(gripper: np.ndarray) -> np.ndarray:
    """LIBERO's convention (-1 open, +1 close) -> training convention (1 open, 0 closed)."""
    return 1.0 - np.clip(gripper, 0.0, 1.0)


def gripper_to_libero(opened: np.ndarray, open_value: int = 1) -> np.ndarray:
    """Training convention -> LIBERO's own, made binary. open_value: 1, or 0 for models that were
    trained the other way round."""
    return (-1 if open_value else 1) * np.sign(2 * opened - 1)


def to_libero_action(actions: np.ndarray, open_value: int = 1) -> np.ndarray:
    """(..., 7) in training convention -> float32 in LIBERO's own, clipped to [-1, 1]."""
    gripper = gripper_to_libero(actions[..., -1:], open_value)
    both = np.concatenate([actions[..., :-1], gripper], axis=-1)
    return np.clip(both, -1, 1).astype(np.float32)


@dataclass(frozen=True)
class Gripper:
    """How a data set stores the gripper. low: the value at the lower end, -1 or 0 (the upper is 1);
    open_value: which end means open. evidence: how that is known, in words."""

    low: int
    open_value: int
    evidence: str

    def to_training(self, values: np.ndarray) -> np.ndarray:
        """Stored values (T,) -> float64 (T,), 1 open and 0 closed."""
        values = np.asarray(values, np.float64)
        for end in (self.low, 1):
            values = np.where(np.abs(values - end) <= BINARY_TOLERANCE, end, values)
        if self.low == -1:
            return gripper_to_training(values if self.open_value == -1 else -values)
        return np.clip(values if self.open_value == 1 else 1 - values, 0.0, 1.0)

    def describe(self) -> str:
        """In plain words."""
        close = 1 if self.open_value != 1 else self.low
        return f"{self.open_value:+d} open, {close:+d} closed ({self.evidence})".replace("+0", "0")


@dataclass(frozen=True)
class GripperTrack:
    """One demonstration's gripper. commands: float (T,) as stored. fingers: distance of the fingers
    (T,) in m, or None where it is not known. name: of the demonstration."""

    name: str
    commands: np.ndarray
    fingers: np.ndarray | None = None

    @property
    def is_unit(self) -> bool:
        """Holds zeros and ones and nothing below: the range is 0..1."""
        low, high = self.commands.min(), self.commands.max()
        return bool(abs(low) <= BINARY_TOLERANCE and high > BINARY_TOLERANCE)


def judge_gripper(tracks: Sequence[GripperTrack], option: str, source: str) -> Gripper:
    """The gripper's convention over a whole data set. option: one of GRIPPERS but "none".

    The range is read off the values. -1..1 is taken as LIBERO's (-1 open) unless the fingers moved the
    other way; for 0..1 and for a command that never changes, the movement of the fingers after a
    command decides, and where it cannot, UserError names the option `gripper` that does."""
    lowest = float(min(t.commands.min() for t in tracks))
    highest = float(max(t.commands.max() for t in tracks))
    values = f"always {lowest:g}" if lowest == highest else f"in [{lowest:g}, {highest:g}]"
    found = f"{source}: gripper actions {values}"
    _check_range(lowest, highest, source)
    low = _lower_end(tracks, option, found)
    if option in OPEN_VALUES:
        return Gripper(low, OPEN_VALUES[option], f"--data.gripper {option}")
    if option != "auto":
        raise UserError(f"{source}: no gripper convention {option!r}: expected one of {GRIPPERS}")
    opens = _open_value_by_fingers(tracks, low, source)
    if low == -1:
        if opens == 1:
            raise UserError(
                f"{found}, where LIBERO's -1 means open, but the fingers open after +1: say "
                "--data.gripper open_is_one (or open_is_minus_one if the fingers mislead)"
            )
        return Gripper(-1, -1, "LIBERO's convention" + ("" if opens is None else ", fingers agree"))
    if opens is not None:
        return Gripper(low, opens, "the fingers move so")
    denied = "open_is_minus_one" if lowest != highest else ""
    listed = [f"{name} ({words})" for name, words in GRIPPER_WORDS.items() if name != denied]
    raise UserError(
        f"{found}, from which cannot be told what means open (LIBERO: -1 open, +1 closed): say "
        f"--data.gripper {' or '.join(listed)}"
    )


def _check_range(lowest: float, highest: float, source: str) -> None:
    """Refuses what spans neither -1..1 nor most of 0..1, nor stays at one end."""
    near = lambda value, end: abs(value - end) <= BINARY_TOLERANCE
    ends = any(near(lowest, end) and near(highest, end) for end in (-1, 1))
    spans = near(lowest, -1) and near(highest, 1)
    in_unit = lowest >= -BINARY_TOLERANCE and highest <= 1 + BINARY_TOLERANCE
    unit = in_unit and highest - lowest >= 0.5
    if not (ends or spans or unit or lowest == highest == 0):
        raise UserError(
            f"{source}: the last action dimension lies in [{lowest:g}, {highest:g}], expected a "
            "gripper in -1..1 or 0..1: rescale it, or say --data.gripper none if it is no gripper"
        )


def _lower_end(tracks: Sequence[GripperTrack], option: str, found: str) -> int:
    """-1 or 0: the lower end of the range; refuses mixtures and options that the values deny."""
    signed = next((t for t in tracks if t.commands.min() < -BINARY_TOLERANCE), None)
    unit = next((t for t in tracks if t.is_unit), None)
    if signed and unit:
        raise UserError(
            f"{found}: -1..1 in {signed.name} but 0..1 in {unit.name}; expected one convention in a "
            "data set: convert one part"
        )
    if (option == "open_is_zero" and signed) or (option == "open_is_minus_one" and unit):
        others = "open_is_minus_one" if signed else "open_is_zero"
        raise UserError(f"{found} deny --data.gripper {option}: say {others} or open_is_one")
    return -1 if signed or option == "open_is_minus_one" else 0


def finger_distance(state: np.ndarray | None) -> np.ndarray | None:
    """Distance of the fingers in m (T,) from states (T, S) of LIBERO's layout; None where the last
    two numbers cannot be a pair of fingers."""
    if state is None or state.shape[1] != LIBERO_STATE_DIM:
        return None
    width = (state[:, -2] - state[:, -1]).astype(np.float64)
    plausible = width.min() > -0.01 and width.max() < WIDEST_GRIPPER
    mirrored = np.all(state[:, -2] > -0.01) and np.all(state[:, -1] < 0.01)
    return width if plausible and mirrored else None


def _open_value_by_fingers(tracks: Sequence[GripperTrack], low: int, source: str) -> int | None:
    """Which end of the range opens the fingers: by how they move after a command changes, or, where
    none ever does, by how they stay; None if that does not tell. UserError where demonstrations
    contradict each other."""
    votes: list[bool] = []  # whether the upper end opens
    sides: dict[bool, list[str]] = {True: [], False: []}  # demonstrations of which all votes say so
    constant: list[bool] = []
    for track in tracks:
        if track.fingers is None:
            continue
        high, own = track.commands > (low + 1) / 2, []
        switches = np.flatnonzero(high[1:] != high[:-1]) + 1
        for start, stop in zip(switches, np.append(switches[1:], len(high)), strict=False):
            moved = track.fingers[min(stop, start + 10, len(high) - 1)] - track.fingers[start]
            if abs(moved) > 0.005:  # m
                own.append(bool((moved > 0) == high[start]))
        votes += own
        if len(own) > 1 and len(set(own)) == 1:
            sides[own[0]].append(track.name)
        if not len(switches):
            last = float(np.median(track.fingers[len(high) // 2 :]))
            if last > 0.06 or last < 0.01:  # m: a Panda's hand wide open, or shut
                constant.append(bool((last > 0.06) == high[0]))
    if all(sides.values()):
        name = min(sides.values(), key=len)[0]
        raise UserError(
            f"{source}, {name}: the fingers open where they close in other demonstrations: turn its "
            "gripper actions round, or leave it out"
        )
    decisive = votes if len(votes) >= 2 else constant
    fraction = float(np.mean(decisive)) if decisive else 0.5
    if max(fraction, 1 - fraction) < DECISIVE_FRACTION:
        return None
    return 1 if fraction > 0.5 else low


def needed_rotation(frames: np.ndarray, ee_pos: np.ndarray) -> str | None:
    """What would make the agentview's frames lie as LIBERO's policies see them, one of ROTATIONS; None
    if what moves does not tell. frames: uint8 (T, H, W, 3). ee_pos: (T, 3) in m, in the robot's base
    frame.

    LIBERO's agentview looks at the robot from the front. In frames as policies see them what moves goes
    up when the hand goes up (z), and to the left when it goes to the robot's left (y). Measured on
    scripted demonstrations: correlation of the middle of what changes with z -0.8 in rows, with y -1.0
    in columns."""
    weights, rows, columns = _middle_of_change(frames)
    busy = weights > 0.3 * (np.median(weights) if len(weights) else 0)
    if busy.sum() < LEAST_FRAMES:
        return None
    up = _correlation(rows[busy], ee_pos[:-1, 2][busy])
    left = _correlation(columns[busy], ee_pos[:-1, 1][busy])
    if min(abs(up), abs(left)) < LEAST_CORRELATION:
        return None
    steps = (-1 if up > 0 else 1, -1 if left > 0 else 1)
    return next(name for name, value in ROTATIONS.items() if value == steps)


def agreed_rotation(found: Iterable[str | None]) -> str | None:
    """What all demonstrations that tell agree on (nine in ten of them); None if they do not."""
    counts = Counter(name for name in found if name is not None)
    if not counts:
        return None
    name, count = counts.most_common(1)[0]
    return name if count >= 0.9 * counts.total() else None


def _middle_of_change(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How much changes from each frame to the next, and the row and column of its middle: (T - 1,)."""
    weights, rows, columns = np.zeros((3, max(len(frames) - 1, 0)))
    height, width = frames.shape[1:3]
    for i in range(len(weights)):
        change = np.abs(frames[i + 1].astype(np.int16) - frames[i]).sum(-1).astype(np.float64)
        change[change < LEAST_CHANGE] = 0
        weights[i] = change.sum()
        if weights[i]:
            rows[i] = change.sum(1) @ np.arange(height) / weights[i]
            columns[i] = change.sum(0) @ np.arange(width) / weights[i]
    return weights, rows, columns


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
