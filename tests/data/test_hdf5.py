"""LIBERO's HDF5 files and their relatives: what is read, and what each bad one is told."""

import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from invact_vla.core.errors import UserError
from invact_vla.data.dataset import (
    DatasetConfig,
    EpisodeInfo,
    EpisodeNumbers,
    long_enough,
    require,
)
from invact_vla.data.instructions import choose_instruction, says_a_task
from invact_vla.data.readers import open_dataset
from invact_vla.data.readers.libero_hdf5 import natural_order
from invact_vla.data.stored_dataset import StoredDataset, first_of_each_task
from tests.data.demos import NAME, SIZE, demonstration, one_file, write_hdf5


def opened(path: Path, **options: object) -> StoredDataset:
    return open_dataset(DatasetConfig(path=path, **options))  # pyright: ignore[reportArgumentType]


def test_what_is_read(tmp_path: Path) -> None:
    dataset = opened(one_file(tmp_path))
    assert dataset.episodes[1] == EpisodeInfo("demo_1", NAME[:-5], "open the top drawer", 12)
    assert dataset.cameras == ("agentview", "wrist")
    assert (dataset.action_dim, dataset.state_dim) == (7, 8)
    assert dataset.action_mask == (True,) * 6 + (False,)
    stored, numbers = demonstration(1), dataset.numbers(1)
    np.testing.assert_array_equal(numbers.actions[:, :6], stored["actions"][:, :6])
    np.testing.assert_array_equal(numbers.actions[:, 6], (1 - stored["actions"][:, 6]) / 2)
    parts = [stored[f"obs/{n}"] for n in ("ee_pos", "ee_ori", "gripper_states")]
    np.testing.assert_array_equal(numbers.state, np.concatenate(parts, 1).astype(np.float32))
    for camera, key in (("agentview", "agentview_rgb"), ("wrist", "eye_in_hand_rgb")):
        upright = stored[f"obs/{key}"][:, ::-1, ::-1]
        np.testing.assert_array_equal(dataset.frames(1, camera), upright)
    with pytest.raises(UserError, match="no camera 'left', it has"):
        dataset.frames(0, "left")


def test_key_and_pickle(tmp_path: Path) -> None:
    path = one_file(tmp_path)
    dataset = opened(path)
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy.numbers(0).actions, dataset.numbers(0).actions)
    assert copy.key == opened(path).key != opened(path, rotation="none").key
    one_file(tmp_path, count=3)
    assert opened(path).key != dataset.key


def test_expert_actions_are_learned_from(tmp_path: Path) -> None:
    expert = demonstration(5)["actions"]
    dataset = opened(one_file(tmp_path, expert_actions=expert))
    np.testing.assert_array_equal(dataset.numbers(0).actions[:, :6], expert[:, :6])
    dataset = opened(tmp_path, action="actions")
    assert not np.array_equal(dataset.numbers(0).actions[:, :6], expert[:, :6])


@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(min_value=1, max_value=8))
def test_chunks_of_the_experts_alone(executed: list[bool], chunk: int) -> None:
    numbers = EpisodeNumbers(np.zeros((len(executed), 7)), None, np.array(executed))
    whole = range(len(executed) - chunk + 1)
    assert numbers.starts(chunk).tolist() == [s for s in whole if all(executed[s : s + chunk - 1])]
    assert replace(numbers, executed=None).starts(chunk).tolist() == list(whole)


def test_interventions_are_read_where_the_experts_actions_are(tmp_path: Path) -> None:
    turns = np.arange(12) % 3 > 0
    arrays = {"expert_actions": demonstration(1)["actions"], "interventions": turns.astype("u1")}
    path = one_file(tmp_path, **arrays)
    np.testing.assert_array_equal(open_dataset(DatasetConfig(path=path)).numbers(0).executed, turns)
    chosen = DatasetConfig(path=path, action="actions")
    assert open_dataset(chosen).numbers(0).executed is None, "what was executed, was executed"


@pytest.mark.parametrize(
    "bad", [np.ones(11, "u1"), np.ones((12, 1), "u1"), np.full(12, np.nan), np.full(12, 2)]
)
def test_bad_interventions(bad: np.ndarray, tmp_path: Path) -> None:
    path = one_file(tmp_path, expert_actions=demonstration(1)["actions"], interventions=bad)
    with pytest.raises(UserError, match="interventions"):
        open_dataset(DatasetConfig(path=path)).numbers(0)


