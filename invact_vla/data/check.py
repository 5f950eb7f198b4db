"""`invact data check DEMOS`: what is in a data set of demonstrations, and what is wrong with it.

Exit code 0: nothing found; 1: findings; 2: it cannot be read at all.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.data.conventions import (
    BINARY_TOLERANCE,
    LIBERO_ACTION_DIM,
    LIBERO_STATE_DIM,
    GripperTrack,
    agreed_rotation,
    compose_rotations,
    finger_distance,
    judge_gripper,
    needed_rotation,
)
from invact_vla.data.dataset import DatasetConfig, EpisodeNumbers
from invact_vla.data.readers import open_dataset
from invact_vla.data.readers.libero_hdf5 import Hdf5Dataset
from invact_vla.data.stored_dataset import StoredDataset, action_fault, picture_fault

SHOWN = 12  # tasks and findings printed; the rest is counted
NO_OP_NORM = 1e-4  # of the deltas, as OpenVLA's filter has it
LIES = {
    "rotate180": "turned by 180 degrees",
    "flip": "upside down",
    "mirror": "mirrored",
    "none": "left as they are",
}


@dataclass(frozen=True, kw_only=True)
class DataCheckConfig(DatasetConfig):
    """Demonstrations to look at."""

    POSITIONAL: ClassVar[str] = "path"
    chunk: int = 8  # actions per call that training will ask for; shorter demonstrations are named
    pictures: int | None = 12  # demonstrations whose pictures are looked at; null: all

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.chunk < 1 or (self.pictures is not None and self.pictures < 1):
            raise ValueError("chunk and pictures must be at least 1")


@dataclass
class Report:
    """Lines of (name, words), and what is wrong: kind -> messages."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    findings: dict[str, list[str]] = field(default_factory=dict)

    def say(self, name: str, words: str) -> None:
        self.lines.append((name, words))

    def find(self, message: object) -> None:
        """Note a finding. Messages that differ only in numbers are one kind."""
        words = str(message).replace("--data.", "--")
        kind = re.sub(r"-?\d[\d.e+-]*", "#", words.split(": ", 1)[-1])
        self.findings.setdefault(kind, []).append(words)

    def text(self) -> str:
        """The whole report."""
        width = max(len(name) for name, _ in self.lines)
        lines = [f"{name:<{width}}  {words}".rstrip() for name, words in self.lines]
        kinds = list(self.findings.values())
        for messages in kinds[:SHOWN]:
            more = f" (and {len(messages) - 1} more like it)" if len(messages) > 1 else ""
            lines.append(f"- {messages[0]}{more}")
        if len(kinds) > SHOWN:
            lines.append(f"- and {len(kinds) - SHOWN} more kinds")
        ending = f"{len(kinds)} finding{'s' * (len(kinds) != 1)}" if kinds else "no findings"
        return "\n".join([*lines, ending])


def main(config: DataCheckConfig) -> int:
    """Print the report; 0 without findings, else 1. Raises UserError for what cannot be read."""
    try:
        report = check(open_dataset(config), config.chunk, config.pictures)
    except UserError as error:
        raise UserError(str(error).replace("--data.", "--")) from error
    print(report.text())
    return 1 if report.findings else 0


def check(dataset: StoredDataset, chunk: int, pictures: int | None) -> Report:
    """Look at all numbers, and at the pictures of some demonstrations (None: of all)."""
    report = Report()
    _describe(report, dataset, chunk)
    tracks, actions, in_turns, still = [], {}, [], 0
    for place in tqdm(dataset.places, "numbers", unit="demo", mininterval=5):
        try:
            numbers = dataset.checked_numbers(place)
        except UserError as error:
            report.find(error)
            continue
        name, task = dataset.all_episodes[place].name, dataset.all_episodes[place].task
        actions.setdefault(task, []).append(numbers.actions)
        still += _no_ops(numbers.actions)
        alone = numbers.executed is None
        fingers = finger_distance(numbers.state) if alone else None
        tracks.append(GripperTrack(name, numbers.actions[:, -1], fingers))
        in_turns += [] if alone else [numbers]
    if actions:
        _describe_turns(report, in_turns, chunk)
        by_task = {task: np.concatenate(parts) for task, parts in actions.items()}
        _describe_actions(report, dataset, by_task)
        _describe_gripper(report, dataset, tracks)
        _describe_variant(report, dataset, still / sum(map(len, by_task.values())))
    _describe_pictures(report, dataset, pictures)
    return report


