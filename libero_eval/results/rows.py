"""Results are rows: one EpisodeRow per episode, appended to episodes.jsonl and never changed.

A row is on disk (fsync) before the next episode counts as done, so a killed run loses at most the
episode it was in. A torn last line, left by a kill inside a write, is dropped on reading and cut
off on appending; a damaged line anywhere else is an error. An episode that ended as an `error` may
be run again: the later row then replaces it. Anything else recorded twice is refused.
"""

import json
import logging
import os
import re
import typing
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from invact_vla.config.yaml_text import read_yaml
from invact_vla.core.errors import UserError
from invact_vla.core.limits import inside, parse_json, short, some

logger = logging.getLogger(__name__)

EPISODES_FILE = "episodes.jsonl"
Outcome = Literal["success", "failure", "error"]
_BEYOND = re.compile(r"init states 0\.\.(\d+), got (\d+)")
OUTCOMES: tuple[str, ...] = typing.get_args(Outcome)
# fields that are equal in all rows of one run
ONE_RUN = ("policy_name", "seed", "checkpoint_hash", "protocol_hash", "pack_hash", "manifest_hash")
Episode = tuple[str, int, int]
Key = tuple[str, str, int, int]
Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class EpisodeRow:
    """What happened in one episode. All but `wall_s` is a function of config and seed."""

    policy_name: str  # variant of the experiment, "lapa"
    suite: str  # "libero_10"
    task_id: int  # place in the suite's own order
    task: str  # the task's file name without ending
    init_index: int  # which of the suite's init states
    seed: int  # seed of the run; the episode's own seed follows from it
    outcome: Outcome
    reason: str  # why it ended: "goal reached", "520 steps", or a traceback
    steps: int  # policy steps taken, settling not counted
    goals_satisfied: int  # goal predicates true at the end
    goals_total: int
    goals_best: int  # most goal predicates true at once
    closest_m: float | None  # smallest distance to the unmet goals on the way, meters
    checkpoint_hash: str
    protocol: str
    protocol_hash: str
    pack: str
    pack_hash: str
    manifest_hash: str
    state_hash: str  # simulator state at the end; "" after an error
    video: str | None  # path inside the run folder
    wall_s: float  # duration, the one field that differs between equal runs

    def __post_init__(self) -> None:
        if self.outcome not in OUTCOMES:
            raise ValueError(f"outcome must be one of {OUTCOMES}, got {self.outcome!r}")
        if self.outcome == "error" and not self.reason.strip():
            raise ValueError("an error needs a reason")
        if not 0 <= self.goals_satisfied <= self.goals_best <= self.goals_total:
            raise ValueError(
                f"need 0 <= goals_satisfied <= goals_best <= goals_total, got {self.goals_satisfied}, "
                f"{self.goals_best}, {self.goals_total}"
            )

    @property
    def episode(self) -> Episode:
        """(suite, task_id, init_index): what two policies are paired by."""
        return self.suite, self.task_id, self.init_index

    @property
    def key(self) -> Key:
        """(policy_name, suite, task_id, init_index): what a resumed run goes by."""
        return (self.policy_name, *self.episode)

    def without_time(self) -> "EpisodeRow":
        """The row with the duration set to zero: equal for equal runs."""
        return replace(self, wall_s=0.0)


