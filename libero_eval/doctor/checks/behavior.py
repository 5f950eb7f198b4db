"""Does the policy act as demonstrated, does it look, does it read, and would it act better if something
about it were declared otherwise?

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
from libero_eval.doctor.answers import Ask, Change, clearly_better, with_camera
from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, skipped, verdicts, warned
from libero_eval.env.tasks import task_instruction, task_names

INVERTED_SHARE = 0.8  # of wrong gripper signs that means the sign is inverted
NOTHING = 0.01  # mean change of the action, in standard deviations, that is no change
MERGE = "weights of the {part} were lost (merge, conversion), or another library drops them"
UNTRAINED = "it is barely trained: train longer; if it was trained well, "
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
    change: Change = lambda observation: observation
    ask: Ask | None = None


def _turned(cameras: tuple[str, ...], how: str) -> Change:

    def change(observation: Observation) -> Observation:
        for camera in cameras:
            frame = rotate(getattr(observation, camera), how)
            observation = with_camera(observation, camera, frame)
        return observation

    return change


def _swapped(observation: Observation) -> Observation:
    assert observation.wrist is not None
    return replace(observation, agentview=observation.wrist, wrist=observation.agentview)


def _variants_of(context: DiagnosticContext) -> Iterator[Variant]:
    needs = context.policy_needs
    now = "no such field" if context.folder is None else str(list(context.model.image_rotation))
    for cameras in [(c,) for c in needs] + ([needs] if len(needs) > 1 else []):
        label = " and ".join(cameras)
        for how, words in TURNED.items():
            advice = (
                f"it was trained on {label} frames {words} to what it gets: correct "
                f"invact.image_rotation in config.json (now {now})"
            )
            yield Variant(f"{label} {words}", advice, _turned(cameras, how))
    if context.folder is not None:
        yield from _declared(context, needs)
    elif len(needs) > 1:
        yield Variant("cameras swapped", "exchange the policy's cameras", _swapped)


def _declared(context: DiagnosticContext, needs: tuple[str, ...]) -> Iterator[Variant]:
    """What a checkpoint declares about itself, otherwise."""
    model, shown = context.model, context.demos.demos[0].frames
    for cameras in (("agentview",), ("wrist",), ("agentview", "wrist"), ("wrist", "agentview")):
        if cameras != needs and set(cameras) <= set(shown):
            listed = ", ".join(cameras)
            advice = f"set invact.cameras in config.json to [{listed}] (now {list(needs)})"
            name = "cameras swapped" if cameras == needs[::-1] else f"cameras {listed}"
            yield Variant(name, advice, ask=inside.with_cameras(model, cameras))
    actions = context.demos.all_actions.copy()
    opened = gripper_to_training(actions[:, 6])
    actions[:, 6] = opened if model.gripper_open else 1 - opened
    mask = normalization_mask(actions.shape[1], gripper=True)
    own = ActionStats.of(actions, mask, model.actions.bounds)
    advice = "put the statistics of its training data into dataset_statistics.json: see `quantiles`"
    ask = inside.with_statistics(model, own)
    yield Variant("statistics of the demonstrations", advice, ask=ask)
    for name, template in TEMPLATES.items():
        if template != model.sequences.template:
            advice = f"set invact.prompt in config.json to {template!r}"
            yield Variant(name, advice, ask=inside.with_prompt(model, template))


def variants(context: DiagnosticContext) -> Finding:
    """No variant is clearly better than the policy as configured, and the gripper's sign is right."""
    if context.unseen:
        return skipped(context.unseen)
    answers = context.answers
    true = answers.errors(answers.configured)
    expected = "no variant acts clearly better on demonstrations than the policy as configured"
    best, errors, tried = None, true, 0
    for variant in _variants_of(context):
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
        remedy = "negate the last number of its actions"
        if context.folder is not None:
            now = context.model.gripper_open
            remedy = f"set invact.gripper_open in config.json to {1 - now} (now {now})"
        advice.append(remedy)
    if faults:
        return failed(expected, "; ".join(faults), "; ".join(advice))
    return passed(expected, f"{tried + 1} variants tried, error {true.all.mean():.2f} sd")


def skill(context: DiagnosticContext) -> Finding:
    """Better than always the mean of all demonstrated actions."""
    if context.unseen:
        return skipped(context.unseen)
    answers = context.answers
    true, idle = answers.errors(answers.configured).all, answers.idle.all
    ok, warn, fail = verdicts("smaller open-loop errors than always the mean action")
    found = f"{true.mean():.2f} against {idle.mean():.2f} sd on {len(true)} frames"
    if clearly_better(true, idle):
        return ok(found)
    if context.demos.scripted:
        return skipped(f"{found}, on the doctor's own demonstrations: give --demos of the training")
    advice = "it did not learn these demonstrations: train longer, or give those it was trained on"
    return (fail if np.mean(true) >= np.mean(idle) else warn)(found, advice)


# -- senses


