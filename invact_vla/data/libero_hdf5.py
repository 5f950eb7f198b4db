"""Reading LIBERO's own HDF5 demonstrations for post-training.

Layout (LIBERO, robomimic): `data/demo_<i>/actions` (T, 7) in env convention (-1 open, +1 close),
`data/demo_<i>/obs/{agentview_rgb, eye_in_hand_rgb, ee_pos, ee_ori, gripper_states}`, images as the
simulator returns them, that is rotated by 180 degrees. What comes out is upright, with the gripper in
OpenVLA's training convention (1 open, 0 close). Where a file also holds `expert_actions` (those that
were chosen before noise disturbed them, as `invact libero demos` writes), these are learned from.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.errors import UserError

ACTION_MASK = [True] * 6 + [False]


@dataclass(frozen=True)
class RobotEpisode:
    """One demonstration of T steps.

    agentview: uint8 (T, H, W, 3) upright. wrist: the same or None. state: float32 (T, 8) as in
    Observation. actions: float64 (T, 7), six deltas in [-1, 1] and the gripper, 1 open, 0 close.
    """

    name: str
    instruction: str
    agentview: np.ndarray
    wrist: np.ndarray | None
    state: np.ndarray
    actions: np.ndarray


def instruction_of(path: Path) -> str:
    """The task in words, from the file name: scene prefix and `_demo` dropped, underscores to spaces."""
    words = path.stem.removesuffix("_demo").split("_")
    last_scene = max((i for i, w in enumerate(words) if w.startswith("SCENE")), default=-1)
    return " ".join(words[last_scene + 1 :])


def gripper_to_training(gripper: np.ndarray) -> np.ndarray:
    """Env convention (-1 open, +1 close) -> training convention (1 open, 0 close)."""
    return 1.0 - np.clip(gripper, 0.0, 1.0)


def read_demos(path: Path, limit: int | None = None, wrist: bool = False) -> list[RobotEpisode]:
    """All demonstrations of one HDF5 file, in the order of their numbers.

    Raises UserError for a missing or truncated file and for a demonstration without what is needed.
    """
    import h5py

    path = Path(path)
    if not path.exists():
        raise UserError(f"no demonstrations {path}: make some with `invact libero demos`")
    try:
        with h5py.File(path, "r") as file:
            data: Any = file["data"]
            names = sorted(data, key=lambda n: int(n.split("_")[1]))[:limit]
            return [_episode(data[n], n, instruction_of(path), wrist) for n in names]
    except (OSError, KeyError) as error:
        raise UserError(
            f"{path} is not a LIBERO demonstration file or is damaged ({error}): expected "
            "data/demo_<i>/actions and data/demo_<i>/obs/agentview_rgb"
        ) from error


def _episode(group: Any, name: str, instruction: str, wrist: bool) -> RobotEpisode:
    actions = group.get("expert_actions", group["actions"])[()].astype(np.float64)
    obs = group["obs"]
    upright = np.ascontiguousarray(obs["agentview_rgb"][()][:, ::-1, ::-1])
    hand = np.ascontiguousarray(obs["eye_in_hand_rgb"][()][:, ::-1, ::-1]) if wrist else None
    parts = [obs[n][()] for n in ("ee_pos", "ee_ori", "gripper_states")]
    state = np.concatenate(parts, axis=1).astype(np.float32)
    if not len(actions) == len(upright) == len(state) or actions.shape[1] != 7:
        raise UserError(
            f"{name}: expected equal lengths and 7-d actions, got actions {actions.shape}, "
            f"images {upright.shape}, state {state.shape}"
        )
    actions[:, 6] = gripper_to_training(actions[:, 6])
    return RobotEpisode(name, instruction, upright, hand, state, actions)
