"""What the readers of Ego-Exo4D (V2) share: takes, annotation files, cameras, scene keys.

    <root>/takes.json
    <root>/annotations/<name>_{train,val}.json
    <root>/takes/<take_name>/frame_aligned_videos[/downscaled/448]/<camera>.mp4

Layout and field names: docs of github.com/EGO4D.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.data.video.frames import list_videos
from latent_actions.video.records import ClipRecord, Split, View
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig, check_folder

# keyword scenes of the published evaluation
ACTIVITIES = ("cooking", "bike", "covid", "pcr", "cpr")
EGO_FILE = re.compile(r"^aria\d+_214-1\.mp4$", re.I)  # the RGB stream of a device by its number
DOWNSCALED = Path("frame_aligned_videos/downscaled/448")
FULL = Path("frame_aligned_videos")
COLLAGES = ("ego_preview", "collage", "best_exo")  # several cameras in one picture
SceneKey = Literal[
    "physical_setting", "institution_activity", "keyword", "capture", "take", "institution"
]
Views = Literal["both", "any"]
Take = dict[str, Any]  # an entry of takes.json


class Camera(NamedTuple):
    """A camera of a take that has a video on disk."""

    name: str
    view: View
    video: Path


@dataclass(frozen=True, kw_only=True)
class TakesSource(SourceConfig):
    """Clips of takes, one record per camera."""

    scene_key: SceneKey = "physical_setting"  # what ClipRecord.scene is: the grouping by place
    exo: Literal["all", "best"] = "all"  # exo cameras of a clip: all, or the annotators' best_exo
    views: Views = "both"  # takes with an ego and an exo camera, or with any; labels: with any
    min_duration_s: float = 0.0  # clips that are not longer are dropped, seconds

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_duration_s < 0:
            raise ValueError(f"min_duration_s must be >= 0, got {self.min_duration_s}")

    def for_labels(self) -> "TakesSource":
        return replace(self, views="any")

    def takes(self) -> dict[str, Take]:
        """{take_uid: entry of takes.json}."""
        check_folder(self.root, "an Ego-Exo4D folder with takes.json, annotations/ and takes/")
        takes = read_json(self.root / "takes.json")
        if not isinstance(takes, list) or not all(
            isinstance(take, dict) and {"take_uid", "take_name"} <= set(take) for take in takes
        ):
            raise UserError(
                f"{self.root / 'takes.json'} is no list of takes with take_uid and take_name: expected "
                "the file of Ego-Exo4D V2"
            )
        return {take["take_uid"]: take for take in takes}

    def annotations(self, name: str, split: Split) -> dict[str, Any]:
        """Content of annotations/<name>_<split>.json, which has {"annotations": {take_uid: ...}}."""
        path = self.root / "annotations" / f"{name}_{split}.json"
        content = read_json(path)
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), dict):
            raise UserError(
                f'{path} has no "annotations": expected an Ego-Exo4D V2 annotation file'
            )
        return content

    def cameras(self, take: Take, dropped: SkipReport) -> list[Camera]:
        """Cameras of a take, from the downscaled videos, else the full ones; with views "both" none if
        it lacks a view.

        Ego is the RGB stream of the Aria glasses, whatever their number, and what `capture.cameras` of
        takes.json calls ego (some GoPros); other streams of the glasses and collages are left out.
        Retrieval and training compare views, so a take needs both there; a label needs one."""
        name, stated = take["take_name"], _stated_ego(take)
        base = self.root / (take.get("root_dir") or f"takes/{name}")
        folder = next((base / f for f in (DOWNSCALED, FULL) if (base / f).is_dir()), None)
        cameras = []
        for path in list_videos(folder, depth=1) if folder is not None else ():
            if EGO_FILE.match(path.name):
                cameras.append(Camera(path.stem, "ego", path))
            elif not path.stem.startswith("aria") and path.stem not in COLLAGES:
                cameras.append(Camera(path.stem, "ego" if path.stem in stated else "exo", path))
        seen = {camera.view for camera in cameras}
        if len(seen) == 2 or (seen and self.views == "any"):
            return cameras
        missing = "an exo" if seen == {"ego"} else "an ego"
        dropped.add(f"takes without {missing} camera" if seen else "takes without videos", name)
        return []

    def clips_of(
        self, take: Take, cameras: list[Camera], number: str, stated: Any = None, **fields: Any
    ) -> Iterator[ClipRecord]:
        """The clips of a moment: ego, and all exo cameras or (exo="best") the best one.

        number: of the moment in its take. stated: an annotation's best_exo. fields: of the records."""
        name, scene = take["take_name"], scene_of(take, self.scene_key)
        exos = [camera.name for camera in cameras if camera.view == "exo"]
        best = named_exo(take, stated, exos) or min(exos, default=None)
        for camera in cameras:
            if camera.view == "ego" or self.exo == "all" or camera.name == best:
                yield ClipRecord(
                    clip_id=f"{name}/{number}/{camera.name}",
                    moment_id=f"{name}/{number}",
                    take=name,
                    scene=scene,
                    view=camera.view,
                    camera=camera.name,
                    video=camera.video,
                    **fields,
                )


