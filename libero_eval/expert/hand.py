"""What the expert knows: exact poses and finger forces, read from the simulator."""

from dataclasses import dataclass

import numpy as np

from libero_eval.env.sim import LiberoSim

FIRM_N = 9.0  # finger force from which an object may be lifted
STILL_M_S = 0.01  # fingers slower than this have stopped on something


@dataclass(frozen=True)
class Hand:
    """The gripper now.

    position: grip site, (3,) m. opening: distance between the fingertips, m, 0..0.08. squeeze: the
    smaller of the two finger forces, N, positive when closing. speed: of the faster finger, m/s.
    limit: the force the fingers can reach at this opening, N. axes: those of the grip site in
    columns, (3, 3): the first one along which the fingers close, the third one out of the hand.
    """

    position: np.ndarray
    opening: float
    squeeze: float
    speed: float
    limit: float
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
