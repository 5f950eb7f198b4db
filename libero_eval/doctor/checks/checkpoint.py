"""Is a checkpoint trained, does it load, and does it declare what it was trained with: action
statistics, tokens, prompt, chunk?"""

from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.schema import LIBERO_ACTIONS
from invact_vla.data.action_stats import REST_ZONE, ActionStats
from invact_vla.data.conventions import gripper_to_training
from invact_vla.openvla.config import PROMPT
from libero_eval.doctor.context import LEAST_STEPS, DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, skipped, verdicts, warned
from libero_eval.doctor.inside import round_trip, tokens_of, trained_chunk
from libero_eval.policies import NOOP_ACTION
from libero_eval.serving.responses import LEAST, NEAR, never_closes, unit_range

FEW_TRANSITIONS = 100
OFF = 0.35  # a quantile may differ from the demonstrations' by this share of their range
LEAST_RANGE = 0.05  # of an action
CUT_SHARE = 0.2  # of the actions; q01 and q99 cut off about 2 % a moving dimension
LONGEST_CHUNK = 50  # steps open loop; published policies: 1 to 25
NAMES = LIBERO_ACTIONS.names
WRITE = (
    "copy dataset_statistics.json of the post-training into the checkpoint folder, or post-train "
    "again with `invact vla posttrain`, which writes it"
)


def training(context: DiagnosticContext) -> Finding:
    """Enough steps for its answers to mean anything."""
    found = context.training
    if found is None or found.steps is None:
        return skipped("no record of its training lies beside it")
    ok, _, fail = verdicts(f"at least {LEAST_STEPS} steps")
    if found.barely:
        return fail(
            f"barely trained: {found.barely}",
            "train longer (--loop.steps); until then nothing can be said about its senses or skill",
        )
    return ok(f"{found.steps} steps, {found.run.name}")


def _chosen(context: DiagnosticContext) -> tuple[str, dict[str, Any]]:
    """(key, statistics): the only ones, or those of the suite; UserError if there are none."""
    from invact_vla.openvla.inference.policy import select_norm_stats

    known = context.config.norm_stats
    return select_norm_stats(known, context.protocol.suite if len(known) > 1 else None)


def action_statistics(context: DiagnosticContext) -> Finding:
    """Present, finite, in order, in the environment's range."""
    expected = "finite q01 < q99 (or constant) inside [-1, 1], gripper not normalized"
    try:
        key, values = _chosen(context)
        stats = ActionStats.from_json(values["action"])
    except UserError as error:
        return failed(expected, str(error), WRITE)
    faults = _faults(stats)
    if faults:
        return failed(expected, f"{key}: {'; '.join(faults)}", WRITE)
    count = values.get("num_transitions")
    found = f"{key}, {count if count is not None else 'unknown number of'} transitions"
    if count is None or count < FEW_TRANSITIONS:
        return warned(
            f"statistics of at least {FEW_TRANSITIONS} transitions",
            found,
            "quantiles of so few steps cut off real actions: compute them over the whole data set",
        )
    return passed(expected, found)


def _faults(stats: ActionStats) -> list[str]:
    low, high, mask = stats.low, stats.high, stats.mask
    if len(low) != len(NAMES):
        return [f"{len(low)} dimensions, expected {len(NAMES)}"]
    wide = np.flatnonzero(mask & (np.maximum(np.abs(low), np.abs(high)) > 1 + 1e-6))
    faults = [f"{NAMES[i]} in [{low[i]:.3g}, {high[i]:.3g}], outside [-1, 1]" for i in wide]
    if mask[6]:
        faults.append("the gripper is normalized (mask true)")
    elif low[6] < -1e-6 or high[6] > 1 + 1e-6:
        faults.append(f"the gripper in [{low[6]:.3g}, {high[6]:.3g}], expected 0 and 1")
    return faults


def quantiles(context: DiagnosticContext) -> Finding:
    """Statistics like those of the demonstrations: otherwise they are another data set's."""
    if context.unseen:
        return skipped(context.unseen)
    key, values = _chosen(context)
    stats, demos = ActionStats.from_json(values["action"]), context.demos
    actions = demos.all_actions.copy()
    actions[:, 6] = gripper_to_training(actions[:, 6])
    own = ActionStats.of(actions, stats.mask.tolist(), stats.bounds)
    span = np.maximum(own.high - own.low, LEAST_RANGE)
    gaps = np.maximum(np.abs(stats.low - own.low), np.abs(stats.high - own.high)) / span
    gaps[~stats.mask] = 0.0
    ok, _, fail = verdicts(
        f"q01 and q99 of {key} within {OFF:.0%} of the range of the demonstrations' own"
    )
    worst = int(gaps.argmax())
    found = (
        f"{NAMES[worst]}: [{stats.low[worst]:.3f}, {stats.high[worst]:.3f}], demonstrations "
        f"[{own.low[worst]:.3f}, {own.high[worst]:.3f}]"
    )
    if gaps[worst] <= OFF:
        return ok(found)
    if demos.scripted:
        return skipped(f"{found}; those were made by the doctor: give --demos of the training")
    wrong = ", ".join(NAMES[i] for i in np.flatnonzero(gaps > OFF))
    return fail(
        found,
        f"these are another data set's statistics ({wrong} differ): {WRITE}; or the demonstrations "
        "are not those it was trained on",
    )


