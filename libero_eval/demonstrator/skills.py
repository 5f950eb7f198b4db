"""Skills as vector fields: from where the hand is to an action. No timers, no trajectories.

All of them move the grip site and never rotate the hand: the three rotation outputs are exactly 0.
One unit of action moves the hand by about 1.5 cm a step once it is at speed (OSC_POSE: goal 5 cm
ahead, kp 150, critically damped).
"""

import numpy as np

OPEN, CLOSE = -1.0, 1.0
GAIN = 16.0  # action per metre of error: the error shrinks by a quarter a step
SPEED = 0.9  # largest sideways and largest vertical action


def smoothstep(value: float, low: float, high: float) -> float:
    """0 below low, 1 above high, with a continuous slope between."""
    x = float(np.clip((value - low) / (high - low), 0.0, 1.0))
    return x * x * (3 - 2 * x)


def toward(error: np.ndarray, gripper: float) -> np.ndarray:
    """Move along the error (3,) in metres, slower near its end. Returns an action, float64 (7,)."""
    move = GAIN * error
    move[:2] /= max(1.0, float(np.linalg.norm(move[:2])) / SPEED)
    move[2] = np.clip(move[2], -SPEED, SPEED)
    return np.concatenate([move, np.zeros(3), [gripper]])


def hover_down(
    hand: np.ndarray, goal: np.ndarray, transit_z: float, gripper: float, *,
    inner: float = 0.008, outer: float = 0.06,
) -> np.ndarray:  # fmt: skip
    """Move above the goal and descend onto it, through a funnel above it.

    Far away (outer, m) the hand keeps transit_z, above the goal (inner) it descends; a hand that
    is below its height there rises before it moves sideways.
    """
    error = goal - hand
    distance = float(np.linalg.norm(error[:2]))
    height = goal[2] + (transit_z - goal[2]) * smoothstep(distance, inner, outer)
    error[2] = height - hand[2]
    error[:2] *= 1.0 - smoothstep(height - hand[2], 0.02, 0.06)
    return toward(error, gripper)


def lift_over(hand: np.ndarray, goal: np.ndarray, gripper: float) -> np.ndarray:
    """Rise to the goal's height and move sideways as soon as most of it is reached."""
    error = goal - hand
    error[:2] *= 1.0 - smoothstep(error[2], 0.01, 0.06)
    return toward(error, gripper)
