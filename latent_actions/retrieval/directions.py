"""The four directions of atomic retrieval, query to gallery: g = ego, x = exo.

Cross-scene compares clips of one view, cross-view of both.
"""

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from latent_actions.retrieval.metric import precision_at

DIRECTIONS = ("g-g", "x-x", "g-x", "x-g")
AVERAGES = {"cross_scene": ("g-g", "x-x"), "cross_view": ("g-x", "x-g")}
DIRECTION_NAMES = {
    "g-g": "ego -> ego", "x-x": "exo -> exo", "cross_scene": "cross-scene", "g-x": "ego -> exo",
    "x-g": "exo -> ego", "cross_view": "cross-view",
}  # fmt: skip


def in_words(measure: str) -> str:
    """A measure's name with its direction spelled out: "g-x P@10" is "ego -> exo P@10"."""
    name, _, rest = measure.partition(" ")
    return f"{DIRECTION_NAMES.get(name, name)} {rest}".rstrip()


def all_directions(score: Callable[[str, str], np.ndarray]) -> dict[str, np.ndarray]:
    """Scores (M,) of the four directions and their two averages; score(query's view, gallery's)."""
    scores = {name: score(name[0], name[-1]) for name in DIRECTIONS}
    averages = {
        name: np.mean([scores[part] for part in parts], axis=0) for name, parts in AVERAGES.items()
    }
    return scores | averages


def precisions(
    ego: np.ndarray, exo: np.ndarray, labels: Sequence[Hashable], groups: Sequence[Hashable]
) -> dict[str, np.ndarray]:
    """P@10 of M moments in all directions, the query's group left out: (M, D) twice -> {name: (M,)}."""
    views = {"g": ego, "x": exo}
    return all_directions(lambda a, b: precision_at(views[a], views[b], labels, groups))
