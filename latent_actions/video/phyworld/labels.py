"""What happens in a PhyWorld sample, read off its positions and initial values: the event, and the
nuisances (radius, height) that must not decide retrieval.
"""

import numpy as np

from latent_actions.video.phyworld.motion import (
    FRAME_S,
    FRAMES,
    RADII,
    SPEEDS,
    STEP_S,
    WORLD,
    Scenario,
    contact_time,
    speeds_after,
)

AT_REST = 0.05  # slower than this is no movement, units / s
RADIUS_BINS = (0.0, 0.7, 1.0, 1.3)  # lower edges, units
HEIGHT_BINS = 4


def event_of(scenario: Scenario, positions: np.ndarray, init: np.ndarray) -> str:
    """Name of the event, the label of retrieval. positions: (T, balls, 2); init as published.

    Uniform motion and parabola: the direction. Collision: which way each ball goes after the
    impact, and which one came faster.
    """
    if scenario == "collision":
        return _collision_event(positions, init)
    velocity = (positions[1, 0] - positions[0, 0]) / FRAME_S
    axis = 0 if scenario == "parabola" else int(np.abs(velocity).argmax())
    if abs(velocity[axis]) < AT_REST:
        return "fall straight" if scenario == "parabola" else "rest"
    direction = (("left", "right"), ("down", "up"))[axis][int(velocity[axis] > 0)]
    return f"{'fall' if scenario == 'parabola' else 'move'} {direction}"


def _collision_event(positions: np.ndarray, init: np.ndarray) -> str:
    r1, r2, v1, v2 = (float(value) for value in init[:4])
    distance = float(positions[0, 1, 0] - positions[0, 0, 0]) + STEP_S * (v1 + v2)
    if contact_time(distance, (r1, r2), (v1, v2)) > STEP_S + FRAME_S * (FRAMES - 1):
        return "approach"
    red, blue = speeds_after((r1, r2), (v1, v2))
    return (
        f"collide: red {_way(red, 1)}, blue {_way(blue, -1)}, {'red' if v1 > v2 else 'blue'} faster"
    )


def _way(speed: float, forward: int) -> str:
    if abs(speed) < AT_REST:
        return "stops"
    return "goes on" if speed * forward > 0 else "goes back"


def tags_of(scenario: Scenario, positions: np.ndarray, init: np.ndarray) -> dict[str, str | float]:
    """Labels, ground truth and nuisance bins of a sample: scenario, event, r1, v1 (r2, v2),
    radius_bin, height_bin, in_distribution (1 or 0).
    """
    balls = positions.shape[1]
    radii, speeds = init[:balls], init[balls : 2 * balls]
    low, high = RADII[scenario]
    inside = (radii >= low - 1e-6).all() and (radii <= high + 1e-6).all()
    inside = inside and (speeds >= SPEEDS[0] - 1e-6).all() and (speeds <= SPEEDS[1] + 1e-6).all()
    truth = {f"r{i + 1}": float(radii[i]) for i in range(balls)}
    truth |= {f"v{i + 1}": float(speeds[i]) for i in range(balls)}
    height = float(positions[0, 0, 1]) / WORLD
    return {
        "scenario": scenario,
        "event": event_of(scenario, positions, init),
        "radius_bin": f"r{int(np.searchsorted(RADIUS_BINS, radii.mean(), 'right')) - 1}",
        "height_bin": f"h{int(np.clip(height * HEIGHT_BINS, 0, HEIGHT_BINS - 1))}",
        "in_distribution": int(inside),
        **truth,
    }
