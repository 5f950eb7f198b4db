"""`invact libero report`: the table, the page with linked videos, Parquet and CSV."""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.core.files import write_json
from invact_vla.stats.rates import rate_sequence
from libero_eval.report import run
from libero_eval.report.lines import caveats, deviations, lines_of, scope_line, throughput
from libero_eval.report.policies import read_policy
from libero_eval.report.run import min_distance
from libero_eval.results.rows import EPISODES_FILE, EpisodeLog
from libero_eval.rollout.episode_video import EpisodeVideo
from tests.app.report.fixture import rollouts
from tests.libero_eval.rows import make_row


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of three tasks, six init states each, the first of each filmed."""
    rollouts(tmp_path / "run", "invact", 6)
    write_json(tmp_path / "run" / "done.json", {"key": "0", "seconds": 100.0})
    return tmp_path / "run"


def test_report_is_printed_and_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [page] = run.main(parse_config(run.ReportConfig, [str(folder)]))
    printed = capsys.readouterr().out
    rows = read_policy(folder).rows
    solved = sum(row.outcome == "success" for row in rows)
    assert f"invact: {solved}/18" in printed and str(page) in printed
    assert re.search(r"all +\d+/18 +\d+\.\d % \[\d+\.\d, \d+\.\d\]", printed)
    assert "protocol: libero_10/openvla\n" in printed and "protocol hash: p0" in printed
    assert "episodes/h" in printed
    scope = (
        "3 of 10 tasks, 18 of 500 episodes, procedural assets: not comparable with published rates"
    )
    assert scope in printed
    html = page.read_text()
    assert f'<p class="scope">{scope}</p>' in html
    assert page == folder / "report.html" and "<script" not in html
    assert "<b>_mug" not in html  # instructions are escaped
    for source in re.findall(r'<video[^>]* src="([^"]+)"', html):
        assert (folder / source).exists()
    assert html.count("<video") == 3 == html.count('poster="data:image/jpeg')
    assert html.count('<figure class="success"') + html.count('<figure class="failure"') == 3
    assert html.count('class="interval"') == 4  # a bar a task, and of all


def test_the_scope_names_what_differs_from_the_whole_protocol() -> None:
    whole = [
        make_row(task_id=task, init_index=init, pack="official")
        for task in range(10)
        for init in range(50)
    ]
    assert deviations(whole) == []
    assert deviations(whole[:-1]) == ["499 of 500 episodes"]
    short = [make_row(protocol="libero_10/openvla, max_steps 40", pack="official")]
    assert deviations(short) == ["1 of 10 tasks", "1 of 500 episodes", "max_steps 40"]
    own = [make_row(protocol="kitchen/openvla")]
    assert deviations(own) == ["tasks that LIBERO does not have"]


def test_the_scope_of_policies_that_ran_unequally(tmp_path: Path) -> None:
    policies = [
        read_policy(rollouts(tmp_path / name, name, n))
        for name, n in {"none": 2, "lapa": 3}.items()
    ]
    assert scope_line(policies[:1]).startswith("3 of 10 tasks, 6 of 500 episodes, procedural")
    assert scope_line(policies).startswith("none: 3 of 10 tasks, 6 of 500 episodes, procedural")
    assert "; lapa: 3 of 10 tasks, 9 of 500" in scope_line(policies)


def test_captions_stand_above_the_picture(tmp_path: Path) -> None:
    """A player's controls cover the lower edge."""
    video = EpisodeVideo(tmp_path / "a.mp4", "put the mug on the plate", size_px=64)
    frame = np.random.default_rng(0).integers(0, 200, (64, 64, 3), np.uint8)
    composed = video._compose(3, frame, "success")
    assert (composed[-64:] == frame).all() and composed.shape[0] % 2 == 0
    assert (composed[:-64] < 100).any(axis=(1, 2)).sum() > 20  # lines of text


def test_tables_hold_every_row(folder: Path) -> None:
    run.main(run.ReportConfig(runs=(folder,)))
    rows = read_policy(folder).rows
    table = parquet.read_table(folder / "episodes.parquet").to_pylist()
    assert [row["outcome"] for row in table] == [row.outcome for row in rows]
    assert all(row["counted"] for row in table)
    with (folder / "episodes.csv").open() as file:
        assert [int(row["init_index"]) for row in csv.DictReader(file)] == [
            row.init_index for row in rows
        ]


def test_throughput_comes_from_the_rows_and_the_wall_clock(folder: Path) -> None:
    speed = throughput(read_policy(folder))
    assert speed is not None
    assert speed.episodes_per_hour == pytest.approx(3600 / 1.5)
    assert speed.run_episodes_per_hour == pytest.approx(18 * 36)
    rows = read_policy(folder).rows
    assert speed.steps_per_s == pytest.approx(sum(row.steps for row in rows) / (18 * 1.5))


def test_no_rate_while_errors_exist(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with EpisodeLog(folder / EPISODES_FILE) as log:
        log.append(
            make_row(policy_name="invact", task_id=9, outcome="error", reason="GL is gone\nxyz")
        )
    [page] = run.main(run.ReportConfig(runs=(folder,), tables=False))
    total = lines_of(read_policy(folder))[-1]
    assert total.rate is None and total.errors == 1
    assert total.goals_best is None and total.goals_satisfied is None
    for shown in (capsys.readouterr().out, page.read_text()):
        assert "GL is gone" in shown and "/19, 1 error" in shown and "no rate" in shown
    assert "xyz" in page.read_text()  # the whole reason
    assert not (folder / "episodes.csv").exists()


def test_unfinished_and_early_stopped_runs_say_so(folder: Path) -> None:
    counted = [(task, init) for task in range(3) for init in range(2)]
    write_json(folder / "early_stop.json", {"why": "the interval is narrow", "counted": counted})
    policy = read_policy(folder)
    total = lines_of(policy)[-1]
    assert len(policy.rows) == 6 and len(policy.left_out) == 12 and total.rate is not None
    assert (total.rate.low, total.rate.high) == rate_sequence(total.successes, 6)
    assert "12 episodes beyond the last whole round are not counted" in caveats(policy)[0]
    (folder / "early_stop.json").unlink()
    (folder / "done.json").unlink()
    assert "not finished" in caveats(read_policy(folder))[0]


def test_failures_are_sorted_by_how_near_they_came() -> None:
    far = make_row(goals_best=0, closest_m=0.3)
    near = make_row(goals_best=0, closest_m=0.02)
    half = make_row(goals_best=1, closest_m=0.5)
    unknown = make_row(goals_best=0, closest_m=None)
    assert sorted([unknown, far, half, near], key=min_distance) == [half, near, far, unknown]


def test_damaged_video_has_no_poster_but_a_link(folder: Path) -> None:
    for path in (folder / "videos").glob("*.mp4"):
        path.write_bytes(b"not a video")
    html = run.main(run.ReportConfig(runs=(folder,)))[0].read_text()
    assert html.count("<video") == 3 and "poster=" not in html


def test_folder_without_episodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no episodes at"):
        run.main(run.ReportConfig(runs=(tmp_path,)))
    with pytest.raises(ValueError, match="at least one run"):
        run.ReportConfig(runs=())
