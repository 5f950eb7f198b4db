"""Ground truth beside the videos: hand motion and masks per frame, actions per clip.

    <out>/truth/{egoexo4d,ssv2}/<episode>.npz     arrays below
    <out>/truth/actions.parquet                   one row per action: what, where, who, when

npz: pose (T, 7) float32: wrist position m and quaternion w first, world axes; velocity (T, 7)
float32: linear m/s, angular rad/s, grip 0 open .. 1 closed; cut (T,) bool: the first frame after a
cut; <camera>_hand, <camera>_object: bits of (T, size, size) masks, as numpy.packbits gives them;
<camera>_axes (T, 3, 3) float32: columns right, up, backwards of a camera, world axes, of all cameras of
a take, and of an SSV2 clip of "camera", which filmed it, and "ego", the head of the one who acts.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file


def write_truth(
    path: Path, pose: np.ndarray, velocity: np.ndarray, cut: np.ndarray,
    masks: dict[str, np.ndarray], axes: dict[str, np.ndarray],
) -> None:  # fmt: skip
    """masks: uint8 (T, size, size) of render.BACKGROUND/HAND/OBJECT for each camera; axes: (T, 3, 3)."""
    arrays: dict[str, Any] = {"pose": pose, "velocity": velocity, "cut": cut}
    arrays |= {f"{camera}_axes": np.float32(values) for camera, values in axes.items()}
    for camera, classes in masks.items():
        arrays["mask_size"] = np.int64(classes.shape[1])
        arrays[f"{camera}_hand"] = np.packbits(classes == 1, axis=None)
        arrays[f"{camera}_object"] = np.packbits(classes == 2, axis=None)
    with atomic_file(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def read_masks(path: Path, camera: str) -> tuple[np.ndarray, np.ndarray]:
    """(hand, object) masks of one camera, bool (T, size, size)."""
    try:
        with np.load(path) as arrays:
            size, frames = int(arrays["mask_size"]), len(arrays["cut"])
            packed = [arrays[f"{camera}_{what}"] for what in ("hand", "object")]
    except (OSError, KeyError) as error:
        raise UserError(f"no masks of camera {camera} in {path}: {error}") from error
    count = frames * size * size
    hand, thing = (
        np.unpackbits(bits, count=count).astype(bool).reshape(frames, size, size) for bits in packed
    )
    return hand, thing


def read_pose(path: Path) -> np.ndarray:
    """Wrist position (m) and quaternion of every frame, (T, 7) float32."""
    with np.load(path) as arrays:
        return arrays["pose"]


def write_actions(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """actions.parquet, one column per key of the rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(list(rows)), temporary)
