"""Tasks 3 and 9: the bowl into the drawer, the mug into the microwave, then closed."""

import importlib.util
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from libero_eval.env.assets.pack import OfficialPack, ProceduralPack
from libero_eval.env.sim import LiberoSim
from libero_eval.expert import Expert
from libero_eval.expert.hand import CLOSE, OPEN, Style, position_of, read_hand, turn_toward
from libero_eval.expert.recipes import recipe
from libero_eval.expert.steps import Close, Memory
from tests.paths import LIBERO_ASSETS, needs_libero_assets

ITEMS = {3: "akita_black_bowl_1", 9: "white_yellow_mug_1"}
DOOR_IN_THE_WAY = 18  # init state of task 9 whose door is hardly open


@pytest.fixture(scope="module")
def microwave() -> Iterator[LiberoSim]:
    sim = LiberoSim("libero_10", 9, ProceduralPack().build(), cameras=())
    yield sim
    sim.close()


def play(sim: LiberoSim, policy: Expert, limit: int = 260) -> np.ndarray:
    """Actions until success; fails the test when there is none."""
    taken = []
    for _ in range(limit):
        taken.append(policy.act().values[0])
        if sim.step(taken[-1]):
            return np.array(taken)
    raise AssertionError(f"not solved: {sim.predicates()}")


@needs_libero_assets
@pytest.mark.parametrize("task", [3, 9])
def test_official_meshes(task: int) -> None:
    sim = LiberoSim("libero_10", task, OfficialPack(folder=LIBERO_ASSETS).build(), cameras=())
    sim.reset(1)
    taken = play(sim, Expert(sim), limit=220)
    still = np.linalg.norm(taken[1:, :6], axis=1) < 1e-4
    assert not np.any(still & (taken[1:, 6] == taken[:-1, 6])), "no no-ops"
    sim.close()


def test_the_mug_goes_around_a_door_that_is_hardly_open(microwave: LiberoSim) -> None:
    """The door shut when the hand or the mug touched its edge on the way."""
    microwave.reset(DOOR_IN_THE_WAY)
    hinge = microwave.data.joint("microwave_1_microjoint")
    before = float(hinge.qpos[0])
    assert before > -1.35
    policy = Expert(microwave)
    insert = policy.steps[0]
    for _ in range(200):
        microwave.step(policy.act().values[0])
        if insert.is_done(microwave):
            break
    assert insert.is_done(microwave) and hinge.qpos[0] < before + 0.01
    mug = position_of(microwave, ITEMS[9]) - position_of(microwave, "microwave_1")
    assert abs(mug[2] - 0.026) < 0.01, "it was set down, not dropped"
    play(microwave, policy)


@pytest.mark.parametrize("task", [3, 9])
def test_takes_up_what_it_dropped(task: int) -> None:
    sim = LiberoSim("libero_10", task, ProceduralPack().build(), cameras=())
    sim.reset(0)
    policy = Expert(sim)
    start = position_of(sim, ITEMS[task])[2]
    while position_of(sim, ITEMS[task])[2] < start + 0.04:
        sim.step(policy.act().values[0])
    for _ in range(10):
        sim.step(np.array([0, 0, 0.1, 0, 0, 0, OPEN]))
    assert position_of(sim, ITEMS[task])[2] < start + 0.01, "it fell"
    play(sim, policy)
    sim.close()


def test_slow_and_high(microwave: LiberoSim) -> None:
    microwave.reset(0)
    play(microwave, Expert(microwave, Style(speed=0.5, rise=0.06)), limit=400)


def test_pushes_a_door_from_outside_only(microwave: LiberoSim) -> None:
    microwave.reset(0)
    step = recipe("libero_10", 9)[1]
    assert isinstance(step, Close)
    door = microwave.data.body(step.body)
    axes = door.xmat.reshape(3, 3)
    outward, contact = axes @ [0.0, -1.0, 0.0], door.xpos + axes @ np.array(step.at)
    hand = read_hand(microwave)

    def act(distance: float) -> np.ndarray:
        there = replace(hand, position=contact + distance * outward)
        return step.act(microwave, there, Memory())

    push = act(0.0)
    assert push[:3] @ outward < -0.8 and push[6] == CLOSE
    inside = act(-0.07)
    assert inside[2] > 0.5 and not inside[:2].any(), "rises before it goes around"
    assert not step.is_done(microwave)


def test_leaning_hand() -> None:
    lean = np.radians(30)
    c, s = np.cos(lean), np.sin(lean)
    axes = np.array([[-1.0, 0.0, 0.0], [0.0, c, s], [0.0, s, -c]])
    np.testing.assert_allclose(turn_toward(axes, np.pi, lean), np.zeros(3), atol=1e-12)
    back_up = turn_toward(axes, np.pi)
    np.testing.assert_allclose(back_up / np.linalg.norm(back_up), [-1, 0, 0], atol=1e-12)
