"""True actions of pairs: what upper bounds are made of, and what codes are measured against.

    <folder>/<video>.npz    an array (T, A), one row per frame, as `invact data synth` writes `velocity`
                            into <out>/truth/; <video> is the name of the video file without suffix,
                            or of a folder above it (Ego-Exo4D's take); robot demonstrations have
                            their own actions and need no such files

The action of a pair is the mean over its frames, the last one left out: with velocities, the motion from
its first to its last frame over the time between.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.limits import some
from invact_vla.data.video.frames import true_actions
from invact_vla.untrusted.arrays import read_npz
from latent_actions.video.records import PairRecord


@dataclass(frozen=True, kw_only=True)
class ActionsConfig:
    """Where true actions are."""

    folder: Path = Path("runs/synth/truth/ssv2")  # one .npz file per video
    array: str = "velocity"  # name of the array in each file


def pair_actions(records: Sequence[PairRecord], config: ActionsConfig) -> np.ndarray:
    """float64 (N, A), a row per pair. UserError for a pair without actions."""
    known: dict[Path, np.ndarray] = {}
    rows = []
    for record in records:
        video = record.video
        if video not in known:
            stored = true_actions(video)
            file = action_file(config.folder, video)
            known[video] = read_actions(file, config.array) if stored is None else stored
        part = known[video][record.frame : record.frame_end]
        if not len(part):
            raise UserError(
                f"the actions of {video} have {len(known[video])} frames, a pair starts at "
                f"{record.frame}: give the actions of these videos"
            )
        rows.append(part.mean(axis=0))
    widths = {len(row) for row in rows}
    if len(widths) > 1:
        raise UserError(
            f"actions in {config.folder} have different widths: {some(map(str, sorted(widths)))}"
        )
    return np.stack(rows) if rows else np.zeros((0, 0))


def action_file(folder: Path, video: Path) -> Path:
    """The file of a video's true actions: that of its name, or of the nearest folder above it that has
    one; the first of them where none is there."""
    names = [video.stem, *(parent.name for parent in video.parents if parent.name)]
    files = [Path(folder) / f"{name}.npz" for name in names]
    return next((file for file in files if file.is_file()), files[0])


def read_actions(path: Path, array: str) -> np.ndarray:
    """float64 (T, A). UserError for a missing or damaged file, or an array that holds none."""
    if not path.is_file():
        raise UserError(f"no true actions at {path}: expected one .npz file per video")
    values = read_npz(path, array).astype(np.float64)
    if values.ndim != 2 or not np.isfinite(values).all():
        raise UserError(f"{path}: expected {array} of shape (frames, dimensions), finite")
    return values
