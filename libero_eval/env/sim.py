"""LIBERO's simulator as a small object: reset, step, observe.

    sim = LiberoSim("libero_10", 0, assets)
    sim.reset(init_index=3)
    observation = sim.observation()
    success = sim.step(action)

Episodes are order-free: what `reset(i)` gives does not depend on what ran before.
Frames are rendered when `observation()` is called, and only the cameras asked for.
"""

import hashlib
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.schema import Observation
from libero_eval.env import scene
from libero_eval.env.camera import CAMERA_NAMES, Camera
from libero_eval.env.init_states import init_states
from libero_eval.env.physics import Stepper
from libero_eval.env.protocol import SETTLE_ACTION
from libero_eval.env.tasks import task_instruction, task_name

ARM_NOISE_RAD = 0.02  # spread of the arm joints in LIBERO's own init states
RANGE_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Progress:
    """How near an episode came."""

    satisfied: int  # goal predicates true now
    total: int
    best: int  # the most of them at once so far
    closest_m: float  # smallest distance so far from the gripper to an object of the goal


@dataclass(frozen=True)
class Readings:
    """Robot sensors, float64."""

    ee_pos: np.ndarray  # grip site (3,), m
    ee_quat: np.ndarray  # hand (4,), x y z w
    gripper: np.ndarray  # finger joints (2,), m
    joints: np.ndarray  # arm joints (7,), rad


