"""Does the policy look, and does it read?"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from invact_vla.core.schema import Observation
from libero_eval.doctor.answers import Answers, Change, clearly_better, with_camera
from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.finding import Finding, failed, passed, skipped, warned
from libero_eval.doctor.inside import same_length
from libero_eval.env.tasks import task_instruction, task_names

NOTHING = 0.01  # mean change of the action, in standard deviations, that is no change
MERGE = "weights of the {part} were lost (merge, conversion), or another library drops them"
NONE = skipped("not asked")
UNTRAINED = "it is barely trained: train longer; if it was trained well, "


def image(context: DiagnosticContext) -> Finding:
    """Other frames of the first camera change the action, and for the worse."""
    needs = context.policy_needs
    if not needs:
        return skipped("the policy reads no camera")
    return _see(context, needs[0])


def wrist(context: DiagnosticContext) -> Finding:
    """The same for the second camera."""
    needs = context.policy_needs
    if len(needs) < 2:
        return skipped("the policy reads one camera")
    return _see(context, needs[1])


def _see(context: DiagnosticContext, camera: str) -> Finding:
    answers = context.answers
    fillings = _fillings(answers, camera, np.random.default_rng(context.subject.seed))
    changes = {name: answers.change(chunks) for name, chunks in fillings.items()}
    expected = f"other {camera} frames change the action"
    found = ", ".join(f"{name} {change:.2f}" for name, change in changes.items()) + " sd"
    if max(changes.values()) < NOTHING:
        return failed(
            expected, f"the {camera} frame is ignored ({found})",
            _or_untrained(context, MERGE.format(part="vision towers or projector")),
        )  # fmt: skip
    return _useful(context, fillings["another frame"], expected, found, f"the {camera} frame")


def _or_untrained(context: DiagnosticContext, advice: str) -> str:
    """A policy that does no better than the mean action has rather not learned than lost, unless its
    run tells of a training."""
    if context.answers.has_skill or context.findings.get("training", NONE).status == "pass":
        return advice
    return UNTRAINED + advice


def _fillings(
    answers: Answers, camera: str, rng: np.random.Generator
) -> dict[str, list[np.ndarray]]:
    """Answers with the camera black, white, noise, and the frame of another task or moment."""
    frames = [getattr(f.observation, camera) for f in answers.frames]
    noise = rng.integers(0, 256, frames[0].shape, dtype=np.uint8)
    half = len(frames) // 2
    other = [*frames[half:], *frames[:half]]
    by_id = {id(f.observation): o for f, o in zip(answers.frames, other, strict=True)}
    changes: dict[str, Callable[[Observation], np.ndarray]] = {
        "black": lambda o: np.zeros_like(frames[0]),
        "white": lambda o: np.full_like(frames[0], 255),
        "noise": lambda o: noise,
        "another frame": lambda o: by_id[id(o)],
    }

    def fill(make: Callable[[Observation], np.ndarray]) -> Change:
        return lambda o: with_camera(o, camera, make(o))

    return {name: answers.under(fill(make)) for name, make in changes.items()}


def words(context: DiagnosticContext) -> Finding:
    """Another instruction changes the action, and for the worse."""
    answers, suite = context.answers, context.protocol.suite
    all_texts = [task_instruction(suite, place) for place in range(len(task_names(suite)))]
    other = _other_instructions(context.demos.instructions, all_texts)
    changes = {
        "blank": answers.under(lambda o: replace(o, instruction="")),
        "another task's": answers.under(lambda o: replace(o, instruction=other[o.instruction])),
    }
    even = _even_texts(context, other)
    if even:
        changes["as long"] = answers.under(
            lambda o: replace(o, instruction=even.get(o.instruction, o.instruction))
        )
    effect = {name: answers.change(chunks) for name, chunks in changes.items()}
    expected = "another instruction changes the action"
    found = ", ".join(f"{name} {value:.2f}" for name, value in effect.items()) + " sd"
    ignored = effect["as long" if even else "another task's"] < NOTHING
    if ignored and len(context.demos.instructions) < 2 and not context.demos.scripted:
        return warned(
            expected, f"the instruction is ignored ({found})",
            "as it may be where one task alone was trained on: roll out that task, no other",
        )  # fmt: skip
    if ignored:
        return failed(
            expected, f"the instruction is ignored ({found})",
            _or_untrained(context, MERGE.format(part="embedding or tokenizer")),
        )  # fmt: skip
    if len(context.demos.instructions) < 2:
        return passed(expected, found)
    scenes = [d.scene for d in {d.instruction: d for d in context.demos.demos}.values()]
    if len(set(scenes)) == len(scenes):
        return passed(expected, f"{found}; the scenes tell the tasks apart too")
    return _useful(context, changes["another task's"], expected, found, "the instruction")


def _other_instructions(own: Sequence[str], all_texts: Sequence[str]) -> dict[str, str]:
    """For each instruction another one: of the demonstrations if they have two, else of the suite."""
    pool = list(own) if len(own) > 1 else [t for t in all_texts if t not in own][:1] + list(own)
    return {text: next(t for t in pool if t != text) for text in own}


def _even_texts(context: DiagnosticContext, other: dict[str, str]) -> dict[str, str]:
    """Texts of as many ids, for those instructions that have one."""
    if context.folder is None:
        return {}
    even = {own: same_length(context.model, own, text.split()) for own, text in other.items()}
    return {own: text for own, text in even.items() if text is not None}


def _useful(
    context: DiagnosticContext, chunks: list[np.ndarray], expected: str, found: str, what: str
) -> Finding:
    """Whether the true input gives smaller errors than the exchanged one; not judged where errors
    have another cause already."""
    answers = context.answers
    if context.unseen or (
        "variants" in context.findings and context.findings["variants"].status == "fail"
    ):
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
        )  # fmt: skip
    return passed(expected, found)
