"""One demonstration: played in the simulator, recorded, and written as LIBERO stores them.

The HDF5 layout is LIBERO's own (robomimic's): see `write_demonstration`. Frames are stored as the
simulator returns them, which is OpenVLA's upright frame turned by 180 degrees.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from invact_vla.core.files import atomic_file
from invact_vla.core.schema import Policy
from libero_eval.env import scene
from libero_eval.policy_source import PolicySource

if TYPE_CHECKING:
    from libero_eval.env.sim import LiberoSim


DATASET_NAMES = {"agentview": "agentview_rgb", "wrist": "eye_in_hand_rgb"}


@dataclass
class Recording:
    """What was seen before, and done at, each of T steps."""

    model_xml: str  # the scene, of which a state holds only what moves
    fixture_poses: np.ndarray
    # by their names in the file, see `write_demonstration`
    rows: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))

    def add(self, sim: "LiberoSim", action: np.ndarray, expert: np.ndarray) -> None:
        """Append what is seen now, and what will be done."""
        from libero_eval.env.sim import axis_angle

        r = sim.readings()
        angle = axis_angle(r.ee_quat)
        now = {
            "actions": action,
            "expert_actions": expert,
            "states": sim.state(),
            "robot_states": np.concatenate([r.gripper, r.ee_pos, r.ee_quat]),
            "obs/ee_pos": r.ee_pos,
            "obs/ee_ori": angle,
            "obs/ee_states": np.concatenate([r.ee_pos, angle]),
            "obs/gripper_states": r.gripper,
            "obs/joint_states": r.joints,
        }
        now |= {f"obs/{DATASET_NAMES[camera]}": sim.raw_image(camera) for camera in sim.cameras}
        for name, row in now.items():
            self.rows[name].append(row)


def add_noise(
    action: np.ndarray, rng: np.random.Generator, prob: float, scale: float
) -> np.ndarray:
    """With that probability, disturb the three translations by normal noise; (7,) in [-1, 1]."""
    draw, noise = rng.random(), rng.normal(size=3) * scale
    if draw >= prob:
        return action
    noisy = action.copy()
    noisy[:3] = np.clip(noisy[:3] + noise, -1.0, 1.0)
    return noisy


class Turns:
    """A policy and the expert in turns of equal length, drawn one by one (Ross et al. 2011, DAgger: the
    expert's answers to what the learner meets; whole turns, as of a person who takes over)."""

    def __init__(
        self, sim: "LiberoSim", source: PolicySource, policy: Policy, rng: np.random.Generator,
        prob: float, steps: int,
    ) -> None:  # fmt: skip
        """policy: opened by source. prob: that a turn is the policy's. steps: of a turn."""
        self._sim, self._source, self._policy, self._rng = sim, source, policy, rng
        self._prob, self._steps = prob, steps
        self._left, self._is_policys = 0, False
        self._chunk: list[np.ndarray] = []
        policy.reset(int(rng.integers(2**31)))

    def __call__(self) -> np.ndarray | None:
        """The policy's next action, float64 (7,), or None where it is the expert's turn."""
        if not self._left:
            self._left, self._is_policys = self._steps, self._rng.random() < self._prob
            self._chunk = []
        self._left -= 1
        if not self._is_policys:
            return None
        if not self._chunk:
            seen = self._sim.observation(self._policy.needs)
            (chunk,) = self._source.act([(self._policy, seen)])
            self._chunk = list(chunk.values)
        return self._chunk.pop(0).astype(np.float64)


def play(
    sim: "LiberoSim", policy: Policy, rng: np.random.Generator, prob: float, scale: float,
    max_steps: int, turns: Turns | None = None,
) -> Recording | None:  # fmt: skip
    """Let a scripted policy act from the present state; None if it does not end in success.

    prob, scale: see `add_noise`. turns: with another policy, whose steps are not disturbed."""
    policy.reset(0)
    recording = Recording(model_xml(sim), scene.fixture_poses(sim.env))
    for _ in range(max_steps):
        expert = policy.act(sim.observation(())).values[0].astype(np.float64)
        others = None if turns is None else turns()
        action = add_noise(expert, rng, prob, scale) if others is None else others
        recording.add(sim, action, expert)
        if turns is not None:
            recording.rows["interventions"].append(np.array(others is None, np.uint8))
        if sim.step(action):
            return recording
    return None


def model_xml(sim: "LiberoSim") -> str:
    """The scene as MJCF, fixtures where they are now, for robosuite's `reset_from_xml_string`.

    MuJoCo names the content type of a mesh only if it was loaded before in the same process: left
    out, so that equal scenes give equal text.
    """
    return re.sub(r' content_type="[^"]*"', "", sim.env.sim.model.get_xml())


def replays(sim: "LiberoSim", recording: Recording) -> bool:
    """Whether the actions, replayed open loop from the first state, reach the goal.

    As public replay scripts do it: reset, set the state, settle with the gripper open, then the
    actions (OpenVLA's regeneration of LIBERO's data).
    """
    sim.set_state(recording.rows["states"][0], settle=True)
    return any(sim.step(action) for action in recording.rows["actions"])


def write_demonstration(path: Path, recording: Recording, attributes: dict[str, Any]) -> None:
    """Write one demonstration as the group `demo` of its own file, atomically.

    actions (T, 7) float64 in env convention, states (T, D) float64, robot_states (T, 9), rewards
    and dones (T,) uint8 with a 1 at the end, obs/{agentview_rgb, eye_in_hand_rgb} (T, H, W, 3)
    uint8, obs/{ee_pos, ee_ori, ee_states, gripper_states, joint_states} float64. Attributes:
    num_samples, init_state, model_file and those given. Beyond LIBERO's layout: expert_actions, the
    actions before noise (Laskey et al. 2017, DART: what to learn from); where it took turns with a
    policy, interventions (T,) uint8, 1 where the expert acted; and the attribute fixture_poses (F, 7),
    which `model_file` holds to six digits.
    """
    import h5py

    with atomic_file(path) as temporary, h5py.File(temporary, "w", libver="v108") as file:
        group = file.create_group("demo")
        rows = recording.rows
        last = np.zeros(len(rows["actions"]), dtype=np.uint8)
        last[-1] = 1
        facts = {
            "num_samples": len(last),
            "init_state": rows["states"][0],
            "model_file": recording.model_xml,
            "fixture_poses": recording.fixture_poses,
        }
        for name, value in {**facts, **attributes}.items():
            group.attrs[name] = value
        for name, values in {**rows, "rewards": last, "dones": last}.items():
            array = np.array(values)
            packed = {"chunks": (1, *array.shape[1:]), "compression": "gzip", "compression_opts": 1}
            options = packed if name.endswith("_rgb") else {}
            group.create_dataset(name, data=array, track_times=False, **options)


def merge_demonstrations(
    path: Path, parts: list[Path], task: dict[str, Any], environment: dict[str, Any]
) -> None:
    """Write LIBERO's file of one task from the files of its demonstrations, atomically.

    task: attributes of `data` (strings or numbers). environment: what is needed to rebuild the
    simulator, stored as JSON in `env_args`.
    """
    import h5py

    with atomic_file(path) as temporary, h5py.File(temporary, "w", libver="v108") as file:
        data = file.create_group("data")
        total = 0
        for index, part in enumerate(parts):
            with h5py.File(part, "r") as source:
                source.copy("demo", data, name=f"demo_{index}")
                attributes: Any = source["demo"].attrs
                total += int(attributes["num_samples"])
        for name, value in task.items():
            data.attrs[name] = value
        data.attrs["env_args"] = json.dumps(environment, sort_keys=True)
        data.attrs["num_demos"] = len(parts)
        data.attrs["total"] = total