def test_groups_of_any_name_beside_others(tmp_path: Path) -> None:
    demos = {name: demonstration(i) for i, name in enumerate(["demo10", "demo2", "episode_a"])}
    path = write_hdf5(tmp_path / NAME, demos)
    with h5py.File(path, "a") as file:
        file.create_group("mask/train")
        file.create_group("data/statistics")["mean"] = np.zeros(7)
        file["data/note"] = "words"
    assert [e.name for e in opened(path).episodes] == ["demo2", "demo10", "episode_a"]


def test_a_group_without_actions_is_damage(tmp_path: Path) -> None:
    demos = {"demo_0": demonstration(), "demo_1": {**demonstration(), "actions": None}}
    path = write_hdf5(tmp_path / NAME, demos)
    with pytest.raises(UserError, match="demo_1 has obs but no actions"):
        opened(path)
    path = write_hdf5(tmp_path / NAME, {"demo_0": demonstration(), "demo_12": {}, "mask": {}})
    with pytest.raises(UserError, match="demo_12 has no actions: it has nothing"):
        opened(path)


def test_what_one_demonstration_lacks_is_said_with_its_file(tmp_path: Path) -> None:
    demos = {"demo_0": demonstration(), "demo_1": {**demonstration(), "obs/eye_in_hand_rgb": None}}
    dataset = opened(write_hdf5(tmp_path / NAME, demos))
    with pytest.raises(
        UserError, match=r"_demo\.hdf5, demo_1: no eye_in_hand_rgb, which the first"
    ):
        dataset.frames(1, "wrist")


@pytest.mark.parametrize(
    ("name", "language", "expected"),
    [
        ("demo1", "open the drawer", "open the drawer"),
        ("my_data_3", "open the drawer", "open the drawer"),
        ("KITCHEN_SCENE1_open_the_drawer_demo", "Open the drawer", "open the drawer"),
        ("KITCHEN_SCENE10_open_the_drawer_demo", None, "open the drawer"),
        (
            "KITCHEN_SCENE1_open_the_drawer_demo",
            "close the microwave door",
            "close the microwave door",
        ),
        ("open_the_drawer_part2_demo", "open the drawer", "open the drawer"),
        ("open_the_drawer_3", "open the drawer", "open the drawer"),
        ("open_the_drawer_demo_3", None, "open the drawer"),
        ("open_the_drawer_v2", None, "open the drawer"),
        ("press_button_2_demo", "press button 2", "press button 2"),
        ("press_the_button_2_demo", None, "press the button 2"),
        ("demo_1", None, None),
        ("episode_a", None, None),
    ],
)
def test_words(name: str, language: str | None, expected: str | None, tmp_path: Path) -> None:
    assert choose_instruction(Path(f"{name}.hdf5"), language) == expected
    path = write_hdf5(tmp_path / f"{name}.hdf5", {"demo_0": demonstration()}, language=language)
    if expected is None:
        with pytest.raises(UserError, match=r"say --data\.instruction"):
            opened(path)
        assert opened(path, instruction="lift it").episodes[0].instruction == "lift it"
    else:
        assert opened(path).episodes[0].instruction == expected


@pytest.mark.parametrize(
    "words", ["open the drawer", np.bytes_("open the drawer"), np.array(["open the drawer"], "O")]
)
@pytest.mark.parametrize("key", ["language_instruction", "instruction"])
def test_words_in_an_attribute(key: str, words: object, tmp_path: Path) -> None:
    path = write_hdf5(tmp_path / "demo1.hdf5", {"demo_0": demonstration()}, {key: words})
    assert opened(path).episodes[0].instruction == "open the drawer"
    path = write_hdf5(tmp_path / "demo1.hdf5", {"demo_0": demonstration()}, language='"lift it"')
    assert opened(path).episodes[0].instruction == "lift it"


def test_demonstrations_with_words_of_their_own_are_tasks_of_their_own(tmp_path: Path) -> None:
    path = write_hdf5(
        tmp_path / "kitchen_multitask.hdf5", {f"d{i}": demonstration() for i in "012"}
    )
    with h5py.File(path, "a") as file:
        for i, words in enumerate(["open it", "close it", "open it"]):
            file[f"data/d{i}"].attrs["language_instruction"] = words
    found = [(e.task, e.instruction) for e in opened(path).episodes]
    assert found == [("open it",) * 2, ("close it",) * 2, ("open it",) * 2]


