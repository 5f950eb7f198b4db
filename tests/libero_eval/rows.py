"""Episode rows for tests."""

from collections.abc import Sequence
from typing import Any

from libero_eval.results.rows import EpisodeRow


def make_row(**changes: Any) -> EpisodeRow:
    """A failed episode of policy "b", with changes."""
    values: dict[str, Any] = dict(
        policy_name="b", suite="libero_10", task_id=0, task="put_it_there", init_index=0, seed=0,
        outcome="failure", reason="goal not reached in 520 steps", steps=520, goals_satisfied=0,
        goals_total=2, goals_best=0, closest_m=0.25, checkpoint_hash="c0ffee",
        protocol="libero_10/openvla", protocol_hash="p0", pack="procedural", pack_hash="a0",
        manifest_hash="m0", state_hash="s0", video=None, wall_s=1.5,
    )  # fmt: skip
    if changes.get("outcome") == "success":
        values.update(reason="goal reached", steps=170, goals_satisfied=2, goals_best=2)
    return EpisodeRow(**{**values, **changes})


def make_rows(successes: Sequence[bool], **changes: Any) -> list[EpisodeRow]:
    """One row an init state."""
    return [
        make_row(init_index=i, outcome="success" if success else "failure", **changes)
        for i, success in enumerate(successes)
    ]
