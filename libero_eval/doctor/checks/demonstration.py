"""Do demonstrations, simulator and conventions agree?"""

import numpy as np

from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.demonstrations import Demonstration, restore
from libero_eval.doctor.finding import Finding, skipped, verdicts
from libero_eval.env.protocol import SETTLE_ACTION

LAG = 4  # steps after which the fingers show what the gripper was told
STRAIGHT = "as the simulator returns them"
ROTATIONS = {
    STRAIGHT: (1, 1),
    "upside down": (-1, 1),
    "mirrored": (1, -1),
    "turned by 180 degrees": (-1, -1),
}
SIMILAR = 25.0  # gray levels between a stored frame and the same state in another asset pack
REPLAYS = 3
NO_STATES = "the demonstrations hold no simulator states"


def conventions(context: DiagnosticContext) -> Finding:
    """Deltas, not absolute places; +1 closes; inside [-1, 1]."""
    demos = context.demos.demos
    ok, warn, fail = verdicts(
        "actions are deltas in [-1, 1] that move the hand; +1 closes the gripper"
    )
    largest = max(float(np.abs(d.executed).max()) for d in demos)
    if largest > 1 + 1e-6 or not np.isfinite(largest):
        remedy = "unnormalized or absolute actions: convert them to LIBERO's OSC_POSE deltas"
        return fail(f"values up to {largest:.3g}", remedy)
    hands, closings = [], []
    for demo in demos:
        if demo.ee_pos is not None and demo.fingers is not None:
            moves, places = np.diff(demo.ee_pos, axis=0), demo.ee_pos[1:]
            actions = demo.executed[:-1]
            hands.append([_correlation(actions[:, :3], like) for like in (moves, places)])
            closings.append(_correlation(demo.executed[:-LAG, 6:], demo.fingers[LAG:, None]))
    if not hands:
        return ok(f"values up to {largest:.3g}; no places of the hand to compare with")
    delta, absolute = np.mean(hands, axis=0)
    if absolute > max(delta, 0.5):
        return fail(
            f"actions follow the hand's place ({absolute:.2f}), not its motion ({delta:.2f})",
            "absolute actions: take differences of places, 1 = 5 cm or 0.5 rad",
        )
    closing = float(np.mean(closings))
    if closing > 0.2:
        remedy = "inverted gripper: negate the last number of the actions in the file"
        return fail(f"the fingers part after +1 (correlation {closing:+.2f})", remedy)
    found = f"motion follows actions ({delta:.2f}), fingers close after +1 ({closing:+.2f})"
    if delta < 0.3 or closing > -0.1:
        return warn(found, "weak agreement: look at the demonstrations' actions")
    return ok(found)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over the columns of a and b, (N, K) each; 0 for a column that is constant."""
    pairs = [(x, y) for x, y in zip(a.T, b.T, strict=True)]
    steady = [len(x) < 3 or x.std() < 1e-9 or y.std() < 1e-9 for x, y in pairs]
    found = zip(pairs, steady, strict=True)
    return float(np.mean([0.0 if flat else np.corrcoef(x, y)[0, 1] for (x, y), flat in found]))


def orientation(context: DiagnosticContext) -> Finding:
    """Re-render stored states and see how the stored frames lie."""
    ok, warn, fail = verdicts("stored frames lie as the simulator returns them")
    demo = next((d for d in context.demos.demos if d.states is not None), None)
    if demo is None or demo.states is None:
        return skipped(NO_STATES)
    if demo.task_id is None:
        return skipped(_no_task(context, demo))
    sim, middle = context.sim(demo.task_id), len(demo.times) // 2
    worst = 0.0
    for camera, frames in demo.frames.items():
        restore(sim, demo, demo.states[middle])
        fresh = sim.raw_image(camera, frames.shape[1]).astype(np.float64)
        gaps = {
            how: float(np.abs(frames[middle][::r, ::c] - fresh).mean())
            for how, (r, c) in ROTATIONS.items()
        }
        best, straight = min(gaps, key=lambda how: gaps[how]), gaps[STRAIGHT]
        worst = max(worst, straight)
        if best != STRAIGHT and gaps[best] < 0.7 * straight:
            return fail(
                f"the {camera} frames of {demo.name} are stored {best} ({gaps[best]:.1f} gray levels "
                f"off, unturned {straight:.1f})",
                "turn them back in the file: whatever was trained on them sees other frames here",
            )
    found = f"{worst:.1f} gray levels off"
    if worst > SIMILAR:
        return warn(
            found,
            "stored and rendered frames differ: demonstrations of another asset pack or state?",
        )
    return ok(found)


def replay(context: DiagnosticContext) -> Finding:
    """One of the first demonstrations reaches its goal when its actions are replayed."""
    ok, _, fail = verdicts("a demonstration reaches its goal when replayed")
    demos = [d for d in context.demos.demos if d.start is not None]
    demos = ([d for d in demos if d.task_id is not None] or demos)[:REPLAYS]
    if not demos:
        return skipped(NO_STATES)
    if demos[0].task_id is None:
        return skipped(_no_task(context, demos[0]))
    for which, demo in zip(("first", "second", "third"), demos, strict=False):
        assert demo.start is not None and demo.task_id is not None
        sim = context.sim(demo.task_id)
        restore(sim, demo, demo.start, settle=True)
        still = [*SETTLE_ACTION[:6], demo.executed[-1, 6]]  # the last object may still fall
        for step, action in enumerate([*np.clip(demo.executed, -1, 1), *[still] * 10], start=1):
            if sim.step(np.array(action)):
                return ok(f"{demo.name} after {step} steps, {which} tried")
    return fail(
        f"none of {len(demos)} does, the last is {demos[-1].name}",
        "other physics, controller or asset pack than the demonstrations', or actions in another "
        "convention: see `versions` and `conventions`, and give the pack they were made with",
    )


def _no_task(context: DiagnosticContext, demo: Demonstration) -> str:
    return (
        f"{demo.name} is of no task of {context.protocol.suite_name}: give --suite with a folder that "
        "holds its BDDL file to have it simulated"
    )