def test_files_that_say_nothing_are_grouped_by_their_words(tmp_path: Path) -> None:
    for i in range(3):
        write_hdf5(tmp_path / f"demo{i}.hdf5", {"demo_0": demonstration(i)}, language="lift it now")
    dataset = opened(tmp_path)
    assert {e.task for e in dataset.episodes} == {"lift it now"}
    assert [e.name for e in dataset.episodes] == [f"demo{i}/demo_0" for i in range(3)]
    assert len(opened(tmp_path, max_demos=2).episodes) == 2


def test_unsigned_grippers(tmp_path: Path) -> None:
    """0..1 is trained right where the fingers tell, and refused where they do not."""
    stored = demonstration()["actions"]
    opened_hand = stored.copy()
    opened_hand[:, 6] = (1 - stored[:, 6]) / 2  # 1 open
    dataset = opened(one_file(tmp_path, actions=opened_hand))
    np.testing.assert_array_equal(dataset.numbers(0).actions[:, 6], opened_hand[:, 6])
    demos = {"demo_0": {**demonstration(fingers=False), "actions": opened_hand}}
    path = write_hdf5(tmp_path / "b" / NAME, demos)
    with pytest.raises(UserError, match=r"--data\.gripper"):
        opened(path).numbers(0)
    dataset = opened(path, gripper="open_is_zero")
    np.testing.assert_array_equal(dataset.numbers(0).actions[:, 6], 1 - opened_hand[:, 6])


def test_opencv_is_upright(tmp_path: Path) -> None:
    path = write_hdf5(
        tmp_path / NAME, {"demo_0": demonstration()}, {"macros_image_convention": "opencv"}
    )
    stored = demonstration()["obs/agentview_rgb"]
    np.testing.assert_array_equal(opened(path).frames(0, "agentview"), stored)
    mirrored = opened(path, rotation="mirror").frames(0, "agentview")
    np.testing.assert_array_equal(mirrored, stored[:, :, ::-1])
    with h5py.File(path, "a") as file:
        file["data"].attrs["macros_image_convention"] = np.bytes_("OpenCV")
    np.testing.assert_array_equal(opened(path).frames(0, "agentview"), stored)
    with h5py.File(path, "a") as file:
        file["data"].attrs["macros_image_convention"] = "sideways"
    with pytest.raises(UserError, match=r"expected one of opengl, opencv: say --data\.rotation"):
        opened(path)


def moving_hand(steps: int = 60) -> dict[str, object]:
    """A white square where a LIBERO policy would see the hand: up for z, left for y."""
    angle = np.linspace(0, 9, steps)
    y, z = 0.2 * np.sin(angle), 0.3 + 0.1 * np.sin(2.3 * angle)
    frames = np.zeros((steps, 64, 64, 3), np.uint8)
    for t in range(steps):
        row, column = int(60 - 100 * z[t]), int(32 - 100 * y[t])
        frames[t, row - 3 : row + 3, column - 3 : column + 3] = 255
    demo = demonstration(steps=steps)
    return demo | {
        "obs/agentview_rgb": frames,
        "obs/ee_pos": np.stack([np.zeros(steps), y, z], axis=1),
    }


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (1, -1)])
def test_opencv_as_robosuite_writes_it_is_mirrored(rows: int, columns: int, tmp_path: Path) -> None:
    demo: dict[str, object] = moving_hand()
    upright = np.asarray(demo["obs/agentview_rgb"])
    demo["obs/agentview_rgb"] = upright[:, ::rows, ::columns]
    path = write_hdf5(tmp_path / NAME, {"demo_0": demo}, {"macros_image_convention": "opencv"})
    np.testing.assert_array_equal(opened(path).frames(0, "agentview"), upright)
    demo["obs/agentview_rgb"] = upright[:, ::-1, ::columns]
    path = write_hdf5(tmp_path / NAME, {"demo_0": demo}, {"macros_image_convention": "opencv"})
    with pytest.raises(UserError, match="moves upside down"):
        opened(path).frames(0, "agentview")


def test_state_is_missed_only_where_it_is_asked_for(tmp_path: Path) -> None:
    dataset = opened(one_file(tmp_path, **{"obs/ee_pos": None}))
    assert dataset.state_dim == 0 and dataset.numbers(0).state is None
    require(dataset, ["agentview"], state=False)
    with pytest.raises(UserError, match="obs lacks ee_pos, it has"):
        require(dataset, ["agentview"], state=True)
    dataset = opened(tmp_path, state=("gripper_states", "ee_ori"))
    assert dataset.state_dim == 5
    with pytest.raises(UserError, match=r"no joints, it has \['ee_ori', 'gripper_states'\]"):
        opened(tmp_path, state=("joints",))


