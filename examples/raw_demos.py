"""The raw demonstrations of docs/new_task.md, RAW/<task_in_words>/<name>.npz: change `read` to yours."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass
class Demo:
    """T steps. agentview, wrist: uint8 (T, H, W, 3), upright; wrist may be None. state: (T, 8) position
    (m), axis-angle (rad), two finger joints (m). action: (T, 7) in [-1, 1]; gripper -1 open, 1 closed.
    """

    words: str
    agentview: np.ndarray
    wrist: np.ndarray | None
    state: np.ndarray
    action: np.ndarray


def read(raw: Path) -> Iterator[Demo]:
    """All demonstrations, task by task. The task's words are the folder's name."""
    for path in sorted(raw.glob("*/*.npz")):
        arrays = np.load(path)
        action = arrays["action"].astype(np.float64)
        action[:, :6] /= arrays["action_scale"]  # e.g. 0.05 m and 0.5 rad mean 1
        action[:, 6] = 1 - 2 * arrays["gripper_open"]  # stored: 1 open, 0 closed
        yield Demo(
            words=path.parent.name.replace("_", " "),
            agentview=arrays["front_camera"],
            wrist=arrays.get("hand_camera"),
            state=arrays["state"].astype(np.float32),
            action=action,
        )
