"""Protocols: the published numbers, and hashes that mean comparability."""

from dataclasses import replace

import pytest

from invact_vla.errors import UserError
from libero_eval.protocol import DEFAULT_PROTOCOL, PROTOCOLS, get_protocol


def test_default_is_libero_10_as_openvla_evaluates_it() -> None:
    p = get_protocol(DEFAULT_PROTOCOL)
    assert (p.suite, p.max_steps, p.settle_steps, p.trials) == ("libero_10", 520, 10, 50)
    assert (p.render_px, p.resize_px, p.centre_crop) == (256, 224, 0.9)
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


def test_hash_is_of_what_is_measured_not_of_the_citation() -> None:
    p = get_protocol("libero_10/openvla")
    assert replace(p, source="elsewhere").hash == p.hash
    assert replace(p, max_steps=600).hash != p.hash
    assert len({row.hash for row in PROTOCOLS.values()}) == len(PROTOCOLS)
    assert all(row.source for row in PROTOCOLS.values())


def test_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="libero_10/openvla"):
        get_protocol("libero_10/openvlaa")
