"""What the readers of Ego-Exo4D (V2) share: takes, annotation files, cameras, scene keys.

    <root>/takes.json
    <root>/annotations/<name>_{train,val}.json
    <root>/takes/<take_name>/frame_aligned_videos[/downscaled/448]/<camera>.mp4

Layout and field names: docs of github.com/EGO4D.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.data.video.frames import list_videos
from latent_actions.video.records import Split, View
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import check_folder

# keyword scenes of the published evaluation
ACTIVITIES = ("cooking", "bike", "covid", "pcr", "cpr")
EGO_FILE = re.compile(
    r"^aria\d+_214-1\.mp4$", re.I
)  # 214-1 is the RGB stream, the number is the device
DOWNSCALED = Path("frame_aligned_videos/downscaled/448")
FULL = Path("frame_aligned_videos")
COLLAGES = (
    "ego_preview",
    "collage",
    "best_exo",
)  # several cameras in one picture, beside the others
SceneKey = Literal[
    "physical_setting", "institution_activity", "keyword", "capture", "take", "institution"
]
Views = Literal["both", "any"]


@dataclass(frozen=True)
class Camera:
    """A camera of a take that has a video on disk."""

    name: str
    view: View
    video: Path


def read_takes(root: Path) -> dict[str, dict[str, Any]]:
    """{take_uid: entry of takes.json}."""
    check_folder(root, "an Ego-Exo4D folder with takes.json, annotations/ and takes/")
    takes = read_json(root / "takes.json")
    if not isinstance(takes, list) or not all(
        isinstance(take, dict) and {"take_uid", "take_name"} <= set(take) for take in takes
    ):
        raise UserError(
            f"{root / 'takes.json'} is no list of takes with take_uid and take_name: expected the "
            "file of Ego-Exo4D V2"
        )
    return {take["take_uid"]: take for take in takes}


def read_annotations(root: Path, name: str, split: Split) -> dict[str, Any]:
    """Content of annotations/<name>_<split>.json, which has {"annotations": {take_uid: ...}}."""
    path = root / "annotations" / f"{name}_{split}.json"
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), dict):
        raise UserError(f'{path} has no "annotations": expected an Ego-Exo4D V2 annotation file')
    return content


def known_takes(
    uids: Iterator[str], takes: dict[str, dict[str, Any]], dropped: SkipReport
) -> list[str]:
    """Those of the takes that takes.json lists, by name."""
    known = []
    for uid in uids:
        if uid in takes:
            known.append(uid)
        else:
            dropped.add("takes not in takes.json", uid)
    return sorted(known, key=lambda uid: takes[uid]["take_name"])


def cameras_of(
    root: Path, take: dict[str, Any], dropped: SkipReport, views: Views = "both"
) -> list[Camera]:
    """Cameras of a take, from the downscaled videos, else the full ones; with views "both" none if it
    lacks a view.

    Ego is the RGB stream of the Aria glasses, whatever their number, and what `capture.cameras` of
    takes.json calls ego (some GoPros); other streams of the glasses and collages are left out.
    Retrieval and training compare views, so a take needs both there; a label needs one.
    """
    name, stated = take["take_name"], _stated_ego(take)
    base = root / (take.get("root_dir") or f"takes/{name}")
    folder = next((base / f for f in (DOWNSCALED, FULL) if (base / f).is_dir()), None)
    cameras = []
    for path in list_videos(folder, depth=1) if folder is not None else ():
        if EGO_FILE.match(path.name):
            cameras.append(Camera(path.stem, "ego", path))
        elif not path.stem.startswith("aria") and path.stem not in COLLAGES:
            cameras.append(Camera(path.stem, "ego" if path.stem in stated else "exo", path))
    seen = {camera.view for camera in cameras}
    if len(seen) == 2 or (seen and views == "any"):
        return cameras
    missing = "an exo" if seen == {"ego"} else "an ego"
    dropped.add(f"takes without {missing} camera" if seen else "takes without videos", name)
    return []


def _stated_ego(take: dict[str, Any]) -> set[str]:
    """Names of the cameras that takes.json calls egocentric, where it has them."""
    capture = take.get("capture")
    cameras = capture.get("cameras") if isinstance(capture, dict) else None
    return {
        str(camera.get("cam_id"))
        for camera in (cameras if isinstance(cameras, list) else [])
        if isinstance(camera, dict) and camera.get("is_ego")
    }


def chosen_cameras(
    cameras: list[Camera], exo: str, stated: Any, take: dict[str, Any]
) -> list[Camera]:
    """Ego, and all exo cameras or (exo="best") the best one. stated: an annotation's best_exo."""
    best = best_exo(take, stated, [c.name for c in cameras if c.view == "exo"])
    return [c for c in cameras if c.view == "ego" or exo == "all" or c.name == best]


