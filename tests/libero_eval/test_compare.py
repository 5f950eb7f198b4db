"""`invact libero compare` and `plan`: pairs, refusals, labels, corrections, required episodes."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.core.files import write_json
from invact_vla.stats import differences, rates
from libero_eval.report import compare, plan
from libero_eval.report.policies import read_policies
from libero_eval.results import statistics
from libero_eval.results.rows import EPISODES_FILE, EpisodeLog
from tests.libero_eval.rows import make_row

A = [True, False, False, True, False, False] * 4
B = [True, True, True, True, False, False] * 4


def rollout(
    folder: Path, policy: str, solved: Sequence[bool], seconds: float = 60, **changes
) -> Path:
    """A run folder of two tasks with half of the outcomes each; finished after `seconds`."""
    half = len(solved) // 2
    with EpisodeLog(folder / EPISODES_FILE) as log:
        for number, success in enumerate(solved):
            log.append(
                make_row(
                    policy_name=policy,
                    task_id=number // half,
                    task=f"KITCHEN_SCENE1_do_thing_{number // half}",
                    init_index=number % half,
                    outcome="success" if success else "failure",
                    **changes,
                )
            )
    write_json(folder / "done.json", {"key": "0", "seconds": seconds})
    return folder


def test_paired_comparison_is_printed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [rollout(tmp_path / "a", "none", A), rollout(tmp_path / "b", "invact", B)]
    words = [*map(str, folders), "--out", str(tmp_path / "out")]
    folder = compare.main(parse_config(compare.CompareConfig, words))
    printed = capsys.readouterr().out
    assert "invact against none: +33.3 percentage points" in printed
    assert "significant (alpha = 0.05, p = 0.008)" in printed
    assert "paired" in printed and "8 : 0" in printed and "4 : 0" in printed
    result = json.loads((tmp_path / "out" / "compare.json").read_text())["comparisons"][0]
    total = result["total"]["comparison"]
    assert (total["only_first"], total["only_second"]) == (0, 8)
    assert total["p_value"] == pytest.approx(2 / 2**8) == result["total"]["holm_p"]
    assert [t["comparison"]["p_value"] for t in result["tasks"]] == [2 / 2**4] * 2
    assert [t["holm_p"] for t in result["tasks"]] == [4 / 2**4] * 2
    html = (folder / "compare.html").read_text()
    assert "only invact" in html and "<script" not in html
    assert html.count('<i title="') == len(A)  # a square per episode
    assert "2 of 10 tasks, 24 of 500 episodes, procedural assets: not comparable" in html


def test_a_comparison_is_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [rollout(tmp_path / name, name, solved) for name, solved in {"a": A, "b": B}.items()]
    config = compare.CompareConfig(policies=tuple(folders), out=tmp_path / "out")
    assert compare.main(config) == tmp_path / "out" and (tmp_path / "out/done.json").exists()
    first, made = capsys.readouterr().out, (tmp_path / "out/compare.html").stat().st_mtime_ns
    compare.main(config)  # finished: the same is printed again, nothing is written
    assert capsys.readouterr().out == first
    assert (tmp_path / "out/compare.html").stat().st_mtime_ns == made
    other = compare.CompareConfig(policies=tuple(folders[::-1]), out=tmp_path / "out")
    with pytest.raises(UserError, match="--overwrite true"):
        compare.main(other)
    compare.main(replace(other, overwrite=True))
    assert "Compared with b" in (tmp_path / "out/compare.html").read_text()


def test_a_comparison_of_a_running_rollout_follows_its_episodes(tmp_path: Path) -> None:
    folders = [rollout(tmp_path / name, name, solved) for name, solved in {"a": A, "b": B}.items()]
    (folders[1] / "done.json").unlink()
    config = compare.CompareConfig(policies=tuple(folders), out=tmp_path / "out")
    compare.main(config)
    assert "b: The run is not finished" in (tmp_path / "out/compare.html").read_text()
    with EpisodeLog(folders[1] / EPISODES_FILE) as log:
        log.append(make_row(policy_name="b", task_id=1, init_index=40))
    with pytest.raises(UserError, match="other inputs"):
        compare.main(config)


def test_policies_that_hardly_differ_have_counts_and_no_differences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [rollout(tmp_path / name, name, A[:4]) for name in ("a", "b")]
    compare.main(compare.CompareConfig(policies=tuple(folders), out=tmp_path / "out"))
    html = (tmp_path / "out/compare.html").read_text()
    assert "no true difference would be found with 80" in html
    assert "With fewer than 6 discordant pairs no difference can be significant" in html
    for shown in (html.split("</nav>")[1], capsys.readouterr().out.split("\ntask ")[1]):
        assert "2/4" in shown and "p (Holm)" not in shown and "+0.0 [" not in shown


def test_several_arms_are_held_against_the_first_with_holm(tmp_path: Path) -> None:
    solved = {"none": A, "b": B, "c": B[::-1], "d": A}
    policies = read_policies([rollout(tmp_path / n, n, s) for n, s in solved.items()])
    results = compare.compare_policies(policies)
    raw = [r.total.comparison.p_value for r in results]
    assert [r.second.name for r in results] == ["b", "c", "d"]
    assert [r.total.holm_p for r in results] == differences.holm(raw)
    assert results[0].total.holm_p == pytest.approx(3 * 2 / 2**8)
    assert results[2].total.comparison.difference == 0 and results[2].total.holm_p == 1


def test_other_settings_are_refused_or_stand_before_every_line(tmp_path: Path) -> None:
    folders = [
        rollout(tmp_path / "a", "none", A),
        rollout(tmp_path / "b", "invact", B, protocol_hash="p1", pack="official"),
    ]
    config = compare.CompareConfig(policies=tuple(folders), out=tmp_path / "out")
    with pytest.raises(UserError, match=r"protocol_hash.*p1.*pack.*official.*--across true"):
        compare.main(config)
    assert not (tmp_path / "out").exists()
    [result] = compare.compare_policies(read_policies(folders), across=True)
    lines = [line for line in compare.text(result).splitlines() if not line.startswith("!")]
    assert sum(line.startswith("[across protocol_hash, pack]") for line in lines) == 4
    assert len(lines) == 5  # a sentence, the head, two tasks, all
    assert "Differs: protocol_hash ['p0'] against ['p1']." in compare.notes(result)


def test_other_episodes_make_it_unpaired_and_it_says_so(tmp_path: Path) -> None:
    folders = [rollout(tmp_path / "a", "none", A), rollout(tmp_path / "b", "invact", B[:-4])]
    [result] = compare.compare_policies(read_policies(folders))
    c = result.total.comparison
    assert not c.is_paired and c.p_value == differences.compare_unpaired(8, 24, 14, 20).p_value
    text = compare.text(result)
    assert "unpaired (other episodes)" in text and "not paired" in text
    assert "Episodes: 24 and 20, 20 of them shared" in text


def test_tasks_of_one_alone_are_not_compared(tmp_path: Path) -> None:
    both, second = rollout(tmp_path / "a", "none", A), tmp_path / "b"
    with EpisodeLog(second / EPISODES_FILE) as log:
        for init in range(12):
            log.append(
                make_row(policy_name="invact", task_id=1, init_index=init, outcome="success")
            )
    [result] = compare.compare_policies(read_policies([both, second / EPISODES_FILE]))
    c = result.total.comparison
    assert c.is_paired and (c.n_first, c.only_first, c.only_second) == (12, 0, 8)
    assert any("0 only in none: not compared" in note for note in compare.notes(result))
    with EpisodeLog(tmp_path / "c" / EPISODES_FILE) as log:
        log.append(make_row(policy_name="other", task_id=7, outcome="success"))
    with pytest.raises(UserError, match="none and other share no task"):
        compare.compare_policies(read_policies([both, tmp_path / "c"]))


def test_errors_refuse_a_comparison(tmp_path: Path) -> None:
    first = rollout(tmp_path / "a", "none", A)
    second = rollout(tmp_path / "b", "invact", B)
    with EpisodeLog(second / EPISODES_FILE) as log:
        log.append(make_row(policy_name="invact", task_id=5, outcome="error", reason="GL is gone"))
    with pytest.raises(statistics.RateRefused, match="GL is gone"):
        compare.compare_policies(read_policies([first, second]))


def test_run_that_stopped_early_is_compared_by_a_confidence_sequence(tmp_path: Path) -> None:
    first, second = rollout(tmp_path / "a", "none", A), rollout(tmp_path / "b", "invact", B)
    counted = [(task, init) for task in range(2) for init in range(6)]
    write_json(second / "early_stop.json", {"why": "narrow enough", "counted": counted})
    [result] = compare.compare_policies(read_policies([first, second]))
    c = result.total.comparison
    assert (c.n_first, c.n_second, c.only_second) == (12, 12, 4) and "e-value" in c.method
    assert (c.low, c.high) == rates.difference_sequence(0, 8, 4)
    assert c.p_value > differences.mcnemar(0, 4)
    assert any("12 episodes beyond" in note for note in compare.notes(result))


def test_equal_names_are_told_apart_and_equal_folders_refused(tmp_path: Path) -> None:
    folders = [rollout(tmp_path / "a", "x", A), rollout(tmp_path / "b", "x", B)]
    assert [policy.name for policy in read_policies(folders)] == [
        f"x ({folder})" for folder in folders
    ]
    with pytest.raises(UserError, match="twice"):
        read_policies([folders[0], folders[0]])
    with pytest.raises(UserError, match="at least two"):
        parse_config(compare.CompareConfig, ["only_one"])


# -- plan


@pytest.mark.parametrize("text", ["8pp", "0.08", "8 %", " 8 pp"])
def test_differences_in_any_spelling(text: str) -> None:
    assert plan.fraction(text) == pytest.approx(0.08)


@pytest.mark.parametrize("text", ["", "8", "0", "100pp", "-8pp", "8points", "1.2.3pp"])
def test_other_spellings_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"8pp or 0\.08"):
        plan.fraction(text)


def test_plan_says_what_eight_points_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = rollout(tmp_path / "a", "none", A, seconds=24 * 60)  # 24 episodes, one a minute
    words = ["--detect", "8pp", "--base", "0.44", "--agreement", "0.7", "--run", str(run)]
    found = {need.name: need for need in plan.main(parse_config(plan.PlanConfig, words))}
    printed = capsys.readouterr().out
    paired, unpaired = found["paired, 70 % alike"], found["unpaired"]
    assert paired.episodes is not None and unpaired.episodes is not None
    assert 350 < paired.episodes < 400 and 600 < unpaired.episodes < 700
    for need in (paired, unpaired):
        assert need.episodes is not None
        assert need.power_of(need.episodes) >= 0.8 > need.power_of(need.episodes - 1)
    assert "500 episodes per policy here" in printed
    # 39 a task, 10 tasks, 2 policies, 60 an hour
    [line] = [line for line in printed.splitlines() if line.startswith("paired, 70 % alike")][:1]
    assert line.split()[-4:] == [str(paired.episodes), "39", "780", "13.0"]
    # the unpaired z test of 44 against 52 %
    chances = [found["unpaired (z)"].power_of(n) for n in plan.LADDER]
    assert chances == pytest.approx([0.12, 0.20, 0.36, 0.72, 0.95], abs=0.01)


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(ValueError, match="stay in"):
        plan.PlanConfig(base=0.95, detect="8pp")
    with pytest.raises(ValueError, match=r"agreement 0\.95 is impossible"):
        plan.PlanConfig(base=0.44, agreement=0.95)
    with pytest.raises(ValueError, match=r"between 0\.70 and"):
        plan.PlanConfig(base=0.81, agreement=0.6)