def image(context: DiagnosticContext) -> Finding:
    """Other frames of the first camera change the action, and for the worse."""
    needs = context.policy_needs
    return _see(context, needs[0]) if needs else skipped("the policy reads no camera")


def wrist(context: DiagnosticContext) -> Finding:
    """The same for the second camera."""
    needs = context.policy_needs
    return _see(context, needs[1]) if len(needs) > 1 else skipped("the policy reads one camera")


def _see(context: DiagnosticContext, camera: str) -> Finding:
    """Answers with the camera black, white, noise, and the frame of another task or moment."""
    answers, rng = context.answers, np.random.default_rng(context.seed)
    frames = [getattr(f.observation, camera) for f in answers.frames]
    half, count = len(frames) // 2, len(frames)
    fillings = {
        "black": [np.zeros_like(frames[0])] * count,
        "white": [np.full_like(frames[0], 255)] * count,
        "noise": [rng.integers(0, 256, frames[0].shape, dtype=np.uint8)] * count,
        "another frame": [*frames[half:], *frames[:half]],
    }
    chunks = {}
    for name, others in fillings.items():
        ours = (frame.observation for frame in answers.frames)
        changed = [with_camera(o, camera, other) for o, other in zip(ours, others, strict=True)]
        chunks[name] = [chunk.values for chunk in answers.ask(changed)]
    changes = {name: answers.change(values) for name, values in chunks.items()}
    expected = f"other {camera} frames change the action"
    found = ", ".join(f"{name} {change:.2f}" for name, change in changes.items()) + " sd"
    if max(changes.values()) < NOTHING:
        advice = _or_untrained(context, MERGE.format(part="vision towers or projector"))
        return failed(expected, f"the {camera} frame is ignored ({found})", advice)
    return _useful(context, chunks["another frame"], expected, found, f"the {camera} frame")


def words(context: DiagnosticContext) -> Finding:
    """Another instruction changes the action, and for the worse."""
    answers, suite, own = context.answers, context.protocol.suite, context.demos.instructions
    pool = own  # another task's: of the demonstrations if they have two, else of the suite
    if len(own) < 2:
        of_suite = [task_instruction(suite, place) for place in range(len(task_names(suite)))]
        pool = [text for text in of_suite if text not in own][:1] + own
    other = {text: next(t for t in pool if t != text) for text in own}
    said: dict[str, dict[str, str]] = {"blank": dict.fromkeys(own, ""), "another task's": other}
    even = {}  # texts of as many ids, for those instructions that have one
    if context.folder is not None:
        texts = {t: inside.same_length(context.model, t, o.split()) for t, o in other.items()}
        even = {own: text for own, text in texts.items() if text is not None}
    if even:
        said["as long"] = even
    changes = {
        name: answers.under(
            lambda o, by=by: replace(o, instruction=by.get(o.instruction, o.instruction))
        )
        for name, by in said.items()
    }
    effect = {name: answers.change(chunks) for name, chunks in changes.items()}
    expected = "another instruction changes the action"
    found = ", ".join(f"{name} {value:.2f}" for name, value in effect.items()) + " sd"
    if effect["as long" if even else "another task's"] < NOTHING:
        found = f"the instruction is ignored ({found})"
        if len(own) < 2 and not context.demos.scripted:
            advice = (
                "as it may be where one task alone was trained on: roll out that task, no other"
            )
            return warned(expected, found, advice)
        advice = _or_untrained(context, MERGE.format(part="embedding or tokenizer"))
        return failed(expected, found, advice)
    if len(own) < 2:
        return passed(expected, found)
    scenes = [d.scene for d in {d.instruction: d for d in context.demos.demos}.values()]
    if len(set(scenes)) == len(scenes):
        return passed(expected, f"{found}; the scenes tell the tasks apart too")
    return _useful(context, changes["another task's"], expected, found, "the instruction")


def _or_untrained(context: DiagnosticContext, advice: str) -> str:
    """A policy that does no better than the mean action has rather not learned than lost, unless its
    run tells of a training."""
    trained = "training" in context.findings and context.findings["training"].status == "pass"
    return advice if trained or context.answers.has_skill else UNTRAINED + advice


def _useful(
    context: DiagnosticContext, chunks: list[np.ndarray], expected: str, found: str, what: str
) -> Finding:
    """Whether the true input gives smaller errors than the exchanged one; not judged where errors
    have another cause already."""
    answers, findings = context.answers, context.findings
    if context.unseen or ("variants" in findings and findings["variants"].status == "fail"):
        return passed(expected, found)
    true = answers.errors(answers.configured).all
    exchanged = answers.errors(chunks).all
    if answers.has_skill and not clearly_better(true, exchanged):
        return warned(
            f"{expected}, and for the worse",
            f"{found}; the error is {true.mean():.2f} with {what}, {exchanged.mean():.2f} with "
            "another",
            f"{what} hardly matters to this policy: train longer, or on demonstrations that differ "
            "in it alone",
        )
    return passed(expected, found)