def _no_ops(actions: np.ndarray) -> int:
    """Steps whose deltas are zero and whose gripper does not change (OpenVLA's rule, but against the
    step before, kept or not). actions: (T, A), the gripper last."""
    still = np.linalg.norm(actions[:, :-1], axis=1) < NO_OP_NORM
    return int((still & np.append(True, actions[1:, -1] == actions[:-1, -1])).sum())


def _describe(report: Report, dataset: StoredDataset, chunk: int) -> None:
    """Format, tasks, lengths, state."""
    episodes = dataset.episodes
    report.say("format", f"{dataset.format_name}, {dataset.config.path}")
    words = {e.task: e.instruction for e in episodes}
    counts = Counter(e.task for e in episodes)
    report.say("tasks", f"{len(counts)}")
    for task, count in list(counts.items())[:SHOWN]:
        report.say("", f'{count} x "{words[task]}"')
    if len(counts) > SHOWN:
        report.say("", f"and {len(counts) - SHOWN} more")
    lengths = [e.length for e in episodes]
    spread = f"{sum(lengths)} steps, {min(lengths)} to {max(lengths)} each"
    report.say("demonstrations", f"{len(episodes)}, {spread}")
    short = [e for e in episodes if e.length < chunk]
    if short:
        report.find(
            f"{len(short)} of {len(episodes)} demonstrations are shorter than a chunk of {chunk} steps "
            f"(first: {short[0].name}, {short[0].length}): training leaves them out"
        )
    size = dataset.state_dim
    report.say("state", f"{size} numbers" if size else f"none ({dataset.lacking_state})")


def _describe_turns(report: Report, in_turns: list[EpisodeNumbers], chunk: int) -> None:
    """Demonstrations in which a policy took turns with whoever is learned from."""
    if not in_turns:
        return
    executed = np.concatenate([n.executed for n in in_turns if n.executed is not None])
    chunks = sum(len(n.starts(chunk)) for n in in_turns)
    report.say(
        "turns",
        f"in {len(in_turns)} of the demonstrations, where a policy acted in {1 - executed.mean():.0%} "
        f"of the steps; {chunks} chunks of {chunk} steps to learn from",
    )
    if not chunks:
        report.find(f"no chunk of {chunk} steps to learn from: take longer turns")


def _describe_actions(
    report: Report, dataset: StoredDataset, by_task: dict[str, np.ndarray]
) -> None:
    """Range of each dimension as stored, those that never change, and tasks of another scale."""
    actions = np.concatenate(list(by_task.values()))
    report.say("actions", f"{dataset.action_dim} numbers, as stored")
    names = dataset.action_names or [""] * dataset.action_dim
    low, high = actions.min(0), actions.max(0)
    q01, q99 = np.quantile(actions, [0.01, 0.99], axis=0)
    for i, name in enumerate(names):
        spread = f"{low[i]:8.3f} to {high[i]:8.3f}, 98 % in {q01[i]:8.3f} to {q99[i]:8.3f}"
        constant = ", constant" if low[i] == high[i] else ""
        report.say("", f"{i} {name}".strip() + f": {spread}{constant}")
    libero = dataset.has_gripper and dataset.config.action_range != "any"
    for task, own in by_task.items():
        if fault := action_fault(own.min(0), own.max(0), libero):
            report.find(f"{task}: {fault}")


