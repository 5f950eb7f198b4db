"""The expert's hand: what is known of it (exact poses and finger forces, read from the simulator),
how it moves, and in which manner.

Skills are vector fields: from where the hand is to an action. No timers, no trajectories. All but
`turn_toward` move the grip site only: the three rotation outputs are exactly 0. One unit of action
moves the hand by about 1.5 cm a step once it is at speed (OSC_POSE: goal 5 cm ahead, kp 150,
critically damped).
"""

from dataclasses import dataclass

import numpy as np

from libero_eval.env.sim import LiberoSim

FIRM_N = 9.0  # finger force from which an object may be lifted
STILL_M_S = 0.01  # fingers slower than this have stopped on something
OPEN, CLOSE = -1.0, 1.0
GAIN = 16.0  # action per meter of error: the error shrinks by a quarter a step
SPEED = 0.9  # largest sideways and largest vertical action
ASIDE_M = (0.12, 0.18)  # heights above the goal: path down straight, fully aside
TURN_GAIN = 1.6  # action per radian of error: the same, as one unit is half a radian
SLOWEST = 0.5
HIGHEST_M = 0.06  # keeps the arm within reach over every table
WIDEST_M = 0.025  # at this offset open fingers still clear the object when the hand straightens


@dataclass(frozen=True)
class Hand:
    """The gripper now."""

    position: np.ndarray  # grip site, (3,) m
    opening: float  # distance between the fingertips, m, 0..0.08
    squeeze: float  # the smaller of the two finger forces, N, positive when closing
    speed: float  # of the faster finger, m/s
    limit: float  # the force the fingers can reach at this opening, N
    # those of the grip site in columns, (3, 3): along the first one the fingers close, the third one
    # points out of the hand
    axes: np.ndarray

    @property
    def yaw(self) -> float:
        """Angle in the world's x-y plane of the line along which the fingers close, rad."""
        return float(np.arctan2(self.axes[1, 0], self.axes[0, 0]))

    @property
    def is_firm(self) -> bool:
        """Whether the fingers have stopped on something and press on it as hard as they should."""
        return self.speed < STILL_M_S and self.squeeze > min(FIRM_N, 0.8 * self.limit)


def read_hand(sim: LiberoSim) -> Hand:
    """The gripper's state after the last physics step."""
    robot = sim.env.robots[0]
    actuators = robot._ref_joint_gripper_actuator_indexes
    fingers = sim.data.qpos[robot._ref_gripper_joint_pos_indexes]
    gain = sim.model.actuator_gainprm[actuators, 0]
    inward = np.array([1.0, -1.0])
    return Hand(
        position=sim.gripper_position(),
        opening=float(fingers[0] - fingers[1]),
        squeeze=float((gain * (fingers - sim.data.ctrl[actuators]) * inward).min()),
        speed=float(np.abs(sim.data.qvel[robot._ref_gripper_joint_vel_indexes]).max()),
        limit=float((gain * fingers * inward).min()),
        axes=sim.data.site_xmat[robot.eef_site_id].reshape(3, 3).copy(),
    )


def position_of(sim: LiberoSim, name: str) -> np.ndarray:
    """World position of an object's body or of the center of a region, float64 (3,), m."""
    if name in sim.env.object_sites_dict:
        return sim.env.sim.data.get_site_xpos(name).copy()
    return sim.data.xpos[sim.env.obj_body_id[name]].copy()


def yaw_of(sim: LiberoSim, name: str) -> float:
    """Angle of the x axis of an object's body in the world's x-y plane, rad."""
    x_axis = sim.data.xmat[sim.env.obj_body_id[name]].reshape(3, 3)[:, 0]
    return float(np.arctan2(x_axis[1], x_axis[0]))


# -- skills


def smoothstep(value: float, low: float, high: float) -> float:
    """0 below low, 1 above high, with a continuous slope between."""
    x = float(np.clip((value - low) / (high - low), 0.0, 1.0))
    return x * x * (3 - 2 * x)


def _at_most(move: np.ndarray, limit: float) -> np.ndarray:
    return move / max(1.0, float(np.linalg.norm(move)) / limit)


def toward(error: np.ndarray, gripper: float) -> np.ndarray:
    """Move along the error (3,) in meters, slower near its end. Returns an action, float64 (7,)."""
    move = GAIN * error
    move[:2] = _at_most(move[:2], SPEED)
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
    return _at_most(TURN_GAIN * sine_axis * (angle / max(sine, 1e-9)), SPEED)


def wrap(angle: float, period: float = 2 * np.pi) -> float:
    """The equal angle nearest to zero, rad."""
    return angle - period * round(angle / period)


# -- how a demonstration is moved: people differ in pace and in the arcs of their hands


@dataclass(frozen=True)
class Style:
    """The manner of one demonstration; the default is the plain motion of the recipes."""

    speed: float = 1.0  # share of the plain motion's largest speed, 0.5..1
    rise: float = 0.0  # how much higher the hand travels, 0..0.06 m
    # sideways offset, (x, y) m, of the path along which the hand comes down onto an object; it fades
    # out above it; at most 0.025 m long
    approach: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if not SLOWEST <= self.speed <= 1.0 or not 0.0 <= self.rise <= HIGHEST_M:
            raise ValueError(
                f"need speed in [{SLOWEST}, 1] and rise in [0, {HIGHEST_M}], got {self}"
            )
        if np.hypot(*self.approach) > WIDEST_M:
            raise ValueError(f"need an approach offset of at most {WIDEST_M} m, got {self}")

    def paced(self, action: np.ndarray) -> np.ndarray:
        """The action, (7,), with its largest motions slowed down; small ones stay as they are."""
        if self.speed == 1.0:
            return action
        limit = SPEED * self.speed
        slow = action.copy()
        slow[:2], slow[3:6] = _at_most(slow[:2], limit), _at_most(slow[3:6], limit)
        slow[2] = np.clip(slow[2], -limit, limit)
        return slow


PLAIN = Style()


def random_style(rng: np.random.Generator) -> Style:
    """A style drawn evenly from all of them, for one demonstration."""
    angle, length = rng.uniform(-np.pi, np.pi), WIDEST_M * np.sqrt(rng.uniform())
    return Style(
        speed=float(rng.uniform(SLOWEST, 1.0)),
        rise=float(rng.uniform(0.0, HIGHEST_M)),
        approach=(float(length * np.cos(angle)), float(length * np.sin(angle))),
    )
