"""The action statistics that a checkpoint decodes with."""

from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.schema import LIBERO_ACTIONS
from invact_vla.data.action_stats import ActionStats
from invact_vla.data.conventions import gripper_to_training
from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, skipped, warned

FEW_TRANSITIONS = 100
OFF = 0.35  # a quantile may differ from the demonstrations' by this share of their range
LEAST_RANGE = 0.05  # of an action
NAMES = LIBERO_ACTIONS.names
WRITE = (
    "copy dataset_statistics.json of the post-training into the checkpoint folder, or post-train "
    "again with `invact vla posttrain`, which writes it"
)


def chosen(context: DiagnosticContext) -> tuple[str, dict[str, Any]]:
    """(key, statistics): the only ones, or those of the suite; UserError if there are none."""
    from invact_vla.openvla.inference.policy import select_norm_stats

    known = context.config.norm_stats
    return select_norm_stats(known, context.protocol.suite if len(known) > 1 else None)


def action_statistics(context: DiagnosticContext) -> Finding:
    """Present, finite, in order, in the environment's range."""
    expected = "finite q01 < q99 (or constant) inside [-1, 1], gripper not normalized"
    try:
        key, values = chosen(context)
        stats = ActionStats.from_json(values["action"])
    except UserError as error:
        return failed(expected, str(error), WRITE)
    faults = list(_faults(stats))
    if faults:
        return failed(expected, f"{key}: {'; '.join(faults)}", WRITE)
    count = values.get("num_transitions")
    found = f"{key}, {count if count is not None else 'unknown number of'} transitions"
    if count is None or count < FEW_TRANSITIONS:
        return warned(
            f"statistics of at least {FEW_TRANSITIONS} transitions", found,
            "quantiles of so few steps cut off real actions: compute them over the whole data set",
        )  # fmt: skip
    return passed(expected, found)


def _faults(stats: ActionStats) -> list[str]:
    low, high, mask = stats.low, stats.high, stats.mask
    if len(low) != len(NAMES):
        return [f"{len(low)} dimensions, expected {len(NAMES)}"]
    if not np.all(np.isfinite([low, high])):
        return ["quantiles that are not finite"]
    faults = [f"q01 > q99 in {NAMES[i]}" for i in np.flatnonzero(low > high)]
    wide = np.flatnonzero(mask & (np.maximum(np.abs(low), np.abs(high)) > 1 + 1e-6))
    faults += [f"{NAMES[i]} in [{low[i]:.3g}, {high[i]:.3g}], outside [-1, 1]" for i in wide]
    if mask[6]:
        faults.append("the gripper is normalized (mask true)")
    elif low[6] < -1e-6 or high[6] > 1 + 1e-6:
        faults.append(f"the gripper in [{low[6]:.3g}, {high[6]:.3g}], expected 0 and 1")
    return faults


def quantiles(context: DiagnosticContext) -> Finding:
    """Statistics like those of the demonstrations: otherwise they are another data set's."""
    if context.unseen:
        return skipped(context.unseen)
    key, values = chosen(context)
    stats, demos = ActionStats.from_json(values["action"]), context.demos
    actions = demos.all_actions.copy()
    actions[:, 6] = gripper_to_training(actions[:, 6])
    own = ActionStats.of(actions, stats.mask.tolist(), stats.bounds)
    span = np.maximum(own.high - own.low, LEAST_RANGE)
    gaps = np.maximum(np.abs(stats.low - own.low), np.abs(stats.high - own.high)) / span
    gaps[~stats.mask] = 0.0
    expected = f"q01 and q99 of {key} within {OFF:.0%} of the range of the demonstrations' own"
    worst = int(gaps.argmax())
    found = (
        f"{NAMES[worst]}: [{stats.low[worst]:.3f}, {stats.high[worst]:.3f}], demonstrations "
        f"[{own.low[worst]:.3f}, {own.high[worst]:.3f}]"
    )
    if gaps[worst] <= OFF:
        return passed(expected, found)
    if demos.scripted:
        return skipped(f"{found}; those were made by the doctor: give --demos of the training")
    wrong = ", ".join(NAMES[i] for i in np.flatnonzero(gaps > OFF))
    return failed(
        expected, found,
        f"these are another data set's statistics ({wrong} differ): {WRITE}; or the demonstrations "
        "are not those it was trained on",
    )  # fmt: skip
