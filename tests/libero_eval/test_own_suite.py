"""A folder of own tasks as a suite: order, words, init states, protocols, and an episode."""

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from invact_vla.core.errors import UserError
from libero_eval.env import scene
from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.init_states import check_range, init_states
from libero_eval.env.protocol import get_protocol
from libero_eval.env.sim import LiberoSim
from libero_eval.env.tasks import (
    init_file,
    instruction,
    problem_name,
    task_instruction,
    task_name,
    task_names,
)
from libero_eval.policies import NoopConfig
from libero_eval.rollout.command import RolloutConfig, jobs_of, protocol_of
from tests.libero_eval.own_tasks import NAME, TASK, WORDS, write_task


@pytest.fixture
def suite(tmp_path: Path) -> str:
    """Three tasks; the second has four init states."""
    folder = tmp_path / "mine"
    for name in ("task_b", "task_a", "Task_c"):
        write_task(folder, name, f"{WORDS} {name}")
    states = init_states("libero_10", TASK)
    assert states is not None
    np.save(folder / "task_a.npy", states[:4])
    return str(folder)


def test_tasks_and_words(suite: str) -> None:
    assert task_names(suite) == ("Task_c", "task_a", "task_b")
    assert [task_instruction(suite, i) for i in range(3)] == [
        f"{WORDS} {name}" for name in task_names(suite)
    ]
    with pytest.raises(UserError, match=r"has tasks 0\.\.2, got task 3"):
        task_name(suite, 3)


def test_words_come_from_the_name_where_there_are_no_others(tmp_path: Path) -> None:
    write_task(tmp_path, "KITCHEN_SCENE1_open_the_box", words=None)
    write_task(tmp_path, NAME, words="not these")
    assert task_instruction(str(tmp_path), 0) == "open the box"
    assert task_instruction(str(tmp_path), 1) == instruction(NAME), "a task of LIBERO's stays one"


def test_layout_of_libero(tmp_path: Path) -> None:
    write_task(tmp_path / "bddl_files", "one")
    (tmp_path / "init_files").mkdir()
    source = init_file("libero_10", NAME)
    assert source is not None
    (tmp_path / "init_files" / "one.pruned_init").write_bytes(source.read_bytes())
    found, expected = init_states(str(tmp_path), 0), init_states("libero_10", TASK)
    assert found is not None and expected is not None and np.array_equal(found, expected)


def test_init_states_of_another_name_are_not_passed_over(tmp_path: Path) -> None:
    write_task(tmp_path, "put_the_cup")
    assert init_states(str(tmp_path), 0) is None, "random layouts, where there are no files at all"
    source = init_file("libero_10", NAME)
    assert source is not None
    other = tmp_path / "init_files" / "put_cup.pruned_init"
    other.parent.mkdir()
    other.write_bytes(source.read_bytes())
    with pytest.raises(UserError, match=r"put_the_cup has no init states.*put_cup\.pruned_init"):
        get_protocol(str(tmp_path)).hash  # noqa: B018
    other.rename(other.with_name("put_the_cup.init"))
    states = init_states(str(tmp_path), 0)
    assert states is not None and len(states) == 50


