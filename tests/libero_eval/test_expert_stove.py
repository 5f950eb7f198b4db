"""The expert at the stove: turns its knob, sets moka pots on it, recovers."""

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from libero_eval.env.assets.pack import AssetPack, OfficialPack, ProceduralPack
from libero_eval.env.sim import LiberoSim
from libero_eval.expert import Expert
from libero_eval.expert.hand import OPEN, PLAIN, Style, position_of, read_hand
from tests.paths import LIBERO_ASSETS, needs_libero_assets

LIT = 0.5  # knob angle from which the stove is on, rad (LIBERO's articulated_objects.py)
LIMIT = 350  # steps
STOVE = "flat_stove_1"


@pytest.fixture(scope="module")
def one_pot() -> Iterator[LiberoSim]:
    """Task 2: turn on the stove and put the moka pot on it."""
    sim = LiberoSim("libero_10", 2, ProceduralPack().build())
    yield sim
    sim.close()


@pytest.fixture(scope="module")
def two_pots() -> Iterator[LiberoSim]:
    """Task 8: put both moka pots on the stove."""
    sim = LiberoSim("libero_10", 8, ProceduralPack().build())
    yield sim
    sim.close()


def knob_angle(sim: LiberoSim) -> float:
    return float(sim.data.joint(f"{STOVE}_button").qpos[0])


def set_knob(sim: LiberoSim, angle: float) -> None:
    sim.data.joint(f"{STOVE}_button").qpos[0] = angle
    sim.env.sim.forward()


def uprightness(sim: LiberoSim, item: str) -> float:
    """Cosine of the angle between an object's axis and the vertical."""
    return float(sim.data.xmat[sim.env.obj_body_id[item]][8])


def demonstrate(sim: LiberoSim, style: Style = PLAIN) -> Iterator[np.ndarray]:
    """The expert's actions; the caller steps. Fails after LIMIT steps."""
    policy = Expert(sim, style)
    policy.reset(0)
    for _ in range(LIMIT):
        yield policy.act().values[0].copy()
    raise AssertionError(f"not solved: {sim.predicates()}")


def play(sim: LiberoSim) -> int:
    """Steps to success."""
    for step, action in enumerate(demonstrate(sim)):
        if sim.step(action):
            return step + 1
    return LIMIT


def test_turns_the_knob_with_open_fingers_before_it_touches_the_pot(one_pot: LiberoSim) -> None:
    one_pot.reset(0)
    before = position_of(one_pot, "moka_pot_1")
    for action in demonstrate(one_pot):
        if knob_angle(one_pot) >= LIT:
            break
        assert action[6] == OPEN and not action[3:6].any()
        one_pot.step(action)
    np.testing.assert_allclose(position_of(one_pot, "moka_pot_1"), before, atol=1e-4)
    play(one_pot)
    assert knob_angle(one_pot) > LIT + 0.2, "it coasts on, far from the edge"
    assert uprightness(one_pot, "moka_pot_1") > 0.99


@pytest.mark.parametrize("angle", [0.2, 0.45])
def test_turns_a_knob_that_stands_half_way(one_pot: LiberoSim, angle: float) -> None:
    one_pot.reset(1)
    set_knob(one_pot, angle)
    for action in demonstrate(one_pot):
        one_pot.step(action)
        if knob_angle(one_pot) >= LIT:
            break


def test_turns_the_knob_slowly_and_from_aside(one_pot: LiberoSim) -> None:
    one_pot.reset(3)
    style = Style(speed=0.5, rise=0.06, approach=(0.015, 0.02))
    for action in demonstrate(one_pot, style):
        assert np.abs(action[:3]).max() < 0.46
        one_pot.step(action)
        if knob_angle(one_pot) >= LIT:
            break


def test_turns_the_knob_after_a_bad_start_beside_it(one_pot: LiberoSim) -> None:
    """Pushed down on the wrong side of the grip, the hand rises and comes down around it."""
    one_pot.reset(2)
    wrong = position_of(one_pot, STOVE) + np.array([-0.04, -0.085, 0.03])
    for _ in range(60):
        move = np.clip(10 * (wrong - read_hand(one_pot).position), -1, 1)
        one_pot.step(np.array([*move, 0, 0, 0, OPEN]))
    assert np.linalg.norm(wrong - read_hand(one_pot).position) < 0.01
    assert knob_angle(one_pot) < LIT
    play(one_pot)


def test_a_dropped_pot_is_fetched_again(one_pot: LiberoSim) -> None:
    one_pot.reset(6)
    dropped = 0
    for action in demonstrate(one_pot):
        height = position_of(one_pot, "moka_pot_1")[2]
        if dropped or height > 1.0:
            dropped += 1
        if 0 < dropped <= 5:
            action[6] = OPEN
        if dropped == 20:
            assert height < 0.97, "it stands on the table again"
        if one_pot.step(action):
            break
    assert dropped > 20


def test_pots_stand_side_by_side_and_never_touch(two_pots: LiberoSim) -> None:
    two_pots.reset(0)
    pots = [two_pots.env.get_object(f"moka_pot_{i}") for i in (1, 2)]
    for action in demonstrate(two_pots):
        if two_pots.step(action):
            break
        assert not two_pots.env.check_contact(*pots)
    assert uprightness(two_pots, "moka_pot_1") > 0.99
    assert uprightness(two_pots, "moka_pot_2") > 0.99


def test_lights_the_stove_again_when_it_went_out(two_pots: LiberoSim) -> None:
    two_pots.reset(0)
    set_knob(two_pots, 0.1)
    assert not dict(two_pots.predicates())[f"turnon {STOVE}"]
    play(two_pots)


@pytest.mark.slow
@pytest.mark.parametrize("task", [2, 8])
@pytest.mark.parametrize("pack", ["procedural", "official"])
@needs_libero_assets
def test_all_of_ten_in_both_packs(pack: str, task: int) -> None:
    assets: AssetPack = ProceduralPack()
    if pack == "official":
        assets = OfficialPack(folder=LIBERO_ASSETS)
    sim = LiberoSim("libero_10", task, assets.build())
    for index in range(0, 50, 5):
        sim.reset(index)
        assert play(sim) < 250, index
    sim.close()
