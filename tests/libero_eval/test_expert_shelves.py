"""Tasks 5 and 6 (book into the caddy, mug and pudding at the plate), turning, and styles."""

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.sim import LiberoSim
from libero_eval.expert import Expert
from libero_eval.expert.hand import (
    CLOSE,
    OPEN,
    PLAIN,
    SLOWEST,
    Style,
    hover_down,
    position_of,
    random_style,
    read_hand,
    turn_toward,
    wrap,
    yaw_of,
)

DOWN = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])  # fingers close along y


@pytest.fixture(scope="module")
def books() -> Iterator[LiberoSim]:
    sim = LiberoSim("libero_10", 5, ProceduralPack().build(), cameras=())
    yield sim
    sim.close()


@pytest.fixture(scope="module")
def plates() -> Iterator[LiberoSim]:
    sim = LiberoSim("libero_10", 6, ProceduralPack().build(), cameras=())
    yield sim
    sim.close()


def play(sim: LiberoSim, policy: Expert, limit: int) -> np.ndarray:
    """Actions until success; fails the test when there is none."""
    taken = []
    for _ in range(limit):
        taken.append(policy.act().values[0])
        if sim.step(taken[-1]):
            return np.array(taken)
    raise AssertionError(f"not solved: {sim.predicates()}")


@pytest.mark.parametrize("init", [11, 15])  # the book turned by 45 and by 0 degrees
def test_the_hand_turns_with_the_book(books: LiberoSim, init: int) -> None:
    books.reset(init)
    policy = Expert(books)
    policy.reset(0)
    taken = play(books, policy, 150)
    assert np.abs(taken).max() <= 1.0 and taken[:, 5].any()
    assert abs(wrap(yaw_of(books, "black_book_1") - np.pi)) < np.radians(5)
    assert read_hand(books).axes[2, 2] < -0.99, "upright"
    for _ in range(40):  # let go, it stands in the compartment
        books.step(policy.act().values[0])
    place = position_of(books, "black_book_1") - position_of(books, "desk_caddy_1")
    assert abs(place[2] - 0.0115) < 0.01, "on the compartment's floor"
    assert books.predicates()[0][0].startswith("in black_book_1")


def test_a_book_missed_at_first(books: LiberoSim) -> None:
    """The fingers close in the air above the book: they open again and the grasp is repeated."""
    books.reset(3)
    policy = Expert(books)
    policy.reset(0)
    for _ in range(12):
        books.step(policy.act().values[0])
    for _ in range(12):
        books.step(np.array([0, 0, 0.1, 0, 0, 0, CLOSE]))
    assert read_hand(books).opening < 0.01
    play(books, policy, 150)


def test_a_dropped_pudding_is_fetched_again(plates: LiberoSim) -> None:
    plates.reset(1)
    policy = Expert(plates)
    policy.reset(0)
    dropped = 0
    for _ in range(400):
        action = policy.act().values[0].copy()
        pudding = position_of(plates, "chocolate_pudding_1")
        if dropped < 8 and pudding[2] > 0.50 and pudding[0] < 0.08:
            action[6], dropped = OPEN, dropped + 1
        if plates.step(action):
            break
    assert dropped == 8
    assert all(value for _, value in plates.predicates())


def test_turning_is_upright_and_the_short_way() -> None:
    np.testing.assert_allclose(turn_toward(DOWN, np.pi / 2), np.zeros(3), atol=1e-12)
    left = turn_toward(DOWN, np.pi / 2 + 0.2)
    np.testing.assert_allclose(left, [0, 0, 1.6 * 0.2], atol=1e-12)
    assert np.linalg.norm(turn_toward(DOWN, np.pi)) == pytest.approx(0.9)
    c, s = np.cos(0.1), np.sin(0.1)
    tilted = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ DOWN  # by 0.1 about x
    np.testing.assert_allclose(turn_toward(tilted, np.pi / 2), [-0.16, 0, 0], atol=1e-12)
    assert wrap(1.75 * np.pi) == pytest.approx(-0.25 * np.pi)
    assert wrap(0.75 * np.pi, np.pi) == pytest.approx(-0.25 * np.pi)


def test_a_turn_comes_before_the_descent() -> None:
    above, goal = np.array([0.0, 0.0, 0.6]), np.array([0.0, 0.0, 0.4])
    assert hover_down(above, goal, 0.6, OPEN)[2] == -0.9
    assert hover_down(above, goal, 0.6, OPEN, askew=0.06)[2] == 0.0
    aside = hover_down(above, goal, 0.6, OPEN, aside=(0.02, 0.0))
    assert aside[0] > 0, "the path down is displaced"
    low = np.array([0.0, 0.0, 0.45])
    assert hover_down(low, goal, 0.6, OPEN, aside=(0.02, 0.0))[0] == 0.0, "but not near its end"


def test_plain_style_changes_nothing(plates: LiberoSim) -> None:
    action = np.array([0.63, 0.64, -0.9, 0.0, 0.0, 0.9, CLOSE])
    assert PLAIN.paced(action) is action
    plates.reset(0)
    for _ in range(20):
        plain, styled = Expert(plates), Expert(plates, Style())
        np.testing.assert_array_equal(plain.act().values, styled.act().values)
        plates.step(plain.act().values[0])


def test_styles_differ_and_succeed(plates: LiberoSim) -> None:
    plates.reset(0)
    slow = Style(speed=SLOWEST, rise=0.05, approach=(0.02, -0.01))
    policy = Expert(plates, slow)
    policy.reset(0)
    taken = play(plates, policy, 450)
    assert np.linalg.norm(taken[:, :2], axis=1).max() <= 0.45 + 1e-6
    assert np.abs(taken[:, 2]).max() <= 0.45 + 1e-6
    assert len(taken) > 250, "half as fast"


def test_random_styles_follow_the_seed() -> None:
    first, same, other = (random_style(np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first == same and first != other
    drawn = [random_style(np.random.default_rng(seed)) for seed in range(50)]
    assert min(s.speed for s in drawn) < 0.6 and max(s.speed for s in drawn) > 0.9


@pytest.mark.parametrize("wrong", [{"speed": 0.2}, {"speed": 1.1}, {"rise": -0.01}, {"rise": 0.5},
                                   {"approach": (0.02, 0.02)}])  # fmt: skip
def test_styles_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="need"):
        Style(**wrong)