def loads(context: DiagnosticContext) -> Finding:
    """The policy can be loaded and answers with actions; UserError becomes the finding."""
    ok, _, fail = verdicts("loads, and answers with finite actions in [-1, 1]")
    try:
        configured = context.answers.configured
    except ValueError as error:  # the border of schema.ActionChunk
        remedy = "weights are damaged, or statistics reach beyond [-1, 1]: convert or train again"
        return fail(str(error), remedy)
    gripper = np.concatenate([chunk[:, 6] for chunk in configured])
    demonstrated = context.demos.all_actions[:, 6]
    fault = unit_range(gripper) if demonstrated.min() < 0 else None
    if fault is None and demonstrated.max() > 0:
        opened, still = int(np.sum(gripper <= NEAR - 1)), int(np.sum(np.abs(gripper) <= NEAR))
        fault = never_closes(gripper.max(), opened, still, len(gripper), LEAST)
    if fault is not None:
        expected = "a gripper of -1 open, +1 close"
        return failed(expected, fault, "convert the gripper where it is sent")
    return ok(f"chunks of {len(configured[0])} actions")


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
    ok, _, fail = verdicts(
        "actions return from tokens within a bin, the gripper with its sign, rest as rest"
    )
    found = f"{lost} beyond a bin, {cut:.0%} cut off by q01 and q99, {flipped:.0%} gripper flips"
    if lost or flipped:
        return fail(found, "n_action_bins, vocabulary or the gripper's mask are wrong")
    if np.any(np.abs(still[:6]) > step + 1e-6) or still[6] != NOOP_ACTION[6]:
        return fail(
            f"holding still becomes {still.round(3).tolist()}",
            "0 lies outside [q01, q99]: the arm would drift; these statistics are not of deltas",
        )
    if cut > CUT_SHARE:
        return fail(found, "the statistics are too narrow for these actions: see `quantiles`")
    return ok(found)


def prompt(context: DiagnosticContext) -> Finding:
    """OpenVLA's prompt, and instructions that stay different after the tokenizer."""
    ok, warn, fail = verdicts(f"{PROMPT!r}, instructions distinguished")
    template = context.config.invact.prompt
    if "{instruction}" not in template:
        return fail(
            f"{template!r} has no {{instruction}}: the words are never shown",
            "correct invact.prompt in config.json",
        )
    sequences = context.model.sequences
    texts = [*context.demos.instructions, "open the drawer", "close the drawer"]
    ids = [tuple(sequences.prompt(text)) for text in texts]
    unknown = "this tokenizer does not know the words: use the one it was trained with"
    if len(set(ids)) < len(set(texts)):
        return fail("different instructions give the same ids", unknown)
    text = template.replace("{instruction}", texts[0].lower())
    back = sequences.tokenizer.decode(sequences.tokenizer.encode(text))
    if "".join(text.split()) not in "".join(back.split()):
        return fail(f"the tokenizer gives {back!r} back for {text!r}", unknown)
    if template != PROMPT:
        return warn(repr(template), "right only if it was trained with this text; see `variants`")
    return ok(f"{len(ids[0])} ids")


def chunk(context: DiagnosticContext) -> Finding:
    """After the declared number of actions the model says that it is done (EOS)."""
    if context.unseen:
        return skipped(context.unseen)
    declared = context.config.invact.chunk
    ok, _, fail = verdicts(f"the model ends its answer after the declared {declared} actions")
    if declared > LONGEST_CHUNK:
        return fail(f"{declared} actions open loop", "correct invact.chunk in config.json")
    trained = trained_chunk(context.model, [f.observation for f in context.answers.frames[:6]])
    if trained is None:
        return skipped("the model never ends an answer: its trained chunk cannot be told")
    if trained != declared:
        remedy = f"set invact.chunk to {trained} in config.json"
        return fail(f"it ends after {trained}", f"{remedy}: it was trained on chunks of {trained}")
    return ok(f"it ends after {trained}")