class EpisodeLog:
    """Appends rows to one episodes.jsonl; knows which keys are done.

    path: the file, made if missing. A torn last line is cut off first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        inside(path.parent, path.name)  # what is appended to must lie in the run folder
        self.rows: dict[Key, EpisodeRow] = {}
        if path.exists():
            self.rows = {row.key: row for row in read_episodes(path)}
            content = path.read_bytes()
            os.truncate(path, content.rfind(b"\n") + 1)
        self._file = path.open("ab", buffering=0)  # a failed write must not be tried again later

    def done(self, key: Key) -> bool:
        """Whether this episode has a row that is not an error."""
        return key in self.rows and self.rows[key].outcome != "error"

    def append(self, row: EpisodeRow) -> None:
        """Write the row and wait until the disk has it.

        Refuses an episode that is done (ValueError). If the disk is full, no part of the row stays
        and UserError is raised.
        """
        if self.done(row.key):
            raise ValueError(f"episode {row.key} is already in {self.path}")
        line = json.dumps(asdict(row), ensure_ascii=False, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            _write(self._file.fileno(), line)
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            raise UserError(
                f"could not record {row.suite} task {row.task_id}, init state {row.init_index} in "
                f"{self.path} ({error.strerror}): the file ends with the episode before; make room, "
                "and the same command goes on from there"
            ) from error
        self.rows[row.key] = row

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "EpisodeLog":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def is_begun(folder: Path) -> bool:
    """Whether a run folder holds any row."""
    path = folder / EPISODES_FILE
    return path.exists() and path.stat().st_size > 0


def read_episodes(path: Path) -> list[EpisodeRow]:
    """All rows of an episodes.jsonl (or of the run folder holding one), sorted by key.

    Left out, with a warning, are errors of init states that do not exist: no such episodes can be.
    Raises UserError for a missing file, a damaged line, unknown or missing fields, wrong types, and
    an episode recorded twice.
    """
    path = path / EPISODES_FILE if path.is_dir() else path
    if not path.exists():
        raise UserError(
            f"no episodes at {path}: expected a file written by `invact libero rollout`"
        )
    rows: dict[Key, EpisodeRow] = {}
    lines = path.read_bytes().split(b"\n")
    if lines[-1]:
        logger.warning("%s: the last line is torn (a run was killed while writing), dropped", path)
    for number, line in enumerate(lines[:-1], start=1):
        row = _parse(line, f"{path}:{number}")
        previous = rows.get(row.key)
        if previous is not None and previous.outcome != "error":
            raise UserError(f"{path}:{number}: episode {row.key} is recorded twice")
        rows[row.key] = row
    beyond = []  # errors of runs that asked for more than there are
    for row in rows.values():
        found = _BEYOND.search(row.reason) if row.outcome == "error" else None
        if found and int(found[2]) == row.init_index > int(found[1]):
            beyond.append(row.key)
    if beyond:
        states = ", ".join(sorted({str(key[-1]) for key in beyond}))
        logger.warning("%s: %d rows of init states that do not exist (%s) are left out",
                       path, len(beyond), states)  # fmt: skip
    return [rows[key] for key in sorted(rows.keys() - set(beyond))]


@dataclass(frozen=True)
class Shard:
    """One run on many machines: shard i/n is the i-th of n equal stretches of its episodes."""

    index: int  # 0..of-1
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From "i/n"; ValueError for anything else."""
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not int(match[1]) < int(match[2]):
            raise ValueError(f"shard: expected i/n with 0 <= i < n such as 0/4, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def part(self, items: Sequence[Item]) -> list[Item]:
        """This shard's items: neighbors stay together, so that it loads few tasks."""
        ends = [len(items) * i // self.of for i in (self.index, self.index + 1)]
        return list(items[ends[0] : ends[1]])


def merge(folders: Sequence[Path], may_differ: Collection[str] = ()) -> list[EpisodeRow]:
    """The rows of one run from the run folders of its shards, sorted by key.

    may_differ: fields of `ONE_RUN` that need not agree, e.g. manifest_hash for shards of unequal
    machines. Raises UserError for an unfinished folder, a missing shard, an episode that is in two
    folders, and fields that disagree.
    """
    rows: dict[Key, EpisodeRow] = {}
    owner: dict[Key, Path] = {}
    for folder in folders:
        if not (folder / "done.json").exists():
            raise UserError(f"{folder} is not a finished rollout: run its command to the end first")
        for row in read_episodes(folder):
            if row.key in rows:
                raise UserError(f"episode {row.key} is in both {owner[row.key]} and {folder}")
            rows[row.key], owner[row.key] = row, folder
    present = {_shard_of(folder) for folder in folders}
    whole = {Shard(index, shard.of) for shard in present for index in range(shard.of)}
    lacking = sorted(whole - present, key=lambda s: (s.of, s.index))
    missing = [f"{shard.index}/{shard.of}" for shard in lacking]
    if missing:
        raise UserError(f"these folders lack the shards {', '.join(missing)}: run or give them too")
    for name in sorted(set(ONE_RUN) - set(may_differ)):
        values = sorted({str(getattr(row, name)) for row in rows.values()})
        if len(values) > 1:
            raise UserError(f"these folders are not one run: {name} is {' and '.join(values)}")
    return [rows[key] for key in sorted(rows)]


def _shard_of(folder: Path) -> Shard:
    config = read_yaml(folder / "config.yaml")
    if not isinstance(config, dict) or not isinstance(config.get("shard"), str):
        raise UserError(f"{folder}/config.yaml names no shard: give folders that rollouts made")
    return Shard.parse(config["shard"])


def by_task(rows: Iterable[EpisodeRow]) -> dict[tuple[str, int], list[EpisodeRow]]:
    """Rows grouped by (suite, task_id), in that order."""
    groups: dict[tuple[str, int], list[EpisodeRow]] = {}
    for row in sorted(rows, key=lambda row: row.key):
        groups.setdefault((row.suite, row.task_id), []).append(row)
    return dict(sorted(groups.items()))


def _parse(line: bytes, where: str) -> EpisodeRow:
    values = parse_json(line, where)
    if not isinstance(values, dict):
        raise UserError(f"{where}: expected an object, got {type(values).__name__}")
    missing, unknown = sorted(_TYPES.keys() - values), sorted(values.keys() - _TYPES)
    if missing or unknown:
        raise UserError(f"{where}: missing fields {missing}, unknown fields {some(unknown)}")
    for name, expected in _TYPES.items():
        if type(values[name]) not in expected:
            raise UserError(
                f"{where}: field {name!r} must be {expected}, got {short(repr(values[name]))}"
            )
    try:
        return EpisodeRow(**values)
    except ValueError as error:
        raise UserError(f"{where}: {short(error)}") from error


# field name -> the exact JSON types it may have (an int may stand for a float)
_TYPES: dict[str, tuple[type, ...]] = {}
for _name, _hint in typing.get_type_hints(EpisodeRow).items():
    _options = (str,) if _hint == Outcome else typing.get_args(_hint) or (_hint,)
    _TYPES[_name] = (*_options, int) if float in _options else tuple(_options)


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)
