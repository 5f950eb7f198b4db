"""Skills as vector fields: from where the hand is to an action. No timers, no trajectories.

All but `turn_toward` move the grip site only: the three rotation outputs are exactly 0.
One unit of action moves the hand by about 1.5 cm a step once it is at speed (OSC_POSE: goal 5 cm
ahead, kp 150, critically damped).
"""

import numpy as np

OPEN, CLOSE = -1.0, 1.0
GAIN = 16.0  # action per meter of error: the error shrinks by a quarter a step
SPEED = 0.9  # largest sideways and largest vertical action
ASIDE_M = (0.12, 0.18)  # heights above the goal: path down straight, fully aside
TURN_GAIN = 1.6  # action per radian of error: the same, as one unit is half a radian


def smoothstep(value: float, low: float, high: float) -> float:
    """0 below low, 1 above high, with a continuous slope between."""
    x = float(np.clip((value - low) / (high - low), 0.0, 1.0))
    return x * x * (3 - 2 * x)


def toward(error: np.ndarray, gripper: float) -> np.ndarray:
    """Move along the error (3,) in meters, slower near its end. Returns an action, float64 (7,)."""
    move = GAIN * error
    move[:2] /= max(1.0, float(np.linalg.norm(move[:2])) / SPEED)
    move[2] = np.clip(move[2], -SPEED, SPEED)
    return np.concatenate([move, np.zeros(3), [gripper]])


def hover_down(
    hand: np.ndarray, goal: np.ndarray, transit_z: float, gripper: float, *,
    inner: float = 0.008, outer: float = 0.06, askew: float = 0.0,
    aside: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:  # fmt: skip
    """Move above the goal and descend onto it, through a funnel above it.

    Far away (outer, m) the hand keeps transit_z, above the goal (inner) it descends; a hand that
    is below its height there rises before it moves sideways. askew: a turn that is still to be made
    before the descent, as if it were a distance, m. aside: sideways offset, (x, y) m, of the path
    down, which fades out above the goal.
    """
    error = goal - hand
    error[:2] += np.array(aside) * smoothstep(-error[2], *ASIDE_M)
    distance = float(np.linalg.norm(error[:2])) + askew
    height = goal[2] + (transit_z - goal[2]) * smoothstep(distance, inner, outer)
    error[2] = height - hand[2]
    error[:2] *= 1.0 - smoothstep(height - hand[2], 0.02, 0.06)
    return toward(error, gripper)


def lift_over(hand: np.ndarray, goal: np.ndarray, gripper: float) -> np.ndarray:
    """Rise to the goal's height and move sideways as soon as most of it is reached."""
    error = goal - hand
    error[:2] *= 1.0 - smoothstep(error[2], 0.01, 0.06)
    return toward(error, gripper)


def turn_toward(axes: np.ndarray, yaw: float, tilt: float = 0.0) -> np.ndarray:
    """Turn the hand upright, the line along which its fingers close at an angle in the x-y plane.

    axes: the hand's, (3, 3), columns. tilt: how far from upright, about that line, rad; at yaw pi
    the fingertips then point along +y. Returns the three rotation outputs of an action, float64.
    """
    c, s = np.cos(yaw), np.sin(yaw)
    upright = np.array([[c, s, 0.0], [s, -c, 0.0], [0.0, 0.0, -1.0]])
    c, s = np.cos(tilt), np.sin(tilt)
    goal = upright @ np.array([[1.0, 0.0, 0.0], [0.0, c, s], [0.0, -s, c]])
    turn = goal @ axes.T
    sine_axis = 0.5 * np.array(
        [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
    )
    sine = float(np.linalg.norm(sine_axis))
    angle = np.arctan2(sine, 0.5 * (np.trace(turn) - 1.0))
    move = TURN_GAIN * sine_axis * (angle / max(sine, 1e-9))
    return move / max(1.0, float(np.linalg.norm(move)) / SPEED)


def wrap(angle: float, period: float = 2 * np.pi) -> float:
    """The equal angle nearest to zero, rad."""
    return angle - period * round(angle / period)