class LiberoSim:
    """One task in one process. Not thread-safe."""

    def __init__(
        self,
        suite: str,
        task_id: int,
        assets: Path,
        cameras: Sequence[str] = ("agentview",),
        image_size: int = 128,
        *,
        settle_steps: int = 10,
        settle_action: Sequence[float] = SETTLE_ACTION,
        reset_seed: int = 0,
        reseed: bool = False,
        edit_model: Callable[[str], str] | None = None,
    ) -> None:
        """assets: folder of an asset pack. cameras: of "agentview" and "wrist", rendered by
        `observation()`. image_size: pixels, square. edit_model: changes the scene's MJCF before it
        is compiled; the flat state must keep its length. The rest: fields of the protocol."""
        unknown = set(cameras) - set(CAMERA_NAMES)
        if unknown:
            raise UserError(f"unknown cameras {sorted(unknown)}; known: {', '.join(CAMERA_NAMES)}")
        self.suite, self.task_id = suite, task_id
        self.task = task_name(suite, task_id)
        self.instruction = task_instruction(suite, task_id)
        self.assets = Path(assets)
        self.cameras, self.image_size = tuple(cameras), image_size
        self.episode = "no episode yet"
        self.init_index: int | None = None  # of the running episode, if it began in an init state
        self._settle_steps = settle_steps
        self._settle_action = np.array(settle_action)
        self._reset_seed, self._reseed = reset_seed, reseed
        self._edit_model = edit_model
        self._init_states = init_states(suite, task_id)
        self._env: Any = None
        self._resets: Any = None
        self._stepper: Any = None
        self._sampled: tuple[np.ndarray, np.ndarray] | None = None
        self._shown: Any = None  # MjData that holds what the observables show
        self._camera: Camera | None = None
        self._best, self._closest_m = 0, float("inf")

    @property
    def env(self) -> Any:
        """LIBERO's problem environment, built at the first use."""
        if self._env is None:
            self._env = scene.build_env(self.suite, self.task, self.assets, self._edit_model)
            resets = scene.SeededResets if self._reseed else scene.SerialResets
            self._resets = resets(self._env, self._reset_seed)
            self._stepper = Stepper(self._env)
        return self._env

    @property
    def model(self) -> Any:
        """mujoco.MjModel."""
        return self.env.sim.model._model

    @property
    def data(self) -> Any:
        """mujoco.MjData."""
        return self.env.sim.data._data

    # -- resets

    def reset(self, init_index: int, settle: bool = True) -> None:
        """Start the episode of an init state: reset, set the state, settle with the gripper open.

        Equal, bit for bit, to the init_index-th episode of the public serial loop. An own task
        without init states begins in the random layout of seed `init_index`.
        """
        self.check_index(init_index)
        states = self._init_states
        if states is None:
            self.reset_random(init_index, settle)
            self.init_index = init_index
            return
        self.episode, self.init_index = f"init state {init_index}", init_index
        assert self.env is not None  # builds it
        self._resets.run(init_index)
        self._set_physics(states[init_index])
        self._begin(settle)

    def check_index(self, init_index: int) -> None:
        """Raise UserError for an init state that the task does not have."""
        count = None if self._init_states is None else len(self._init_states)
        if init_index < 0 or (count is not None and init_index >= count):
            raise UserError(f"{self.task}: init states 0..{(count or 0) - 1}, got {init_index}")

    def settle(self) -> None:
        """Let the scene come to rest after a reset that did not."""
        self._begin(settle=True)

    def reset_random(self, seed: int, settle: bool = True) -> None:
        """Start an episode with a random layout drawn from the BDDL regions.

        A pure function of the seed: object and fixture poses, and the arm's joints with the spread
        of LIBERO's init states.
        """
        self.episode, self.init_index = f"layout seed {seed}", None
        env = self.env
        with scene.numpy_seed(seed):
            scene.soft_reset(env)
            joints = env.robots[0]._ref_joint_pos_indexes
            self.data.qpos[joints] += np.random.randn(len(joints)) * ARM_NOISE_RAD
        env.sim.forward()
        self._begin(settle)

    def _begin(self, settle: bool) -> None:
        self._sampled = None
        for _ in range(self._settle_steps if settle else 0):
            self._sampled = self._stepper.step(self._settle_action)
        self._best, self._closest_m = 0, float("inf")
        self._watch()

    # -- stepping

    def step(self, action: np.ndarray) -> bool:
        """Run one control step of 50 ms. action: (7,) in [-1, 1]. Returns whether the goal holds.

        Nothing is rendered. Errors: UserError that names the episode, for a wrong action.
        """
        if self._stepper is None:
            raise UserError(f"{self.task}: step before the first reset")
        self._sampled = self._stepper.step(self._checked(action))
        return self._watch() == len(self._goal)

    def _checked(self, action: np.ndarray) -> np.ndarray:
        values = np.asarray(action, dtype=np.float64)
        where = f"{self.task}, {self.episode}"
        if values.shape != (7,):
            raise UserError(f"{where}: expected an action of shape (7,), got {values.shape}")
        if not np.all(np.isfinite(values)):
            raise UserError(f"{where}: expected finite actions, got {values.tolist()}")
        if np.abs(values).max() > 1 + RANGE_TOLERANCE:
            raise UserError(
                f"{where}: expected actions in [-1, 1], got {values.round(4).tolist()}; "
                "unnormalize with the checkpoint's own statistics and clip"
            )
        return np.clip(values, -1, 1)

    # -- observing

    def observation(self, cameras: Sequence[str] | None = None) -> Observation:
        """What a policy sees now. cameras: overrides those given at construction.

        A camera that is not asked for is not rendered: agentview is black, wrist None.
        """
        wanted = self.cameras if cameras is None else tuple(cameras)
        black = np.zeros((self.image_size, self.image_size, 3), dtype=np.uint8)
        return Observation(
            agentview=self.image("agentview") if "agentview" in wanted else black,
            wrist=self.image("wrist") if "wrist" in wanted else None,
            state=self.proprioception(),
            instruction=self.instruction,
        )

    def image(self, camera: str, size: int | None = None) -> np.ndarray:
        """An upright frame, turned by 180 degrees as OpenVLA does: uint8 (size, size, 3) RGB."""
        return np.ascontiguousarray(self.raw_image(camera, size)[::-1, ::-1])

    def raw_image(self, camera: str, size: int | None = None) -> np.ndarray:
        """A frame as the simulator returns it and LIBERO's files store it (OpenGL row order)."""
        if self._camera is None:
            assert self.env is not None
            self._camera = Camera(self.model)
        return self._camera.frame(self._observed(), camera, size or self.image_size)

    def readings(self) -> Readings:
        """The robot's own sensors, as robosuite's observables show them."""
        robot = self.env.robots[0]
        shown = self._observed()
        joints = self.data.qpos if self._sampled is None else self._sampled[1]
        w, x, y, z = shown.body(robot.robot_model.eef_name).xquat
        return Readings(
            ee_pos=shown.site_xpos[robot.eef_site_id].copy(),
            ee_quat=np.array([x, y, z, w]),
            gripper=joints[robot._ref_gripper_joint_pos_indexes].copy(),
            joints=joints[robot._ref_joint_pos_indexes].copy(),
        )

    def proprioception(self) -> np.ndarray:
        """float32 (8,): end-effector position (m), axis-angle (rad), gripper joints (m)."""
        r = self.readings()
        return np.concatenate([r.ee_pos, axis_angle(r.ee_quat), r.gripper]).astype(np.float32)

    def _observed(self) -> Any:
        """MjData with the kinematics that robosuite's observables show (see Stepper.step)."""
        if self._sampled is None:
            return self.data
        mujoco: Any = importlib.import_module("mujoco")
        if self._shown is None:
            self._shown = mujoco.MjData(self.model)
        self._shown.qpos[:] = self._sampled[0]
        self._shown.mocap_pos[:] = self.data.mocap_pos
        mujoco.mj_kinematics(self.model, self._shown)
        mujoco.mj_comPos(self.model, self._shown)
        mujoco.mj_camlight(self.model, self._shown)
        return self._shown

    def gripper_position(self) -> np.ndarray:
        """World position of the grip site between the fingertips: float64 (3,), m."""
        return self.data.site_xpos[self.env.robots[0].eef_site_id].copy()

    # -- state and goal

    def state(self) -> np.ndarray:
        """LIBERO's flat state: float64 (D,), [time, qpos, qvel]."""
        return np.concatenate([[self.data.time], self.data.qpos, self.data.qvel])

    def set_state(self, state: np.ndarray, settle: bool = False) -> None:
        """Place the scene in a flat state, fixtures as they are; controller as after a reset."""
        env = self.env
        poses = scene.fixture_poses(env)
        with scene.numpy_seed(self._reset_seed):
            scene.soft_reset(env)
        scene.set_fixture_poses(env, poses)
        self._set_physics(state)
        self._begin(settle)

    def _set_physics(self, state: np.ndarray) -> None:
        expected = 1 + self.model.nq + self.model.nv
        if state.shape != (expected,):
            raise UserError(
                f"{self.task}: expected a state of {expected} numbers (1 + nq + nv), got "
                f"{state.shape}: the asset pack and the state disagree"
            )
        self.env.sim.set_state_from_flattened(state)
        self.env.sim.forward()
        self.env._post_process()

    def state_hash(self) -> str:
        """16 hexadecimal digits over the flat state and the fixture poses, bit for bit."""
        digest = hashlib.sha256(np.ascontiguousarray(self.state()).tobytes())
        digest.update(np.ascontiguousarray(scene.fixture_poses(self.env)).tobytes())
        return digest.hexdigest()[:16]

    @property
    def _goal(self) -> list[list[str]]:
        return self.env.parsed_problem["goal_state"]

    def predicates(self) -> list[tuple[str, bool]]:
        """The goal's predicates one by one, e.g. ("in soup_1 basket_1_contain_region", True)."""
        return [(" ".join(p), bool(self.env._eval_predicate(p))) for p in self._goal]

    def progress(self) -> Progress:
        """How near the running episode came so far."""
        satisfied = sum(holds for _, holds in self.predicates())
        return Progress(satisfied, len(self._goal), self._best, self._closest_m)

    def _watch(self) -> int:
        """Update the running best; returns how many predicates hold."""
        satisfied = sum(holds for _, holds in self.predicates())
        self._best = max(self._best, satisfied)
        hand = self.gripper_position()
        for predicate in self._goal:
            target = self.env.object_states_dict[predicate[1]].get_geom_state()["pos"]
            self._closest_m = min(self._closest_m, float(np.linalg.norm(target - hand)))
        return satisfied

    def close(self) -> None:
        """Free the renderer and the model."""
        if self._camera is not None:
            self._camera.close()
        self._camera = self._env = self._resets = self._stepper = self._shown = None


def axis_angle(quaternion: np.ndarray) -> np.ndarray:
    """Axis times angle of an (x, y, z, w) quaternion, as robosuite's quat2axisangle: (3,), rad."""
    w = float(np.clip(quaternion[3], -1.0, 1.0))
    sine = np.sqrt(1.0 - w * w)
    if np.isclose(sine, 0.0):
        return np.zeros(3)
    return quaternion[:3] * 2.0 * np.arccos(w) / sine