def test_joined_ee_states_serve_too(tmp_path: Path) -> None:
    states = np.random.default_rng(0).normal(size=(12, 6))
    changes = {"obs/ee_pos": None, "obs/ee_ori": None, "obs/ee_states": states}
    dataset = opened(one_file(tmp_path, **changes))
    state = dataset.numbers(0).state
    assert state is not None and dataset.state_dim == 8
    np.testing.assert_array_equal(state[:, :6], states.astype(np.float32))


def test_cameras_of_other_names(tmp_path: Path) -> None:
    frames = demonstration()["obs/agentview_rgb"]
    changes = {"obs/agentview_rgb": None, "obs/eye_in_hand_rgb": None, "obs/front": frames}
    path = one_file(tmp_path, **changes)
    with pytest.raises(UserError, match=r"no pictures agentview_rgb; it has \['front'\]"):
        opened(path)
    dataset = opened(path, cameras={"agentview": "front"}, rotation="flip")
    np.testing.assert_array_equal(dataset.frames(0, "agentview"), frames[:, ::-1])
    with pytest.raises(UserError, match="no wrist pictures"):
        require(dataset, ["agentview", "wrist"], state=False)


@pytest.mark.parametrize("scale", [1.0, 1.0000002, 255.0])
def test_float_pictures(scale: float, tmp_path: Path) -> None:
    frames = demonstration()["obs/agentview_rgb"]
    frames[0, 0, 0, 0] = 255
    floats = (frames / 255 * scale).astype(np.float32)
    dataset = opened(one_file(tmp_path, **{"obs/agentview_rgb": floats}))
    np.testing.assert_array_equal(dataset.frames(0, "agentview"), frames[:, ::-1, ::-1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.astype(np.float32) - 128, "expected uint8, or floats"),
        (lambda f: f.astype(np.int32), "type int32"),
        (lambda f: f / 240, "floats in 0..1 or 0..255: convert them"),
        (lambda f: f[:, :0], "expected .steps, height, width, 3"),
        (lambda f: f[..., 0], "expected .steps, height, width, 3"),
        (lambda f: np.full(f.shape, np.nan), "expected uint8, or floats"),
        (lambda f: f[:-1], "unequal lengths .actions 12, agentview pictures 11"),
    ],
)
def test_bad_pictures(change, message: str, tmp_path: Path) -> None:
    frames = change(demonstration()["obs/agentview_rgb"])
    dataset = opened(one_file(tmp_path, **{"obs/agentview_rgb": frames}))
    with pytest.raises(UserError, match=message):
        dataset.frames(0, "agentview")


def test_channels_first(tmp_path: Path) -> None:
    frames = demonstration()["obs/agentview_rgb"]
    dataset = opened(one_file(tmp_path, **{"obs/agentview_rgb": frames.transpose(0, 3, 1, 2)}))
    assert dataset.frames(0, "agentview").shape == (12, SIZE, SIZE, 3)