def test_protocols(suite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = get_protocol(f"{suite}/oft")
    assert protocol.key == "mine/oft" and protocol.max_steps == 520
    assert protocol.cameras == ("agentview", "wrist")
    monkeypatch.chdir(tmp_path)
    for protocol_name, given in (
        ("mine", ""),
        ("mine/openvla", ""),
        ("libero_10/openvla", "mine/"),
    ):
        same = get_protocol(protocol_name, given)
        assert (same.suite, same.key) == (suite, "mine/openvla")
    before = protocol.hash
    Path(suite).rename(tmp_path / "moved")
    (tmp_path / "moved").rename(tmp_path / "mine")
    assert get_protocol("mine/oft").hash == before
    write_task(Path(suite), "task_b", "other words")
    assert get_protocol("mine/oft").hash != before, "another task is another protocol"
    assert get_protocol("libero_10/openvla", "libero_goal").key == "libero_goal/openvla"
    for wrong in ("nowhere/openvla", "nowhere", "libero_11/openvla"):
        with pytest.raises(UserError, match=r"unknown protocol.*FOLDER/openvla"):
            get_protocol(wrong)
    with pytest.raises(UserError, match=r"no folder .*nowhere"):
        get_protocol("libero_10/openvla", "./nowhere")


def test_episodes(suite: str, tmp_path: Path) -> None:
    config = RolloutConfig(out=tmp_path / "x", policy=NoopConfig(), suite=suite, max_steps=9)
    assert protocol_of(config).key == "mine/openvla, max_steps 9"
    jobs = [(job.task_id, job.init_index) for job in jobs_of(config)]
    assert len(jobs) == 50 + 4 + 50 and (1, 3) in jobs and (1, 4) not in jobs
    with pytest.raises(UserError, match=r"task_a\) has 4 init states, 0\.\.3; asked for 2\.\.4"):
        check_range(suite, 1, 2, 3)
    check_range(suite, 0, 0, 1000)


def test_angles_are_numbers_of_pi_too(tmp_path: Path) -> None:
    path = tmp_path / "turned.bddl"
    angles = "(:yaw_rotation ((-1.5 +.5) (pi/2 -2e-3)\n))"
    path.write_text(f"(define (problem X) (:regions (a {angles})) (:goal (And)))")
    assert problem_name(path) == "X"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", r"no \(define \(problem NAME\)"),
        ("(define (problem X) (:goal (And))", "unbalanced"),
        ("(define (problem X))", r"no \(:goal"),
        ("(define (problem X) (:gaol (On a b)) (:goal (And)))", r"unknown part \(:gaol"),
        ("(define (problem X) (:yaw_rotation ((exit() 1))) (:goal (And)))", "rotation"),
        ("(define (problem X) (:YAW_rotation (a ((0 0)))) (:goal (And)))", "rotation"),
        ("(define (problem X) (:yaw_rotation ((0 0) (9**9 0))) (:goal (And)))", "rotation"),
        (b"\xff\xfe", "cannot be read as text"),
    ],
)
def test_files_that_are_no_tasks_are_named(tmp_path: Path, content: str | bytes, said: str) -> None:
    path = tmp_path / "broken.bddl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=rf"broken\.bddl.*{said}"):
        problem_name(path)
    with pytest.raises(UserError, match=r"expected <task>\.bddl files"):
        task_names(str(tmp_path / ".." / tmp_path.name / "." / ".." / ".."))


@pytest.mark.parametrize(
    ("goal", "said"),
    [
        ([], "every episode would be a success"),
        ([["on", "a", "b"], ["ontop", "a", "b"]], r"cannot be evaluated: \['ontop', 'a', 'b'\]"),
        ([["on", "a", "b", "c"]], "cannot be evaluated"),
    ],
)
def test_goals_that_are_none_are_named(goal: list[list[str]], said: str) -> None:
    holds = {("on", "a", "b"): False, ("on", "a", "b", "c"): None}
    env = SimpleNamespace(
        parsed_problem={"goal_state": goal}, _eval_predicate=lambda words: holds[tuple(words)]
    )
    with pytest.raises(ValueError, match=said):
        scene._check_goal(env)
    env.parsed_problem["goal_state"] = [["on", "a", "b"]]
    scene._check_goal(env)


def test_a_file_that_is_no_task_ends_a_rollout_before_it_begins(suite: str, tmp_path: Path) -> None:
    path = Path(suite) / "task_b.bddl"
    path.write_text(path.read_text().replace("(:goal", "(:gaol"))
    config = RolloutConfig(out=tmp_path / "x", policy=NoopConfig(), suite=suite, tasks=(2,))
    with pytest.raises(UserError, match=r"task_b\.bddl.*unknown part \(:gaol"):
        jobs_of(config)
    assert len(jobs_of(replace(config, tasks=(1,)))) == 4


def test_init_states_that_are_none_are_named(suite: str) -> None:
    path = Path(suite) / "task_a.npy"
    for content in (b"x", b""):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"task_a\.npy is no \.npy file"):
            init_states(suite, 1)
    np.save(path, np.zeros(3))
    with pytest.raises(UserError, match=r"expected float64 \(N, 1 \+ nq \+ nv\)"):
        init_states(suite, 1)


@pytest.mark.slow
def test_an_own_task_runs(suite: str, tmp_path: Path) -> None:
    """The same scene as LIBERO's from the same init states; random layouts by seed where there are
    none; what LIBERO cannot build is named."""
    assets = ProceduralPack().build()
    own, libero = LiberoSim(suite, 1, assets), LiberoSim("libero_10", TASK, assets)
    own.reset(2)
    libero.reset(2)
    assert own.instruction == f"{WORDS} task_a" and np.array_equal(own.state(), libero.state())
    own.close()
    libero.close()
    free = LiberoSim(suite, 2, assets)
    hashes = []
    for index in (0, 1, 0):
        free.reset(index, settle=False)
        assert free.init_index == index
        hashes.append(free.state_hash())
    assert hashes[0] == hashes[2] != hashes[1]
    free.close()
    path = write_task(tmp_path / "bad", "bad")
    path.write_text(path.read_text().replace("- white_yellow_mug", "- green_elephant"))
    with pytest.raises(UserError, match=r"LIBERO cannot build .*bad\.bddl: .*green_elephant"):
        LiberoSim(str(tmp_path / "bad"), 0, assets).reset(0)
