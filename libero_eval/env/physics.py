"""One control step of robosuite, bit for bit, with a third of its work.

robosuite computes all derived quantities three times a physics step of 2 ms: before the controller,
inside it, and inside `mj_step`. Positions and velocities do not change between them, so that the
second and third time only the part after the velocity stage (actuation, accelerations, the contact
solver with its warm start) has to run. Names that robosuite looks up each time are looked up once.
"""

import importlib
from typing import Any

import numpy as np

SUBSTEPS = 25  # physics steps of 2 ms a control step
SAMPLED_SUBSTEP = 23  # the one after which robosuite samples its observables


class Stepper:
    """Steps one environment. Keep one for the life of its model."""

    def __init__(self, env: Any) -> None:
        """env: LIBERO's problem environment, with one Panda and the OSC_POSE controller."""
        mujoco: Any = importlib.import_module("mujoco")
        self._mujoco, self._env, self._robot = mujoco, env, env.robots[0]
        self._model, self._data = env.sim.model._model, env.sim.data._data
        self._site = self._robot.eef_site_id
        nv = self._model.nv
        self._jacobians = np.zeros((2, 3, nv))
        self._mass = np.zeros((nv, nv))
        self._columns = np.array(self._robot._ref_joint_vel_indexes)
        arm = self._robot._ref_joint_actuator_indexes
        fingers = self._robot._ref_joint_gripper_actuator_indexes
        self._arm, self._fingers = np.array(arm), np.array(fingers)
        self._torque_low, self._torque_high = self._model.actuator_ctrlrange[arm].T.copy()
        low, high = self._model.actuator_ctrlrange[fingers].T
        self._finger_bias, self._finger_weight = 0.5 * (high + low), 0.5 * (high - low)
        if self._model.opt.integrator != mujoco.mjtIntegrator.mjINT_EULER:
            raise ValueError("expected the Euler integrator, as in all LIBERO scenes")

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run one control step of 50 ms. action: float64 (7,) in [-1, 1].

        Returns what robosuite's observables would show after it: (qpos of the kinematics, qpos of
        the joints). They are sampled in the last physics step but one (float rounding of its
        sampling clock), after the integration but before the kinematics are computed anew.
        """
        m, model, data = self._mujoco, self._model, self._data
        controller = self._robot.controller  # robosuite makes a new one at every reset
        controller.update = lambda force=False: self._update(controller, force)
        kinematics = joints = data.qpos
        for substep in range(SUBSTEPS):
            m.mj_forward(model, data)
            self._control(controller, action, is_new=substep == 0)
            if substep == SAMPLED_SUBSTEP:
                kinematics = data.qpos.copy()
            # `mj_step` after a forward pass at the same positions and velocities
            m.mj_checkPos(model, data)
            m.mj_checkVel(model, data)
            m.mj_forwardSkip(model, data, int(m.mjtStage.mjSTAGE_VEL), 1)
            m.mj_checkAcc(model, data)
            m.mj_Euler(model, data)
            if substep == SAMPLED_SUBSTEP:
                joints = data.qpos.copy()
        del controller.update
        self._env._post_process()
        return kinematics, joints

    def _control(self, controller: Any, action: np.ndarray, is_new: bool) -> None:
        """robosuite's `SingleArm.control` without the buffers of recent values."""
        if is_new:
            controller.set_goal(action[:6])
        torques = controller.run_controller()
        gripper = self._robot.gripper
        move = np.array([-1.0, 1.0]) * gripper.speed * np.sign(action[6:])
        command = np.minimum(np.maximum(gripper.current_action + move, -1.0), 1.0)
        gripper.current_action = command
        control = self._data.ctrl
        control[self._fingers] = self._finger_bias + self._finger_weight * command
        control[self._arm] = np.minimum(np.maximum(torques, self._torque_low), self._torque_high)

    def _update(self, controller: Any, force: bool) -> None:
        """robosuite's `Controller.update` for the state of the last forward pass."""
        if not (controller.new_update or force):
            return
        m, model, data = self._mujoco, self._model, self._data
        m.mj_forwardSkip(model, data, int(m.mjtStage.mjSTAGE_VEL), 1)
        jacp, jacr = self._jacobians
        m.mj_jacSite(model, data, jacp, jacr, self._site)
        m.mj_fullM(model, self._mass, data.qM)
        controller.ee_pos = data.site_xpos[self._site].copy()
        controller.ee_ori_mat = data.site_xmat[self._site].reshape(3, 3).copy()
        controller.ee_pos_vel = np.dot(jacp, data.qvel)
        controller.ee_ori_vel = np.dot(jacr, data.qvel)
        controller.joint_pos = data.qpos[controller.qpos_index]
        controller.joint_vel = data.qvel[controller.qvel_index]
        controller.J_pos = jacp[:, self._columns]
        controller.J_ori = jacr[:, self._columns]
        controller.J_full = np.vstack([controller.J_pos, controller.J_ori])
        # indexed as robosuite does: the memory layout decides which BLAS kernel runs
        controller.mass_matrix = self._mass[self._columns, :][:, self._columns]
        controller.new_update = False