def bad_number(value: float) -> np.ndarray:
    actions = demonstration()["actions"]
    actions[3, 2] = value
    return actions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": bad_number(np.nan)}, "action 2 of step 3 is nan"),
        ({"actions": bad_number(np.inf)}, "action 2 of step 3 is inf"),
        ({"obs/ee_pos": np.full((12, 3), np.nan)}, "state 0 of step 0 is nan"),
        ({"actions": demonstration()["actions"] * [8, 8, 8, 8, 8, 8, 1]}, r"expected \[-1, 1\]"),
        ({"obs/ee_pos": np.zeros((11, 3))}, "unequal lengths"),
    ],
)
def test_bad_numbers(changes: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    dataset = opened(one_file(tmp_path, **changes))
    with pytest.raises(UserError, match=message):
        dataset.numbers(0)


def test_a_state_of_another_width(tmp_path: Path) -> None:
    demos = {
        "demo_0": demonstration(),
        "demo_1": {**demonstration(1), "obs/ee_ori": np.zeros((12, 4))},
    }
    dataset = opened(write_hdf5(tmp_path / NAME, demos))
    dataset.numbers(0)
    with pytest.raises(UserError, match="demo_1: state of 9 numbers, expected 8"):
        dataset.numbers(1)


def test_other_robots(tmp_path: Path) -> None:
    """Any number of actions and state; without a gripper none is looked for."""
    actions = np.random.default_rng(0).uniform(-90, 90, (12, 14))
    dataset = opened(one_file(tmp_path, actions=actions, **{"obs/q": actions}), state=("q",))
    assert (dataset.action_dim, dataset.state_dim, dataset.gripper) == (14, 14, None)
    assert dataset.action_mask == (True,) * 14
    np.testing.assert_array_equal(dataset.numbers(0).actions, actions)
    dataset = opened(one_file(tmp_path, actions=actions[:, :7]), gripper="none", action_range="any")
    np.testing.assert_array_equal(dataset.numbers(0).actions, actions[:, :7])
    with pytest.raises(UserError, match=r"actions of shape \(12, 0\), expected \(steps, numbers\)"):
        opened(one_file(tmp_path, actions=actions[:, :0]))


def test_shorter_than_the_chunk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    demos = {f"demo_{i}": demonstration(i, steps) for i, steps in enumerate([12, 3, 9])}
    dataset = opened(write_hdf5(tmp_path / NAME, demos))
    assert long_enough(dataset, 8) == [0, 2]
    assert "left out 1 of 3 demonstrations" in caplog.text and "demo_1" in caplog.text
    with pytest.raises(UserError, match="no demonstration has 13 steps, the longest of 3 has 12"):
        long_enough(dataset, 13)


def test_only_the_wanted_demonstrations_are_read(tmp_path: Path) -> None:
    """Everything of the others is unreadable, and nobody notices."""
    broken = {"actions": np.full((12, 7), np.nan), "obs/agentview_rgb": np.zeros((2, 2))}
    demos = {"demo_0": demonstration()} | {
        f"demo_{i}": {**demonstration(), **broken} for i in (1, 2)
    }
    dataset = opened(write_hdf5(tmp_path / NAME, demos), max_demos=1)
    assert [e.name for e in dataset.episodes] == ["demo_0"]
    dataset.numbers(0), dataset.frames(0, "agentview")


def test_constant_pictures_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    black = np.zeros((12, SIZE, SIZE, 3), np.uint8)
    dataset = opened(one_file(tmp_path, **{"obs/agentview_rgb": black}))
    dataset.frames(0, "agentview"), dataset.frames(1, "agentview")
    assert caplog.text.count("all pictures are one color (0)") == 1
    cut = np.random.default_rng(0).random((12, SIZE, SIZE, 3)).round().astype(np.uint8)
    opened(one_file(tmp_path, **{"obs/agentview_rgb": cut})).frames(0, "agentview")
    assert "all pictures are black, no value is above 1" in caplog.text


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no demonstrations .*nowhere"):
        opened(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"a known format: expected an HDF5 file .*features\.json"):
        opened(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="git-lfs text pointer"):
        opened(path)
    path.write_bytes(b"no hdf5")
    with pytest.raises(UserError, match="no HDF5 file, lacks what is read or is damaged"):
        opened(path)
    whole = one_file(tmp_path).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="damaged"):
        opened(path)
    with h5py.File(path, "w") as file:
        file["position_streams/00000"] = np.zeros(3)
    with pytest.raises(UserError, match="holds no demonstration"):
        opened(path)


@given(st.lists(st.integers(0, 500), unique=True, max_size=20))
def test_natural_order(numbers: list[int]) -> None:
    names = [f"demo_{n}" for n in numbers]
    assert sorted(names, key=natural_order) == [f"demo_{n}" for n in sorted(numbers)]


@given(st.text(max_size=12), st.text(max_size=12))
def test_any_names_can_be_ordered(a: str, b: str) -> None:
    assert (natural_order(a) == natural_order(b)) or (a != b)
    sorted([a, b, "demo_1"], key=natural_order)


@given(st.lists(st.sampled_from("abc"), max_size=30), st.none() | st.integers(1, 5))
def test_first_of_each_task(tasks: list[str], limit: int | None) -> None:
    episodes = [EpisodeInfo(str(i), task, task, 1) for i, task in enumerate(tasks)]
    places = first_of_each_task(episodes, limit)
    assert places == sorted(places)
    for task in set(tasks):
        kept = [i for i in places if tasks[i] == task]
        assert kept == [i for i, t in enumerate(tasks) if t == task][:limit]


@pytest.mark.parametrize("words", ["open the drawer", "put both pots on the stove"])
def test_tasks_are_told_from_names(words: str) -> None:
    assert says_a_task(words)
    assert not any(map(says_a_task, ["demo1", "demo 1", "episode a", "train data", "task 3", ""]))