def known_takes(
    takes: dict[str, Take], annotated: Iterable[str], dropped: SkipReport
) -> list[tuple[str, Take]]:
    """(take_uid, entry) of the annotated takes that takes.json lists, by name."""
    known = []
    for uid in annotated:
        if uid in takes:
            known.append((uid, takes[uid]))
        else:
            dropped.add("takes not in takes.json", uid)
    return sorted(known, key=lambda item: item[1]["take_name"])


def _stated_ego(take: Take) -> set[str]:
    """Names of the cameras that takes.json calls egocentric, where it has them."""
    capture = take.get("capture")
    cameras = capture.get("cameras") if isinstance(capture, dict) else None
    return {
        str(camera.get("cam_id"))
        for camera in (cameras if isinstance(cameras, list) else [])
        if isinstance(camera, dict) and camera.get("is_ego")
    }


def named_exo(take: Take, stated: Any, present: list[str]) -> str | None:
    """The best exo camera of the description, else of the take; None if neither names one."""
    of_moment = stated.get("cam_id") if isinstance(stated, dict) else None
    return next((c for c in (of_moment, take.get("best_exo")) if c in present), None)


def as_bool(value: Any) -> bool:
    """The annotation files mix true, "1" and 1 in one field. Raises UserError on anything else."""
    if value is None or isinstance(value, int) or value in (0.0, 1.0):
        return bool(value)
    word = value.strip().lower() if isinstance(value, str) else None
    if word in ("1", "true"):
        return True
    if word in ("0", "false", ""):
        return False
    raise UserError(f'expected true, false, "0" or "1" in the annotations, got {value!r}')


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


def scene_of(take: Take, key: SceneKey) -> str:
    """The place of a take under a scene key. Keys that parse the name follow
    <institution>_<activity>."""
    name = take["take_name"]
    words = name.split("_")
    # upenn writes <institution>_<date>_<Activity>_<index>
    activity = next((w.rstrip("0123456789") for w in words[1:] if not w.isdigit()), "")
    institution_activity = f"{words[0]}_{activity.lower()}" if len(words) > 1 else name
    uid = take.get("physical_setting_uid")
    return {
        "physical_setting": institution_activity if uid in (None, "") else str(uid),
        "institution_activity": institution_activity,
        "keyword": next((w for w in ACTIVITIES if w in name.lower()), institution_activity),
        "capture": name.rpartition("_")[0] or name,
        "take": name,
        "institution": words[0],
    }[key]


def scene_tags(take: Take) -> dict[str, str | float]:
    """The place of a take under every scene key, for evaluations that report them all."""
    return {f"scene.{key}": scene_of(take, key) for key in SceneKey.__args__}
