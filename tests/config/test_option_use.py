"""Options are there to be set: nearly all are, in a config, a document or a test."""

from tests.option_use import places


def test_nearly_every_option_is_set_somewhere() -> None:
    known = places()
    unused = [f"{owner}.{field}" for (owner, field), (_, place) in known.items() if place is None]
    assert len(known) > 500
    assert len(unused) < 0.05 * len(known), f"set each, or remove it: {', '.join(unused)}"
