"""Rows survive kills, are never doubled, and are read strictly."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from invact_vla.core.errors import UserError
from libero_eval.results.rows import EpisodeLog, by_task, read_episodes
from tests.libero_eval.rows import make_row, make_rows
from tests.paths import REPOSITORY


def write(path: Path, *rows: object) -> None:
    with EpisodeLog(path) as log:
        for row in rows:
            log.append(row)  # type: ignore[arg-type]


def test_round_trip_sorted_by_key(tmp_path: Path) -> None:
    rows = [make_row(task_id=t, init_index=i, closest_m=None) for t in (1, 0) for i in (2, 0)]
    write(tmp_path / "episodes.jsonl", *rows)
    assert read_episodes(tmp_path) == sorted(rows, key=lambda row: row.key)
    assert list(by_task(rows)) == [("libero_10", 0), ("libero_10", 1)]


@pytest.mark.parametrize("cut", [1, 40, 300])
def test_a_torn_last_line_is_dropped_and_overwritten(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "episodes.jsonl"
    rows = make_rows([True, False, True])
    write(path, *rows)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_episodes(path) == rows[:2]
    write(path, rows[2])
    assert read_episodes(path) == rows


def test_an_error_may_be_repeated_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    error = make_row(outcome="error", reason="worker died")
    good = make_row(outcome="success")
    with EpisodeLog(path) as log:
        log.append(error)
        assert not log.done(good.key)
        log.append(good)
        assert log.done(good.key)
        with pytest.raises(ValueError, match="already"):
            log.append(good)
    assert read_episodes(path) == [good]
    with path.open("a") as file:
        file.write(json.dumps(asdict(good)) + "\n")
    with pytest.raises(UserError, match=r"jsonl:3: episode .* is recorded twice"):
        read_episodes(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": "170"}, "'steps' must be"),
        ({"steps": True}, "'steps' must be"),
        ({"outcome": "crash"}, "outcome must be one of"),
        ({"extra": 1}, "unknown fields extra"),
        ({"goals_satisfied": 3}, "goals_satisfied"),
    ],
)
def test_a_damaged_row_is_named(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "episodes.jsonl"
    path.write_text(json.dumps({**asdict(make_row()), **change}) + "\n")
    with pytest.raises(UserError, match=rf"episodes.jsonl:1: .*{message}"):
        read_episodes(path)


def test_garbage_in_the_middle_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "episodes.jsonl"
    with pytest.raises(UserError, match="no episodes at"):
        read_episodes(path)
    path.write_text('{"policy": \n' + json.dumps(asdict(make_row())) + "\n")
    with pytest.raises(UserError, match="jsonl:1 is not valid JSON"):
        read_episodes(path)
    path.write_text("{}\n")
    with pytest.raises(UserError, match=r"missing fields .*'policy_name'"):
        read_episodes(path)


def test_rows_of_equal_runs_are_equal_without_their_duration() -> None:
    assert make_row(wall_s=1.0).without_time() == make_row(wall_s=2.0).without_time()


def test_errors_of_init_states_that_do_not_exist_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a run left them that began before its init states were checked: what finished counts."""
    path = tmp_path / "episodes.jsonl"
    with EpisodeLog(path) as log:
        for init in (47, 48, 49):
            log.append(make_row(init_index=init))
        for init in (50, 51):
            reason = f"task, init state {init}, step 0: task: init states 0..49, got {init}"
            log.append(make_row(init_index=init, outcome="error", reason=reason))
        log.append(make_row(init_index=3, outcome="error", reason="GL is gone"))
    rows = read_episodes(path)
    assert [row.init_index for row in rows] == [3, 47, 48, 49]
    assert "2 rows of init states that do not exist (50, 51) are left out" in caplog.text


def test_an_error_needs_a_reason() -> None:
    with pytest.raises(ValueError, match="needs a reason"):
        make_row(outcome="error", reason=" ")


FULL = """
import resource, sys
from pathlib import Path
from libero_eval.results.rows import EpisodeLog
from tests.libero_eval.rows import make_rows
path, room = Path(sys.argv[1]), int(sys.argv[2])
rows = make_rows([True, False, True])
with EpisodeLog(path) as log:
    log.append(rows[0])
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + room, -1))
    log.append(rows[1])
"""


@pytest.mark.parametrize("room", [0, 1, 300])
def test_a_full_disk_leaves_no_part_of_a_row(tmp_path: Path, room: int) -> None:
    """The system itself cuts the write off after `room` bytes."""
    path = tmp_path / "episodes.jsonl"
    rows = make_rows([True, False, True])
    write(path, rows[0])
    size = path.stat().st_size
    path.unlink()
    run = subprocess.run(
        [sys.executable, "-c", FULL, str(path), str(room)],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 1 and "UserError: could not record libero_10 task 0" in run.stderr
    assert "File too large" in run.stderr and "init state 1" in run.stderr
    assert path.stat().st_size == size and read_episodes(path) == rows[:1]
    write(path, *rows[1:])
    assert read_episodes(path) == rows


def test_rows_are_not_written_through_a_link(tmp_path: Path) -> None:
    target = tmp_path / "precious.txt"
    target.write_text("a line\nand no end")
    run = tmp_path / "run"
    run.mkdir()
    (run / "episodes.jsonl").symlink_to(target)
    with pytest.raises(UserError, match="outside of it"):
        EpisodeLog(run / "episodes.jsonl")
    assert target.read_text() == "a line\nand no end"


@pytest.mark.parametrize(
    "line", ["[" * 100_000, "9" * 5000, '{"policy": ' + "[" * 50_000, "\xff", "[1]"]
)
def test_lines_of_strangers(tmp_path: Path, line: str) -> None:
    (tmp_path / "episodes.jsonl").write_bytes(line.encode("latin1") + b"\n")
    with pytest.raises(UserError, match=r"jsonl:1") as error:
        read_episodes(tmp_path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1500
