"""True actions of the pairs of a label store, in every frame that the data know.

    <truth>/<video>.npz    as latent_actions/labelers/actions.py has them; with <camera>_axes (T, 3, 3)
                           the action is also told in the frames of the camera and of the one who acts

<camera> is the name of the video file, its view ("ego"), or "camera"; "ego" is the head of the one who
acts. Robot demonstrations have actions of their own, in the robot's base frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short
from invact_vla.data.label_store import LabelStore
from invact_vla.data.video.frames import VideoError, true_actions
from invact_vla.untrusted.arrays import read_npz
from latent_actions.labelers.actions import action_file, read_actions
from latent_actions.report.frames import heading_axes, into_frame

AUTO, NONE = "auto", "none"
WORLD, CAMERA, HEADING, WEARER, ROBOT = "world", "camera", "camera heading", "wearer", "robot base"
FRAMES = {
    WORLD: "fixed axes of the room, z up",
    CAMERA: "axes of the camera at the first frame: right, up, backwards",
    HEADING: "z up, forward as the camera looks",
    WEARER: "z up, forward as the one who acts looks",
    ROBOT: "axes of the robot's base: forward, left, up",
}
AXES: dict[str, tuple[str, ...]] = {
    frame: ("forward", "left", "up") for frame in (HEADING, WEARER, ROBOT)
}
AXES |= {CAMERA: ("right", "up", "back")}


@dataclass(frozen=True)
class Motion:
    """True actions of n of the pairs of a store. rows: int64 (n,), which pairs; frames: name -> float64
    (n, A), in the order of FRAMES; translations: the dimensions that a mean is taken over; missing: why
    videos have none."""

    rows: np.ndarray
    frames: dict[str, np.ndarray]
    translations: tuple[int, ...]
    missing: tuple[str, ...]

    @property
    def width(self) -> int:
        """Dimensions of an action, A."""
        return next(iter(self.frames.values())).shape[1] if self.frames else 0

    def names(self, frame: str) -> tuple[str, ...]:
        """Names of the A dimensions in a frame."""
        if self.width not in (3, 6, 7):
            return tuple(f"a{i}" for i in range(self.width))
        axes = AXES.get(frame, ("x", "y", "z"))
        return (*axes, *(f"turn {axis}" for axis in axes), "grip")[: self.width]


@dataclass(frozen=True)
class _Track:
    """Actions of a video, one per frame, and the axes (T, 3, 3) of its camera and of the wearer."""

    actions: np.ndarray
    camera: np.ndarray | None = None
    wearer: np.ndarray | None = None
    robot: bool = False


def truth_folder(option: str, videos: Path | None) -> Path | None:
    """The folder of true actions that an option means: "none", "auto" (beside the videos, as `invact
    data synth` lays it out), or the folder itself. UserError for a folder that is not there."""
    if option not in (AUTO, NONE):
        if not Path(option).is_dir():
            raise UserError(f"no folder {option}: expected true actions, an .npz file per video")
        return Path(option)
    if option == NONE or videos is None:
        return None
    places = (videos.parent / "truth" / videos.name, videos / "truth")
    return next((place for place in places if place.is_dir()), None)


def true_motion(
    store: LabelStore, videos: Path | None, truth: Path | None = None, *, array: str = "velocity",
    views: Mapping[str, str] | None = None,
) -> Motion:  # fmt: skip
    """The mean true action of each pair, from its first frame to the one before its last.

    videos: root of the labeled videos, for robot demonstrations; truth: folder of .npz files; array:
    name of the actions in them; views: path in the store -> "ego" or "exo". The frames of a pair are
    those at its first video frame. Videos without truth are left out and named. UserError where the
    actions of two videos have different widths.
    """
    tracks: dict[str, _Track] = {}
    missing: dict[str, str] = {}
    for path in tqdm(store.videos, "true actions", unit="video", mininterval=5, leave=False):
        try:
            tracks[path] = _track(path, videos, truth, array, (views or {}).get(path, ""))
        except (UserError, VideoError, OSError) as error:
            missing[path] = short(error)
    known = [
        row
        for row, path in enumerate(store.path)
        if path in tracks and store.frame[row] < len(tracks[path].actions)
    ]
    width = {tracks[store.path[row]].actions.shape[1] for row in known}
    if len(width) > 1:
        raise UserError(f"true actions in {truth} have different widths: {sorted(width)}")
    rows = np.array(known, np.int64)
    frames = _frames([tracks[store.path[row]] for row in known], store.select(rows))
    translations = (
        tuple(range(3)) if width and min(width) >= 3 else tuple(range(max(width, default=0)))
    )
    return Motion(rows, frames, translations, tuple(missing.values()))


def _track(path: str, videos: Path | None, truth: Path | None, array: str, view: str) -> _Track:
    """What is known of a video. UserError if nothing is."""
    file = None if truth is None else action_file(truth, Path(path))
    if file is None or not file.is_file():
        stored = None if videos is None else true_actions(videos / path)
        if stored is None:
            raise UserError(f"no true actions of {path}")
        return _Track(stored, robot=True)
    actions = read_actions(file, array)
    names = [Path(path).stem, *([view] if view == "ego" else []), "camera"]
    camera = next((a for a in (_axes(file, n, len(actions)) for n in names) if a is not None), None)
    return _Track(actions, camera, _axes(file, "ego", len(actions)))


def _axes(file: Path, name: str, frames: int) -> np.ndarray | None:
    """(T, 3, 3) of a camera, None where the file has none or another number of frames."""
    try:
        axes = read_npz(file, f"{name}_axes").astype(np.float64)
    except UserError:
        return None
    return axes if axes.shape == (frames, 3, 3) and np.isfinite(axes).all() else None


def _frames(tracks: list[_Track], store: LabelStore) -> dict[str, np.ndarray]:
    """The mean action of each pair in each frame that all of them know."""
    if not tracks:
        return {}
    spans = list(zip(tracks, store.frame.tolist(), store.frame_end.tolist(), strict=True))
    means = np.stack([track.actions[start:end].mean(axis=0) for track, start, end in spans])
    found = {ROBOT if all(track.robot for track in tracks) else WORLD: means}
    for name, side, level in (
        (CAMERA, "camera", False),
        (HEADING, "camera", True),
        (WEARER, "wearer", True),
    ):
        axes = [getattr(track, side) for track in tracks]
        if means.shape[1] >= 3 and all(values is not None for values in axes):
            first = np.stack(
                [values[start] for values, (_, start, _) in zip(axes, spans, strict=True)]
            )
            found[name] = into_frame(means, heading_axes(first) if level else first)
    return found