def best_exo(take: dict[str, Any], stated: Any, present: list[str]) -> str | None:
    """The best exo camera that is named, else the first that is there."""
    return named_exo(take, stated, present) or min(present, default=None)


def named_exo(take: dict[str, Any], stated: Any, present: list[str]) -> str | None:
    """The best exo camera of the description, else of the take; None if neither names one."""
    of_moment = stated.get("cam_id") if isinstance(stated, dict) else None
    return next((c for c in (of_moment, take.get("best_exo")) if c in present), None)


def as_bool(value: Any) -> bool:
    """The annotation files mix true, "1" and 1 in one field. Raises UserError on anything else."""
    if value is None:
        return False
    if isinstance(value, int) or value in (0.0, 1.0):
        return bool(value)
    if isinstance(value, str) and value.strip().lower() in ("1", "true"):
        return True
    if isinstance(value, str) and value.strip().lower() in ("0", "false", ""):
        return False
    raise UserError(
        f'expected a truth value (true, false, "0" or "1") in the annotations, got {value!r}'
    )


def as_seconds(value: Any) -> float | None:
    """A time of the annotation files, a number or its text; None if it is neither, or negative."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        seconds = float(value)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def segments_of(
    annotation: Any, name: str, dropped: SkipReport
) -> list[tuple[float, float, dict[str, Any]]]:
    """(start, end, segment) of the keysteps of a take, seconds, in file order."""
    segments = (annotation.get("segments") or []) if isinstance(annotation, dict) else None
    if not isinstance(segments, list):
        dropped.seen += 1
        dropped.add("takes with unreadable keysteps", name, damage=True)
        return []
    found = []
    for number, segment in enumerate(segments):
        times = segment if isinstance(segment, dict) else {}
        start, end = as_seconds(times.get("start_time")), as_seconds(times.get("end_time"))
        if start is None or end is None or start >= end:
            dropped.seen += 1
            dropped.add("keysteps with unparsable times", f"{name} keystep {number}", damage=True)
        else:
            found.append((start, end, segment))
    return found


def scene_of(take: dict[str, Any], key: SceneKey) -> str:
    """The place of a take under a scene key. Keys that parse the name follow
    <institution>_<activity>.
    """
    name = take["take_name"]
    words = name.split("_")
    # upenn writes <institution>_<date>_<Activity>_<index>
    activity = next((w.rstrip("0123456789") for w in words[1:] if not w.isdigit()), "")
    institution_activity = f"{words[0]}_{activity.lower()}" if len(words) > 1 else name
    if key == "physical_setting":
        uid = take.get("physical_setting_uid")
        return institution_activity if uid in (None, "") else str(uid)
    if key == "keyword":
        return next((word for word in ACTIVITIES if word in name.lower()), institution_activity)
    if key == "capture":
        return name.rpartition("_")[0] or name
    if key == "institution":
        return words[0]
    return name if key == "take" else institution_activity


def scene_tags(take: dict[str, Any]) -> dict[str, str | float]:
    """The place of a take under every scene key, for evaluations that report them all."""
    return {f"scene.{key}": scene_of(take, key) for key in SceneKey.__args__}
