"""Ego-Exo4D (V2) on disk: takes.json, atomic descriptions, keysteps, one video a camera.

    <root>/takes.json
    <root>/annotations/{atomic_descriptions,keystep}_{train,val}.json
    <root>/takes/<take_name>/frame_aligned_videos[/downscaled/448]/<camera>.mp4

An atomic clip runs from a description's time stamp to the next one's, is cut at the end of the
keystep segment that it starts in, and is kept if longer than `min_duration_s` (this reproduces the
structure of InvAct's published validation list). Layout and field names: docs of github.com/EGO4D.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from invact_vla.data.decode import probe
from invact_vla.errors import UserError
from invact_vla.training.files import read_json
from latent_actions.video.clips import episode_rng, horizon_frames, pair_starts
from latent_actions.video.records import ClipRecord, PairRecord, Split
from latent_actions.video.source import Dropped, SourceConfig, check_folder
from latent_actions.video.verbs import strip_subject, verb_of

ACTIVITIES = (
    "cooking",
    "bike",
    "covid",
    "pcr",
    "cpr",
)  # keyword scenes of the published evaluation
EGO_FILE = re.compile(r"^aria\d+_214-1\.mp4$")  # 214-1 is the RGB stream, the number is the device
DOWNSCALED = Path("frame_aligned_videos/downscaled/448")
FULL = Path("frame_aligned_videos")
OTHER_PERSON = re.compile(
    r"^\s*#?\s*(O\b|the\s+(other\s+)?(man|woman|person|lady|boy|girl)\b)", re.I
)
SceneKey = Literal["physical_setting", "institution_activity", "keyword", "capture", "take"]


@SourceConfig.register_subclass("egoexo4d")
@dataclass(frozen=True, kw_only=True)
class EgoExo4dSource(SourceConfig):
    """Atomic clips of Ego-Exo4D, one record a (description, camera)."""

    scene_key: SceneKey = "physical_setting"  # what ClipRecord.scene is: the grouping by place
    exo: Literal["all", "best"] = "all"  # exo cameras of a moment: all, or the annotators' best_exo
    min_duration_s: float = 1.0  # shorter clips are dropped, seconds
    drop_unsure: bool = True  # leave out descriptions that the annotator marked as unsure
    need_ego_visible: bool = False  # leave out descriptions marked as not visible in the ego view

    def __post_init__(self) -> None:
        if self.min_duration_s < 0:
            raise ValueError(f"min_duration_s must be >= 0, got {self.min_duration_s}")

    def clips(self, split: Split) -> list[ClipRecord]:
        return read_clips(self, split)[0]

    def pairs(self, split: Split, h_s: float, pairs_per_clip: int, seed: int) -> list[PairRecord]:
        records, dropped = [], Dropped()
        fps_of: dict[Path, tuple[float, int]] = {}
        for clip in self.clips(split):
            if clip.video not in fps_of:
                info = probe(clip.video)
                fps_of[clip.video] = info.fps, info.n_frames
            fps, n_frames = fps_of[clip.video]
            first = round(clip.start_s * fps)
            length = min(round(clip.end_s * fps), n_frames) - first
            horizon = horizon_frames(h_s, fps)
            starts = pair_starts(length, horizon, pairs_per_clip, episode_rng(seed, clip.clip_id))
            if not len(starts):
                dropped.add("shorter than the horizon", clip.clip_id)
            for start in (first + starts).tolist():
                records.append(
                    PairRecord(
                        episode=clip.clip_id, video=clip.video, text=clip.text,
                        frame=start, frame_end=start + horizon, fps=fps,
                    )
                )  # fmt: skip
        dropped.log(f"egoexo4d {split} pairs", len(records))
        return records


def read_clips(source: EgoExo4dSource, split: Split) -> tuple[list[ClipRecord], Dropped]:
    """All clips of a split in take order, and what was left out and why."""
    check_folder(source.root, "an Ego-Exo4D folder with takes.json, annotations/ and takes/")
    takes = {take["take_uid"]: take for take in read_json(source.root / "takes.json")}
    annotations = source.root / "annotations"
    descriptions = _annotations(annotations / f"atomic_descriptions_{split}.json")
    keysteps = _annotations(annotations / f"keystep_{split}.json")
    records, dropped = [], Dropped()
    for uid in sorted(descriptions, key=lambda uid: takes.get(uid, {}).get("take_name", "")):
        if uid not in takes:
            dropped.add("takes not in takes.json", uid)
        elif uid not in keysteps:
            dropped.add("takes without keysteps", takes[uid]["take_name"])
        else:
            segments = keysteps[uid]["segments"]
            records += _take_clips(source, split, takes[uid], descriptions[uid], segments, dropped)
    dropped.log(f"egoexo4d {split} clips", len(records))
    return records, dropped


def _annotations(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict) or "annotations" not in content:
        raise UserError(f'{path} has no "annotations": expected an Ego-Exo4D V2 annotation file')
    return content["annotations"]


def _take_clips(
    source: EgoExo4dSource,
    split: Split,
    take: dict[str, Any],
    annotations: list[dict[str, Any]],
    segments: list[dict[str, Any]],
    dropped: Dropped,
) -> Iterator[ClipRecord]:
    """Clips of one take: every kept moment, seen by the ego and the exo cameras that are on
    disk.
    """
    name = take["take_name"]
    cameras = _cameras(source.root, take)
    if not cameras:
        dropped.add("takes without videos", name)
        return
    moments = list(_moments(source, take, annotations, segments, dropped))
    for number, (start_s, end_s, description) in enumerate(moments):
        text = strip_subject(description["text"])
        for camera, view, video in _chosen(source, take, description, cameras):
            yield ClipRecord(
                clip_id=f"{name}/{number:04d}/{camera}",
                moment_id=f"{name}/{number:04d}",
                take=name,
                scene=scene_of(take, source.scene_key),
                view=view,
                camera=camera,
                verb=verb_of(text) or "",
                text=text,
                split=split,
                video=video,
                start_s=start_s,
                end_s=end_s,
            )


def _moments(
    source: EgoExo4dSource,
    take: dict[str, Any],
    annotations: list[dict[str, Any]],
    segments: list[dict[str, Any]],
    dropped: Dropped,
) -> Iterator[tuple[float, float, dict[str, Any]]]:
    """(start, end, description) of the kept descriptions of a take, in seconds of the take."""
    name = take["take_name"]
    rows = _one_annotator(annotations, name, dropped)
    for index, row in enumerate(rows):
        start_s = float(row["timestamp"])
        last = index + 1 == len(rows)
        end_s = float(take["duration_sec"] if last else rows[index + 1]["timestamp"])
        segment = _segment_at(segments, start_s)
        reason = _reason_to_drop(source, row)
        if reason is None and segment is None:
            reason = "outside every keystep segment"
        if reason is None and segment is not None:
            end_s = min(end_s, float(segment["end_time"]))
            if end_s - start_s <= source.min_duration_s:
                reason = f"not longer than {source.min_duration_s} s"
        if reason is None:
            yield start_s, end_s, row
        else:
            dropped.add(reason, f"{name} at {start_s:.1f} s")


def _one_annotator(
    annotations: list[dict[str, Any]], name: str, dropped: Dropped
) -> list[dict[str, Any]]:
    """Descriptions of the accepted annotator with the most of them (the first of equals), by time.

    Published validation clips never overlap, so annotators are not mixed (which one is kept there
    is not known).
    """
    accepted = [a for a in annotations if not as_bool(a.get("rejected", False))]
    for annotation in annotations:
        if as_bool(annotation.get("rejected", False)):
            dropped.add("of rejected annotations", name, len(annotation["descriptions"]))
    if not accepted:
        return []
    chosen = max(accepted, key=lambda annotation: len(annotation["descriptions"]))
    for annotation in accepted:
        if annotation is not chosen:
            dropped.add("of further annotators", name, len(annotation["descriptions"]))
    return sorted(chosen["descriptions"], key=lambda row: float(row["timestamp"]))


def _reason_to_drop(source: EgoExo4dSource, row: dict[str, Any]) -> str | None:
    subject = row.get("narration_subject", row.get("subject"))
    if subject not in (None, "C") or OTHER_PERSON.match(row["text"]):
        return "about another person"
    if verb_of(row["text"]) is None:
        return "without a word"
    if source.drop_unsure and as_bool(row.get("unsure", False)):
        return "marked unsure"
    if source.need_ego_visible and not as_bool(row.get("ego_visible", True)):
        return "not visible in the ego view"
    return None


def _segment_at(segments: list[dict[str, Any]], time_s: float) -> dict[str, Any] | None:
    for segment in segments:
        if float(segment["start_time"]) <= time_s < float(segment["end_time"]):
            return segment
    return None


def _cameras(root: Path, take: dict[str, Any]) -> dict[str, tuple[str, Path]]:
    """{camera: (view, video)} of a take, from the downscaled videos, else the full ones.

    Ego is the RGB stream of the Aria glasses, whatever their number; its other streams are left
    out.
    """
    base = root / take.get("root_dir", f"takes/{take['take_name']}")
    folder = next((base / f for f in (DOWNSCALED, FULL) if (base / f).is_dir()), None)
    if folder is None:
        return {}
    cameras = {}
    for path in sorted(folder.glob("*.mp4")):
        if EGO_FILE.match(path.name):
            cameras[path.stem] = ("ego", path)
        elif not path.stem.startswith("aria"):
            cameras[path.stem] = ("exo", path)
    return cameras


def _chosen(
    source: EgoExo4dSource,
    take: dict[str, Any],
    description: dict[str, Any],
    cameras: dict[str, tuple[Any, Path]],
) -> Iterator[tuple[str, Any, Path]]:
    """The cameras of one moment: ego, and all exo cameras or the best one."""
    best = best_exo(take, description, [c for c, (view, _) in cameras.items() if view == "exo"])
    for camera, (view, path) in cameras.items():
        if view == "ego" or source.exo == "all" or camera == best:
            yield camera, view, path


def best_exo(take: dict[str, Any], description: dict[str, Any], present: list[str]) -> str | None:
    """The best exo camera: of the description, else of the take, else the first that is there."""
    stated = description.get("best_exo") or {}
    for camera in (stated.get("cam_id"), take.get("best_exo")):
        if camera in present:
            return camera
    return min(present, default=None)


def as_bool(value: bool | str | int | None) -> bool:
    """The annotation files mix true, "1" and 1 in one field. Raises UserError on anything else."""
    if value is None:
        return False
    if isinstance(value, bool | int):
        return bool(value)
    if value.strip().lower() in ("1", "true"):
        return True
    if value.strip().lower() in ("0", "false", ""):
        return False
    raise UserError(
        f'expected a truth value (true, false, "0" or "1") in the annotations, got {value!r}'
    )


def scene_of(take: dict[str, Any], key: SceneKey) -> str:
    """The place of a take under a scene key. Keys that parse the name follow
    <institution>_<activity>.
    """
    name = take["take_name"]
    words = name.split("_")
    institution_activity = f"{words[0]}_{words[1].rstrip('0123456789')}" if len(words) > 1 else name
    if key == "physical_setting":
        uid = take.get("physical_setting_uid")
        return institution_activity if uid in (None, "") else str(uid)
    if key == "keyword":
        return next((word for word in ACTIVITIES if word in name), institution_activity)
    if key == "capture":
        return name.rpartition("_")[0]
    return name if key == "take" else institution_activity