def _describe_gripper(report: Report, dataset: StoredDataset, tracks: list[GripperTrack]) -> None:
    option = dataset.config.gripper
    if dataset.has_gripper:
        try:
            found = judge_gripper(tracks, option, str(dataset.config.path))
            report.say("gripper", found.describe())
        except UserError as error:
            report.say("gripper", "cannot be told")
            report.find(error)
        return
    report.say("gripper", "none: all actions are normalized")
    last = np.concatenate([t.commands for t in tracks])
    ends = np.minimum(np.abs(last - last.min()), np.abs(last - last.max()))
    if option == "auto" and np.ptp(last) > 0.5 and ends.max() < BINARY_TOLERANCE:
        report.find(
            "the last action has two values, as a gripper: say --data.gripper open_is_one, "
            "open_is_zero or open_is_minus_one, or none if it is no gripper"
        )


def _describe_variant(report: Report, dataset: StoredDataset, fraction: float) -> None:
    """Whether no-ops were filtered out, and whether LIBERO's files were made by replay."""
    claimed = any("no_noops" in part for part in dataset.config.path.resolve().parts)
    made, replayed = "", False
    if isinstance(dataset, Hdf5Dataset):
        replayed = dataset.regenerated
        for path, says, count in dataset.miscounted():
            report.find(f"{path} says num_demos {says} and holds {count}: it is cut, or was edited")
        made = "regenerated by replay, " if replayed else "as recorded, "
    no_op = "with no-ops" if fraction else "without no-ops"
    if not fraction and (claimed or replayed):
        no_op = "no-ops filtered out"
    report.say("no-ops", f"{fraction:.1%} of steps")
    report.say("variant", made + no_op)
    if claimed and fraction > 0:
        report.find(
            f"its name says no_noops, but {fraction:.1%} of its steps are no-ops: it is the unfiltered "
            "variant, or was filtered otherwise"
        )


def _describe_pictures(report: Report, dataset: StoredDataset, pictures: int | None) -> None:
    """Sizes, faults, and how the pictures lie."""
    count = len(dataset.places) if pictures is None else min(pictures, len(dataset.places))
    chosen = np.unique(np.linspace(0, len(dataset.places) - 1, count).astype(int))
    needed: list[str | None] = []
    for camera in dataset.cameras:
        sizes: Counter[str] = Counter()
        for index in tqdm(chosen, f"{camera} pictures", unit="demo", mininterval=5):
            place = dataset.places[index]
            try:
                frames = dataset.upright_frames(place, camera)
            except UserError as error:
                report.find(error)
                continue
            sizes[f"{frames.shape[1]} x {frames.shape[2]}"] += 1
            fault = picture_fault(frames)
            if fault:
                report.find(f"{dataset.where(place)}, {camera}: {fault}")
            if camera == "agentview":
                needed.append(_needed(dataset, place, frames))
        listed = ", ".join(sizes) or "unreadable"
        report.say("camera", f"{camera}, key {dataset.camera_keys[camera]}, {listed} pixels")
        if len(sizes) > 1:
            report.find(f"{camera} pictures have several sizes: {listed}")
    _describe_orientation(report, dataset, agreed_rotation(needed))


def _needed(dataset: StoredDataset, place: int, frames: np.ndarray) -> str | None:
    """What the robot's movement says must still be done to upright frames, for LIBERO's layout."""
    if (dataset.action_dim, dataset.state_dim) != (LIBERO_ACTION_DIM, LIBERO_STATE_DIM):
        return None
    state = None if dataset.config.state else dataset.stored_state(place)
    if state is None or len(state) != len(frames):
        return None
    return needed_rotation(frames, state[:, :3])


def _describe_orientation(report: Report, dataset: StoredDataset, needed: str | None) -> None:
    try:
        done = dataset.rotation(dataset.places[0])
    except UserError:
        return  # found when the pictures were read
    stored = f"stored pictures are {LIES[done]} by the reader"
    if needed is None:
        report.say("orientation", f"{stored}; what moves in them does not tell more")
    elif needed == "none":
        report.say("orientation", f"{stored}, and then lie as LIBERO's policies see them")
    else:
        report.say("orientation", f"{stored}, and then look {LIES[needed]}")
        report.find(
            f"agentview pictures look {LIES[needed]} beside LIBERO's, by how the robot moves in them: "
            f"say --data.rotation {compose_rotations(done, needed)}"
        )
