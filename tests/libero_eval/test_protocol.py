"""Protocols: the published numbers, and hashes that mean comparability."""

from dataclasses import replace

import pytest

from invact_vla.core.errors import UserError
from libero_eval.env.protocol import DEFAULT_PROTOCOL, PROTOCOLS, get_protocol
from libero_eval.env.tasks import SUITES


def test_default_is_libero_10_as_openvla_evaluates_it() -> None:
    p = get_protocol(DEFAULT_PROTOCOL)
    assert (p.suite, p.max_steps, p.settle_steps, p.trials) == ("libero_10", 520, 10, 50)
    assert (p.render_px, p.resize_px, p.center_crop) == (256, 224, 0.9)
    assert p.rotate and p.jpeg and p.settle_action == (0, 0, 0, 0, 0, 0, -1)


@pytest.mark.parametrize(
    ("suite", "steps"),
    [
        ("libero_spatial", 220),
        ("libero_object", 280),
        ("libero_goal", 300),
        ("libero_10", 520),
        ("libero_90", 400),
    ],
)
def test_horizons(suite: str, steps: int) -> None:
    assert get_protocol(f"{suite}/openvla").max_steps == steps


@pytest.mark.parametrize(
    ("key", "steps", "trials", "px", "jpeg"),
    [
        ("libero_spatial/univla", 240, 50, 256, True),
        ("libero_object/univla", 300, 50, 256, True),
        ("libero_goal/univla", 320, 50, 256, True),
        ("libero_10/univla", 550, 50, 256, True),
        ("libero_90/univla", 420, 50, 256, True),
        ("libero_spatial/lerobot", 280, 10, 360, False),
        ("libero_object/lerobot", 280, 10, 360, False),
        ("libero_goal/lerobot", 300, 10, 360, False),
        ("libero_10/lerobot", 520, 10, 360, False),
        ("libero_90/lerobot", 400, 10, 360, False),
        ("libero_10/libero", 600, 20, 128, False),
    ],
)
def test_published_numbers(key: str, steps: int, trials: int, px: int, jpeg: bool) -> None:
    p = get_protocol(key)
    assert (p.max_steps, p.trials, p.render_px, p.jpeg) == (steps, trials, px, jpeg)


def test_every_suite_has_every_protocol_and_hashes_stay_what_they_were() -> None:
    names = {p.name for p in PROTOCOLS.values()}
    assert names >= {"openvla", "oft", "univla", "lerobot", "libero"}
    assert set(PROTOCOLS) == {f"{s}/{n}" for s in SUITES for n in names}
    # recorded in results
    assert get_protocol("libero_10/openvla").hash == "ef30a316bd2248cb"
    assert get_protocol("libero_10/oft").hash == "69923b68afa856bd"
    assert get_protocol("libero_10/libero").hash == "07883ea785daed9e"
    p = get_protocol("libero_10/openvla")
    assert replace(p, reseed=True).hash != p.hash
    assert get_protocol("libero_10/lerobot").reseed and not p.reseed


def test_hash_is_of_what_is_measured_not_of_the_citation() -> None:
    p = get_protocol("libero_10/openvla")
    assert replace(p, source="elsewhere").hash == p.hash
    assert replace(p, max_steps=600).hash != p.hash
    assert len({row.hash for row in PROTOCOLS.values()}) == len(PROTOCOLS)


@pytest.mark.parametrize("key", PROTOCOLS)
def test_contract(key: str) -> None:
    """Numbers that the simulator and the policies can keep to, and a source of its own."""
    p = get_protocol(key)
    assert p.key == key and p.suite in SUITES
    assert p.max_steps > 0 and p.settle_steps >= 0 and len(p.settle_action) == 7
    assert 1 <= p.trials <= 50, "LIBERO has 50 init states"
    assert p.render_px > 0 and p.resize_px > 0 and 0 < p.center_crop <= 1
    assert p.cameras and set(p.cameras) <= {"agentview", "wrist"}
    others = {row.source for row in PROTOCOLS.values() if row.name != p.name}
    assert p.source and p.source not in others


def test_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="libero_10/openvla"):
        get_protocol("libero_10/openvlaa")
