"""Do demonstrations, simulator and conventions agree?"""

import numpy as np

from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.demonstrations import Demonstration, restore
from libero_eval.doctor.finding import Finding, failed, passed, skipped, warned
from libero_eval.env.protocol import SETTLE_ACTION

LAG = 4  # steps after which the fingers show what the gripper was told
ROTATIONS = {
    "as the simulator returns them": (1, 1),
    "upside down": (-1, 1),
    "mirrored": (1, -1),
    "turned by 180 degrees": (-1, -1),
}
SIMILAR = 25.0  # gray levels between a stored frame and the same state in another asset pack
REPLAYS = 3


def conventions(context: DiagnosticContext) -> Finding:
    """Deltas, not absolute places; +1 closes; inside [-1, 1]."""
    demos = context.demos.demos
    expected = "actions are deltas in [-1, 1] that move the hand; +1 closes the gripper"
    largest = max(float(np.abs(d.executed).max()) for d in demos)
    if largest > 1 + 1e-6 or not np.isfinite(largest):
        return failed(
            expected, f"values up to {largest:.3g}",
            "unnormalised or absolute actions: convert them to LIBERO's OSC_POSE deltas",
        )  # fmt: skip
    sensed = [d for d in demos if d.ee_pos is not None and d.fingers is not None]
    if not sensed:
        return passed(
            expected, f"values up to {largest:.3g}; no places of the hand to compare with"
        )
    delta, absolute = (np.mean([_agreement(d, how) for d in sensed]) for how in ("delta", "place"))
    if absolute > max(delta, 0.5):
        return failed(
            expected, f"actions follow the hand's place ({absolute:.2f}), not its motion "
            f"({delta:.2f})",
            "absolute actions: take differences of places, 1 = 5 cm or 0.5 rad",
        )  # fmt: skip
    closing = float(np.mean([_closing(d) for d in sensed]))
    if closing > 0.2:
        return failed(
            expected, f"the fingers part after +1 (correlation {closing:+.2f})",
            "inverted gripper: negate the last number of the actions in the file",
        )  # fmt: skip
    found = f"motion follows actions ({delta:.2f}), fingers close after +1 ({closing:+.2f})"
    if delta < 0.3 or closing > -0.1:
        return warned(expected, found, "weak agreement: look at the demonstrations' actions")
    return passed(expected, found)


def _agreement(demo: Demonstration, how: str) -> float:
    """Mean correlation, over the three axes, of actions with the hand's motion or place."""
    assert demo.ee_pos is not None
    moved = np.diff(demo.ee_pos, axis=0) if how == "delta" else demo.ee_pos[1:]
    actions = demo.executed[:-1, :3]
    return float(np.mean([_correlation(actions[:, i], moved[:, i]) for i in range(3)]))


def _closing(demo: Demonstration) -> float:
    """Correlation of the gripper's action with how far the fingers are apart later."""
    assert demo.fingers is not None
    return _correlation(demo.executed[:-LAG, 6], demo.fingers[LAG:])


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < 3 or a.std() < 1e-9 or b.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def orientation(context: DiagnosticContext) -> Finding:
    """Re-render stored states and see how the stored frames lie."""
    expected = "stored frames lie as the simulator returns them"
    demo = next((d for d in context.demos.demos if d.states is not None), None)
    if demo is None or demo.states is None:
        return skipped("the demonstrations hold no simulator states")
    if demo.task_id is None:
        return skipped(no_task(context, demo))
    sim, middle = context.sim(demo.task_id), len(demo.times) // 2
    worst = 0.0
    for camera, frames in demo.frames.items():
        restore(sim, demo, demo.states[middle])
        fresh = sim.raw_image(camera, frames.shape[1]).astype(np.float64)
        gaps = {
            how: float(np.abs(frames[middle][::r, ::c] - fresh).mean())
            for how, (r, c) in ROTATIONS.items()
        }
        best, straight = min(gaps, key=lambda how: gaps[how]), gaps["as the simulator returns them"]
        worst = max(worst, straight)
        if best != "as the simulator returns them" and gaps[best] < 0.7 * straight:
            return failed(
                expected, f"the {camera} frames of {demo.name} are stored {best} "
                f"({gaps[best]:.1f} gray levels off, unturned {straight:.1f})",
                "turn them back in the file: whatever was trained on them sees other frames here",
            )  # fmt: skip
    found = f"{worst:.1f} gray levels off"
    if worst > SIMILAR:
        return warned(
            expected, found,
            "stored and rendered frames differ: demonstrations of another asset pack or state?",
        )  # fmt: skip
    return passed(expected, found)


def replay(context: DiagnosticContext) -> Finding:
    """One of the first demonstrations reaches its goal when its actions are replayed."""
    expected = "a demonstration reaches its goal when replayed"
    demos = [d for d in context.demos.demos if d.start is not None]
    demos = ([d for d in demos if d.task_id is not None] or demos)[:REPLAYS]
    if not demos:
        return skipped("the demonstrations hold no simulator states")
    if demos[0].task_id is None:
        return skipped(no_task(context, demos[0]))
    for tried, demo in enumerate(demos, start=1):
        assert demo.start is not None and demo.task_id is not None
        sim = context.sim(demo.task_id)
        restore(sim, demo, demo.start, settle=True)
        for step, action in enumerate(demo.executed, start=1):
            if sim.step(np.clip(action, -1, 1)):
                return passed(expected, f"{demo.name} after {step} steps, {_th(tried)} tried")
        for extra in range(10):  # the last object may still fall
            if sim.step(np.array([*SETTLE_ACTION[:6], demo.executed[-1, 6]])):
                steps = len(demo.executed) + extra + 1
                return passed(expected, f"{demo.name} after {steps} steps, {_th(tried)} tried")
    return failed(
        expected, f"none of {len(demos)} does, the last is {demos[-1].name}",
        "other physics, controller or asset pack than the demonstrations', or actions in another "
        "convention: see `versions` and `conventions`, and give the pack they were made with",
    )  # fmt: skip


def no_task(context: DiagnosticContext, demo: Demonstration) -> str:
    """Why the simulator is not asked."""
    return (
        f"{demo.name} is of no task of {context.protocol.suite_name}: give --suite with a folder that "
        "holds its BDDL file to have it simulated"
    )


def _th(number: int) -> str:
    return ("first", "second", "third")[number - 1]
