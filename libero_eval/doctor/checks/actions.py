"""Does the policy load, and do actions survive its tokens?"""

import numpy as np

from invact_vla.data.action_stats import REST_ZONE
from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, skipped
from libero_eval.doctor.inside import round_trip, tokens_of
from libero_eval.policies import NOOP_ACTION
from libero_eval.serving.responses import unit_range

CUT_SHARE = 0.2  # of the actions; q01 and q99 cut off about 2 % a moving dimension


def loads(context: DiagnosticContext) -> Finding:
    """The policy can be loaded and answers with actions; UserError becomes the finding."""
    expected = "loads, and answers with finite actions in [-1, 1]"
    try:
        values = context.answers.configured[0]
    except ValueError as error:  # the border of schema.ActionChunk
        advice = "weights are damaged, or statistics reach beyond [-1, 1]: convert or train again"
        return failed(expected, str(error), advice)
    fault = unit_range(np.concatenate([chunk[:, 6] for chunk in context.answers.configured]))
    if fault is not None and context.demos.all_actions[:, 6].min() < 0:
        return failed(
            "a gripper of -1 open, +1 close", fault, "convert the gripper where it is sent"
        )
    return passed(expected, f"chunks of {len(values)} actions")


def tokens(context: DiagnosticContext) -> Finding:
    """Demonstrated actions come back from tokens within a bin; the gripper keeps its sign; holding
    still stays holding still (openvla, arxiv.org/abs/2406.09246, §3.2)."""
    policy, actions = context.model, context.demos.all_actions
    action_tokens = tokens_of(policy)
    if action_tokens is None:
        return skipped("its head does not answer with action tokens")
    stats = policy.actions
    width = 1 / (action_tokens.bins - 1) + stats.resting * REST_ZONE / 2
    step = np.where(stats.mask, (stats.high - stats.low) * width, 2.0)[:6]
    back = round_trip(policy, actions)
    inside = (actions[:, :6] >= stats.low[:6] - 1e-9) & (actions[:, :6] <= stats.high[:6] + 1e-9)
    off = np.abs(back - actions)[:, :6]
    lost = int((inside & (off > step + 1e-6)).sum())
    cut = float((~inside).any(1).mean())
    flipped = float((np.sign(back[:, 6]) != np.sign(actions[:, 6])).mean())
    still = round_trip(policy, np.array([NOOP_ACTION]))[0]
    expected = "actions return from tokens within a bin, the gripper with its sign, rest as rest"
    found = f"{lost} beyond a bin, {cut:.0%} cut off by q01 and q99, {flipped:.0%} gripper flips"
    if lost or flipped:
        return failed(expected, found, "n_action_bins, vocabulary or the gripper's mask are wrong")
    if np.any(np.abs(still[:6]) > step + 1e-6) or still[6] != NOOP_ACTION[6]:
        return failed(
            expected, f"holding still becomes {still.round(3).tolist()}",
            "0 lies outside [q01, q99]: the arm would drift; these statistics are not of deltas",
        )  # fmt: skip
    if cut > CUT_SHARE:
        return failed(
            expected, found, "the statistics are too narrow for these actions: see `quantiles`"
        )
    return passed(expected, found)
