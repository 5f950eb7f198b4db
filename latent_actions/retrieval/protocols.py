"""The four directions of atomic retrieval and what each leaves out of its gallery.

g = ego, x = exo. Cross-scene compares clips of one view, cross-view of both; the query's whole
scene is left out. `same_moment` rows leave out the query's own moment only: a second reading of
cross-view.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from invact_vla.core.text_table import text_table
from latent_actions.retrieval.metric import (
    ScoreBounds,
    bootstrap_interval,
    precision_at,
    reference_scores_of,
)

DIRECTIONS = ("g-g", "x-x", "g-x", "x-g")
DIRECTION_NAMES = {
    "g-g": "ego -> ego",
    "x-x": "exo -> exo",
    "cross_scene": "cross-scene",
    "g-x": "ego -> exo",
    "x-g": "exo -> ego",
    "cross_view": "cross-view",
}
AVERAGES = {"cross_scene": ("g-g", "x-x"), "cross_view": ("g-x", "x-g")}


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What is known of M moments, each with an ego and an exo clip."""

    verb: Sequence[str]
    scene: Sequence[str]
    take: Sequence[str]


def score_all(
    ego: np.ndarray, exo: np.ndarray, gallery: Labels, *, draws: int = 1000
) -> dict[str, dict]:
    """P@10 in percent of each direction and their averages: ego, exo (M, D) -> {name: {p_at_10,
    low, high, n}}.

    Names: the DIRECTIONS and AVERAGES with the scene left out, and the cross-view ones once more as
    "<name> same_moment". low, high: 95 % bootstrap over takes.
    """
    sides = {"g": ego, "x": exo}
    results: dict[str, dict] = {}
    each_alone = list(range(len(gallery.verb)))
    for suffix, groups in (("", gallery.scene), (" same_moment", each_alone)):
        scores = {}
        for name in DIRECTIONS:
            query, target = name.split("-")
            if suffix and query == target:
                continue
            scores[name] = precision_at(sides[query], sides[target], gallery.verb, groups)
        for name, parts in AVERAGES.items():
            if all(part in scores for part in parts):
                scores[name] = np.mean([scores[part] for part in parts], axis=0)
        for name, values in scores.items():
            low, high = bootstrap_interval(values, gallery.take, draws=draws)
            results[name + suffix] = {
                "p_at_10": 100.0 * float(values.mean()), "low": low, "high": high, "n": len(values),
            }  # fmt: skip
    return results


def gallery_levels(gallery: Labels) -> dict[str, dict]:
    """Chance, oracle and answerable share with the scene, and with only the moment, left out."""
    alone = list(range(len(gallery.verb)))
    found: dict[str, ScoreBounds] = {
        "scene": reference_scores_of(gallery.verb, gallery.scene),
        "same_moment": reference_scores_of(gallery.verb, alone),
    }
    return {name: asdict(value) for name, value in found.items()}


def format_table(rows: dict[str, dict[str, dict]], levels: dict[str, dict]) -> str:
    """A text table: one row an encoder, one column a direction; chance, oracle and n below."""
    names = DIRECTION_NAMES
    lines = [[e, *(f"{scores[n]['p_at_10']:.2f}" for n in names)] for e, scores in rows.items()]
    table = text_table(("P@10 (%)", *names.values()), lines, left=(0,))
    level = levels["scene"]
    return (
        f"{table}\nchance {level['chance']:.2f}, oracle {level['oracle']:.2f}, "
        f"answerable {level['answerable']:.1f} %, "
        f"{level['n']} queries, {level['groups']} scenes (the query's scene left out)"
    )
