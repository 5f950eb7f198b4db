"""Hand and camera poses of the takes, laid out as the EgoPose benchmark of Ego-Exo4D has them:

    <root>/annotations/ego_pose/{train,val}/hand/annotation/<take_uid>.json
    <root>/annotations/ego_pose/{train,val}/camera_pose/<take_uid>.json

Read by latent_actions/video/sources/egoexo4d_poses.py, where the fields are described.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.files import atomic_file
from latent_actions.synthetic.cameras import CameraTrack
from latent_actions.synthetic.takes import TakePlan

DIGITS = 5  # of a meter, and of a direction


def write_ego_pose(
    root: Path, plan: TakePlan, pose: np.ndarray, tracks: dict[str, CameraTrack]
) -> None:
    """The two files of a take. pose: (T, 7), wrist position in m first; tracks: by the names that the
    annotations give the cameras, the moving one of the glasses begins with `aria`."""
    folder = root / "annotations" / "ego_pose" / plan.split
    joint = f"{plan.side}_wrist"
    hand = {
        str(frame): [{"annotation3D": {joint: _point(pose[frame, :3])}}]
        for frame in range(len(pose))
    }
    _write(folder / "hand" / "annotation" / f"{plan.uid}.json", hand)
    cameras: dict[str, Any] = {"metadata": {"take_uid": plan.uid, "take_name": plan.name}}
    for name, track in tracks.items():
        cameras[name] = {"camera_extrinsics": _extrinsics(track, moving=name.startswith("aria"))}
    _write(folder / "camera_pose" / f"{plan.uid}.json", cameras)


def _write(path: Path, value: Any) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value))


def _point(position: np.ndarray) -> dict[str, float]:
    return dict(zip("xyz", np.round(position.astype(float), DIGITS).tolist(), strict=True))


def _extrinsics(track: CameraTrack, moving: bool) -> Any:
    """World to camera, 3 x 4, x right, y down, z forward: of a moving camera for every frame."""
    turn = track.axes.transpose(0, 2, 1) * np.array([1.0, -1.0, -1.0])[:, None]
    shift = -np.einsum("tij,tj->ti", turn, track.position)
    matrices = np.round(np.concatenate([turn, shift[..., None]], axis=2), DIGITS).tolist()
    return {str(frame): m for frame, m in enumerate(matrices)} if moving else matrices[0]
