"""Perturbations: off means untouched, on means seeded, bounded, order-free and undone."""

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from libero_eval.env.tasks import instruction, task_name
from libero_eval.perturbations import PerturbationsConfig
from libero_eval.perturbations.config import WORDINGS

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.sim import LiberoSim
from libero_eval.perturbations.changes import PARKED_M, RADIUS_M
from libero_eval.perturbations.perturbed import AXES, PerturbedSim

TASK = 4
CHANGES = {
    "camera": 0.2, "light": 0.6, "textures": 0.9, "distractors": 4, "robot_pose": 0.1,
}  # fmt: skip
LOOKS = {"camera", "light", "textures", "distractors"}  # change the picture, not the state


def opened(**changes: object) -> PerturbedSim:
    axes = PerturbationsConfig(**changes)  # type: ignore[arg-type]
    return PerturbedSim("libero_10", TASK, ProceduralPack().build(), axes, image_size=48)


def seen(sim: LiberoSim) -> tuple[str, bytes]:
    return sim.state_hash(), sim.image("agentview").tobytes()


@pytest.fixture(scope="module")
def untouched() -> Iterator[dict[int, tuple[str, bytes]]]:
    sim = LiberoSim("libero_10", TASK, ProceduralPack().build(), image_size=48)
    result = {}
    for init in (0, 1):
        sim.reset(init)
        result[init] = seen(sim)
    yield result
    sim.close()


def test_every_axis_has_a_field_and_a_test() -> None:
    assert set(AXES) == set(CHANGES) <= set(PerturbationsConfig.__dataclass_fields__)


def test_off_is_untouched(untouched: dict[int, tuple[str, bytes]]) -> None:
    sim = opened()
    for init in (1, 0):
        sim.reset(init)
        assert seen(sim) == untouched[init]
    assert PerturbationsConfig().label == "" and PerturbationsConfig(seed=3).label == ""
    sim.close()


@pytest.mark.parametrize("axis", sorted(CHANGES))
def test_axis_is_seeded_and_order_free(axis: str, untouched: dict[int, tuple[str, bytes]]) -> None:
    sim, other = opened(**{axis: CHANGES[axis]}), opened(**{axis: CHANGES[axis], "seed": 1})
    sim.reset(0)
    first = seen(sim)
    sim.reset(1)
    second = seen(sim)
    sim.reset(0)
    assert seen(sim) == first, "the same after another episode: everything was undone"
    assert first[1] != untouched[0][1] and second[1] != untouched[1][1], "it can be seen"
    assert (first[0] == untouched[0][0]) == (axis in LOOKS)
    other.reset(0)
    assert seen(other) != first
    assert f"{axis} {CHANGES[axis]}" in PerturbationsConfig(**{axis: CHANGES[axis]}).label  # type: ignore[arg-type]
    sim.close()
    other.close()


def test_camera_keeps_its_target() -> None:
    sim, meters = opened(camera=0.2), 0.2
    sim.reset(0)
    camera = sim.model.camera("agentview").id
    before = sim._untouched["cam_pos"][camera], sim._untouched["cam_quat"][camera]
    after = sim.model.cam_pos[camera].copy(), sim.model.cam_quat[camera].copy()
    assert 0 < np.linalg.norm(after[0] - before[0]) <= meters
    targets = [position - backward(quaternion) for position, quaternion in (before, after)]
    moved = after[0] - targets[0]
    np.testing.assert_allclose(backward(after[1]), moved / np.linalg.norm(moved), atol=1e-6)
    sim.close()


def backward(quaternion: np.ndarray) -> np.ndarray:
    """Where a camera's back points."""
    return Rotation.from_quat(quaternion, scalar_first=True).as_matrix()[:, 2]


def test_distractors_stand_free_and_still() -> None:
    sim = opened(distractors=6)
    sim.reset(1)
    places = sim.data.mocap_pos[sim.data.mocap_pos[:, 2] > PARKED_M + 1]
    assert len(places) == 6
    for place in places:
        for name in sim.env.obj_body_id.values():
            assert np.linalg.norm(sim.data.xpos[name][:2] - place[:2]) > RADIUS_M / 2
    before = sim.data.mocap_pos.copy()
    for _ in range(5):
        sim.step(np.array([0.5, 0, -0.5, 0, 0, 0, -1.0]))
    np.testing.assert_array_equal(sim.data.mocap_pos, before)
    sim.close()


def test_random_layouts_are_new_and_fixed(untouched: dict[int, tuple[str, bytes]]) -> None:
    sim = opened(layout="random")
    sim.reset(0)
    first = seen(sim)
    sim.reset(1)
    assert first[0] not in {h for h, _ in untouched.values()} and seen(sim)[0] != first[0]
    sim.reset(0)
    assert seen(sim) == first
    sim.close()


def test_instruction_reaches_the_policy() -> None:
    sim = opened(wording="blank")
    sim.reset(0)
    assert sim.observation(()).instruction == "" == sim.instruction
    sim.close()


@given(task=st.integers(0, 9), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_wordings(task: int, seed: int) -> None:
    text = instruction(task_name("libero_10", task))
    said = {
        name: say("libero_10", text, np.random.default_rng(seed)) for name, say in WORDINGS.items()
    }
    assert said["as_is"] == text and said["blank"] == "" and said["dot"] == text + "."
    others = {instruction(task_name("libero_10", t)) for t in range(10)} - {text}
    assert said["shuffled"] in others
    assert said["reworded"] != text and "{}" not in said["reworded"]
    kept = {w for w in ("bowl", "mug", "moka", "book", "soup", "butter") if w in text}
    assert all(word in said["reworded"] for word in kept), "objects keep their names"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"camera": 2.0}, "camera"), ({"light": -0.1}, "light"), ({"distractors": 7}, "distractors"),
     ({"wording": "rude"}, "as_is, blank"), ({"layout": "x"}, "random")],
)  # fmt: skip
def test_config_is_checked(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerturbationsConfig(**changes)  # type: ignore[arg-type]
