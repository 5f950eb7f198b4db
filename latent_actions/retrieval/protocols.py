"""The four directions of atomic retrieval and what each leaves out of its gallery.

g = ego, x = exo. Cross-scene compares clips of one view, cross-view of both; the query's whole
scene is left out. `same_moment` rows leave out the query's own moment only: a second reading of
cross-view.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from latent_actions.retrieval.metric import (
    ScoreBounds,
    bootstrap_interval,
    precision_at,
    reference_scores_of,
)

DIRECTIONS = ("g-g", "x-x", "g-x", "x-g")
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
    names = ("g-g", "x-x", "cross_scene", "g-x", "x-g", "cross_view")
    lines = [f"{'P@10 (%)':<24}" + "".join(f"{name:>13}" for name in names)]
    for encoder, scores in rows.items():
        lines.append(
            f"{encoder:<24}" + "".join(f"{scores[name]['p_at_10']:>13.2f}" for name in names)
        )
    level = levels["scene"]
    lines.append(
        f"chance {level['chance']:.2f}, oracle {level['oracle']:.2f}, "
        f"answerable {level['answerable']:.1f} %, "
        f"{level['n']} queries, {level['groups']} scenes (the query's scene left out)"
    )
    return "\n".join(lines)
