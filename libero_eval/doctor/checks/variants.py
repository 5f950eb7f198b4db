"""Would the policy act better if something about it were declared otherwise?

Each variant changes one thing a user may have got wrong, and is compared with the policy as
configured, paired over frames of demonstrations. The best one is named if it is clearly better than
that, and than always the mean action: a broken policy is easily surpassed by one that does less.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from invact_vla.core.schema import Observation
from invact_vla.data.action_stats import ActionStats
from invact_vla.data.conventions import gripper_to_training, normalization_mask, rotate
from invact_vla.openvla.config import PROMPT
from libero_eval.doctor import inside
from libero_eval.doctor.answers import Answers, Ask, Change, clearly_better, with_camera
from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, skipped, warned

INVERTED_SHARE = 0.8  # of wrong gripper signs that means the sign is inverted
TURNED = {"rotate180": "turned by 180 degrees", "flip": "upside down", "mirror": "mirrored"}
TEMPLATES = {
    "with OpenVLA's prompt": PROMPT,
    "with a full stop": "In: What action should the robot take to {instruction}.?\nOut:",
    "with the bare instruction": "{instruction}",
    "with the prompt of openvla-v01": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions. USER: What action "
        "should the robot take to {instruction}? ASSISTANT:"
    ),
}


@dataclass(frozen=True)
class Variant:
    """One thing otherwise. name: what would be better; advice: how to make it so."""

    name: str
    advice: str
    change: Change
    ask: Ask | None = None


def same(observation: Observation) -> Observation:
    """Nothing changed."""
    return observation


def turned(cameras: tuple[str, ...], how: str) -> Change:
    """Frames of these cameras turned."""

    def change(observation: Observation) -> Observation:
        for camera in cameras:
            observation = with_camera(
                observation, camera, rotate(getattr(observation, camera), how)
            )
        return observation

    return change


def swapped(observation: Observation) -> Observation:
    """Each camera's frame in the other's place."""
    assert observation.wrist is not None
    return replace(observation, agentview=observation.wrist, wrist=observation.agentview)


def variants_of(context: DiagnosticContext) -> Iterator[Variant]:
    """All that can be tried on this policy."""
    needs = context.policy_needs
    groups = [(c,) for c in needs] + ([needs] if len(needs) > 1 else [])
    for cameras in groups:
        label = " and ".join(cameras)
        for how, words in TURNED.items():
            advice = (
                f"it was trained on {label} frames {words} to what it gets: correct "
                f"invact.image_rotation in config.json (now {_image_rotation(context)})"
            )
            yield Variant(f"{label} {words}", advice, turned(cameras, how))
    if context.folder is None:
        if len(needs) > 1:
            yield Variant("cameras swapped", "exchange the policy's cameras", swapped)
        return
    yield from _declared(context, needs)


def _declared(context: DiagnosticContext, needs: tuple[str, ...]) -> Iterator[Variant]:
    """What a checkpoint declares about itself, otherwise."""
    model, shown = context.model, context.demos.demos[0].frames
    for cameras in (("agentview",), ("wrist",), ("agentview", "wrist"), ("wrist", "agentview")):
        if cameras != needs and set(cameras) <= set(shown):
            listed = ", ".join(cameras)
            advice = f"set invact.cameras in config.json to [{listed}] (now {list(needs)})"
            name = "cameras swapped" if cameras == needs[::-1] else f"cameras {listed}"
            yield Variant(name, advice, same, inside.with_cameras(model, cameras))
    actions = context.demos.all_actions.copy()
    opened = gripper_to_training(actions[:, 6])
    actions[:, 6] = opened if model.gripper_open else 1 - opened
    own = ActionStats.of(
        actions, normalization_mask(actions.shape[1], gripper=True), model.actions.bounds
    )
    advice = "put the statistics of its training data into dataset_statistics.json: see `quantiles`"
    ask = inside.with_statistics(model, own)
    yield Variant("statistics of the demonstrations", advice, same, ask)
    for name, template in TEMPLATES.items():
        if template != model.sequences.template:
            advice = f"set invact.prompt in config.json to {template!r}"
            yield Variant(name, advice, same, inside.with_prompt(model, template))


def _image_rotation(context: DiagnosticContext) -> str:
    return "no such field" if context.folder is None else str(list(context.model.image_rotation))


def variants(context: DiagnosticContext) -> Finding:
    """No variant is clearly better than the policy as configured, and the gripper's sign is right."""
    if context.unseen:
        return skipped(context.unseen)
    answers = context.answers
    true = answers.errors(answers.configured)
    expected = "no variant acts clearly better on demonstrations than the policy as configured"
    best, errors, tried = None, true, 0
    for variant in variants_of(context):
        tried += 1
        other = answers.errors(answers.under(variant.change, variant.ask))
        better = all(clearly_better(other.motion, e.motion) for e in (true, answers.idle))
        if better and other.motion.mean() < errors.motion.mean():
            best, errors = variant, other
    faults, advice = [], []
    if best is not None:
        numbers = f"error {true.motion.mean():.2f} -> {errors.motion.mean():.2f} sd"
        faults.append(f"{best.name}: {numbers}")
        advice.append(best.advice)
    if errors.gripper.mean() >= INVERTED_SHARE:
        faults.append(f"gripper sign inverted: {errors.gripper.mean():.0%} of signs are wrong")
        advice.append(_gripper_advice(context))
    if faults:
        return failed(expected, "; ".join(faults), "; ".join(advice))
    return passed(expected, f"{tried + 1} variants tried, error {true.all.mean():.2f} sd")


def _gripper_advice(context: DiagnosticContext) -> str:
    if context.folder is None:
        return "negate the last number of its actions"
    now = context.model.gripper_open
    return f"set invact.gripper_open in config.json to {1 - now} (now {now})"


def skill(context: DiagnosticContext) -> Finding:
    """Better than always the mean of all demonstrated actions."""
    if context.unseen:
        return skipped(context.unseen)
    answers: Answers = context.answers
    true, idle = answers.errors(answers.configured).all, answers.idle.all
    expected = "smaller open-loop errors than always the mean action"
    found = f"{true.mean():.2f} against {idle.mean():.2f} sd on {len(true)} frames"
    if clearly_better(true, idle):
        return passed(expected, found)
    if context.demos.scripted:
        return skipped(f"{found}, on the doctor's own demonstrations: give --demos of the training")
    advice = "it did not learn these demonstrations: train longer, or give those it was trained on"
    finding = failed if np.mean(true) >= np.mean(idle) else warned
    return finding(expected, found, advice)
