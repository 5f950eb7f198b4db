"""Where a hand goes, by the EgoPose annotations of Ego-Exo4D (download with --benchmarks egopose).

    <root>/annotations/ego_pose/<split>/hand/{annotation,automatic}/<take_uid>.json
        {frame: [{"annotation3D": {"right_wrist": {"x", "y", "z"}, ...}}]}      meters, world
    <root>/annotations/ego_pose/<split>/camera_pose/<take_uid>.json
        {"aria01": {"camera_extrinsics": {frame: 3 x 4}}, "cam01": {"camera_extrinsics": 3 x 4}, ...}

Extrinsics lead from the world, whose z is up, to a camera that looks along its z. Layout:
docs.ego-exo4d-data.org/annotations/ego_pose.

Positions are given in the gravity-and-heading frame of a camera: axes right, forward, up, where up
is the world's and forward the camera's direction of view, made horizontal. However a camera is turned
about its direction of view or tilted, a hand that goes up goes up, and cameras that stand side by side
say the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from latent_actions.video.records import ClipRecord

SIDES = ("right", "left")
KINDS = ("annotation", "automatic")  # by hand where there are any, else by a model
LONGEST_GAP_S = 0.5  # between annotated frames that a position is interpolated in
UP = np.array([0.0, 0.0, 1.0])


def hand_paths(
    root: Path,
    uids: Mapping[str, str],
    records: Sequence[ClipRecord],
    frames: Sequence[np.ndarray],
    fps: Sequence[float],
) -> np.ndarray:
    """Positions of a hand at the given frames of each record, in meters, in the gravity-and-heading
    frame that its camera has in the middle of the clip: float32 (N, T, 3), NaN where nothing is
    annotated. Of two hands the one that goes further. uids: take_uid of each take; frames: int (T,)
    each; fps: of the videos.
    UserError if there are no annotations at all."""
    poses: dict[str, _TakePoses | None] = {}
    paths = np.full((len(records), len(frames[0]) if len(frames) else 0, 3), np.nan, np.float32)
    for row, record in enumerate(records):
        if record.take not in poses:
            poses[record.take] = _read(root, record.split, uids[record.take])
        found = poses[record.take]
        if found is not None:
            paths[row] = found.path(record, frames[row], fps[row])
    if not any(poses.values()):
        raise UserError(
            f"no hand poses in {root}/annotations/ego_pose: expected hand/annotation and camera_pose of "
            "Ego-Exo4D's EgoPose; download them, or leave data.hands out and take "
            "displacement.target flow"
        )
    return paths


class _TakePoses:
    """Wrists and cameras of one take."""

    def __init__(self, hand: dict[str, Any], cameras: dict[str, Any]) -> None:
        self.wrists = [found for side in SIDES if (found := _wrist(hand, side)) is not None]
        self.cameras = cameras

    def path(self, record: ClipRecord, frames: np.ndarray, fps: float) -> np.ndarray:
        """Positions (T, 3) of the hand that goes further; NaN if none is known."""
        axes = self._axes(record.camera.partition("_")[0], int(frames[len(frames) // 2]))
        if axes is None:
            return np.full((len(frames), 3), np.nan)
        paths = [_at(known, places, frames, LONGEST_GAP_S * fps) for known, places in self.wrists]
        whole = [path for path in paths if np.isfinite(path).all()]
        best = max(whole, key=lambda path: np.ptp(path, axis=0).sum(), default=None)
        return np.full((len(frames), 3), np.nan) if best is None else best @ axes.T

    def _axes(self, camera: str, frame: int) -> np.ndarray | None:
        """Rows right, forward, up of a camera at a frame; None where its pose is not known."""
        pose = self.cameras.get(camera)
        matrix = pose.get("camera_extrinsics") if isinstance(pose, dict) else None
        matrix = matrix.get(str(frame)) if isinstance(matrix, dict) else matrix
        if matrix is None:
            return None
        forward = np.asarray(matrix, float)[2, :3] * (1, 1, 0)
        length = np.linalg.norm(forward)
        if length < 1e-3:  # it looks straight down: no heading
            return None
        forward = forward / length
        return np.stack([np.cross(forward, UP), forward, UP])


def _read(root: Path, split: str, uid: str) -> _TakePoses | None:
    """The poses of a take, None where it has none. UserError for files of another form."""
    folder = root / "annotations" / "ego_pose" / split
    hands = [folder / "hand" / kind / f"{uid}.json" for kind in KINDS]
    hand = next((path for path in hands if path.is_file()), None)
    camera = folder / "camera_pose" / f"{uid}.json"
    if hand is None or not camera.is_file():
        return None
    try:
        return _TakePoses(read_json(hand), read_json(camera))
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise UserError(f"{hand} is no hand annotation of EgoPose: {error!r:.80}") from error


def _wrist(hand: dict[str, Any], side: str) -> tuple[np.ndarray, np.ndarray] | None:
    """(frames (F,), positions (F, 3)) of a wrist in the order of time, None where it has none."""
    known = {}
    for frame, people in hand.items():
        joints = people[0]["annotation3D"] if people else {}
        wrist = joints.get(f"{side}_wrist")
        if wrist is not None:
            known[int(frame)] = [float(wrist[axis]) for axis in "xyz"]
    frames = sorted(known)
    return (np.array(frames), np.array([known[f] for f in frames])) if known else None


def _at(known: np.ndarray, places: np.ndarray, frames: np.ndarray, gap: float) -> np.ndarray:
    """Positions (T, 3) at frames between those that are known, NaN in longer gaps than `gap` frames."""
    after = np.searchsorted(known, frames)
    low, high = known[np.maximum(after - 1, 0)], known[np.minimum(after, len(known) - 1)]
    exact = high == frames
    inside = exact | ((low <= frames) & (frames <= high) & (high - low <= gap))
    path = np.stack([np.interp(frames, known, places[:, axis]) for axis in range(3)], axis=1)
    path[~inside] = np.nan
    return path
