"""Atomic clips of Ego-Exo4D (V2): atomic descriptions, cut by keysteps, one record per camera.

    <root>/annotations/{atomic_descriptions,keystep}_{train,val}.json        and egoexo4d_takes.py

An atomic clip runs from a description's time stamp to the next one's, is cut at the end of the
keystep segment that it starts in, and is kept if longer than `min_duration_s` (this reproduces the
structure of InvAct's published validation list).
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources.egoexo4d_poses import hand_paths
from latent_actions.video.sources.egoexo4d_takes import (
    SceneKey,
    Views,
    as_bool,
    as_seconds,
    cameras_of,
    chosen_cameras,
    known_takes,
    named_exo,
    read_annotations,
    read_takes,
    scene_of,
    segments_of,
)
from latent_actions.video.verbs import strip_subject, verb_of

OTHER_PERSON = re.compile(
    r"^\s*#?\s*(O\b|the\s+(other\s+)?(man|woman|person|lady|boy|girl)\b)", re.I
)


@dataclass(frozen=True)
class Moment:
    """A kept description of a take, in seconds of the take."""

    start_s: float
    end_s: float
    row: dict[str, Any]


@SourceConfig.register_subclass("egoexo4d")
@dataclass(frozen=True, kw_only=True)
class EgoExo4dSource(SourceConfig):
    """Atomic clips of Ego-Exo4D, one record per (description, camera)."""

    scene_key: SceneKey = "physical_setting"  # what ClipRecord.scene is: the grouping by place
    exo: Literal["all", "best"] = "all"  # exo cameras of a moment: all, or the annotators' best_exo
    views: Views = "both"  # takes with an ego and an exo camera, or with any; labels: with any
    min_duration_s: float = 1.0  # shorter clips are dropped, seconds
    drop_unsure: bool = True  # leave out descriptions that the annotator marked as unsure
    need_ego_visible: bool = False  # leave out descriptions marked as not visible in the ego view

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_duration_s < 0:
            raise ValueError(f"min_duration_s must be >= 0, got {self.min_duration_s}")

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        return read_clips(self, split)

    def hand_paths(
        self, records: Sequence[ClipRecord], frames: Sequence[np.ndarray], fps: Sequence[float]
    ) -> np.ndarray:
        return hand_paths(self.root, records, frames, fps)

    def for_labels(self) -> "EgoExo4dSource":
        return replace(self, views="any")


def read_clips(source: EgoExo4dSource, split: Split) -> tuple[list[ClipRecord], SkipReport]:
    """All clips of a split in take order, and what was left out and why."""
    takes = read_takes(source.root)
    descriptions = read_annotations(source.root, "atomic_descriptions", split)["annotations"]
    keysteps = read_annotations(source.root, "keystep", split)["annotations"]
    records, dropped = [], SkipReport()
    for uid in known_takes(iter(descriptions), takes, dropped):
        if uid not in keysteps:
            dropped.add("takes without keysteps", takes[uid]["take_name"])
            continue
        records += _take_clips(source, split, takes[uid], descriptions[uid], keysteps[uid], dropped)
    return records, dropped


def _take_clips(
    source: EgoExo4dSource,
    split: Split,
    take: dict[str, Any],
    annotations: Any,
    keysteps: Any,
    dropped: SkipReport,
) -> Iterator[ClipRecord]:
    """Clips of one take: every kept moment, seen by the ego and the exo cameras that are on
    disk.
    """
    name, cameras = take["take_name"], cameras_of(source.root, take, dropped, source.views)
    if not cameras:
        return
    segments = [(start, end) for start, end, _ in segments_of(keysteps, name, dropped)]
    for number, moment in enumerate(moments_of(source, take, annotations, segments, dropped)):
        text, stated = strip_subject(moment.row["text"]), moment.row.get("best_exo")
        named = named_exo(take, stated, [camera.name for camera in cameras])
        for camera in chosen_cameras(cameras, source.exo, stated, take):
            yield ClipRecord(
                clip_id=f"{name}/{number:04d}/{camera.name}",
                moment_id=f"{name}/{number:04d}",
                take=name,
                scene=scene_of(take, source.scene_key),
                view=camera.view,
                camera=camera.name,
                verb=verb_of(text) or "",
                text=text,
                split=split,
                video=camera.video,
                start_s=moment.start_s,
                end_s=moment.end_s,
                best=camera.name == named,
            )


def moments_of(
    source: EgoExo4dSource,
    take: dict[str, Any],
    annotations: Any,
    segments: list[tuple[float, float]],
    dropped: SkipReport,
) -> Iterator[Moment]:
    """The kept descriptions of a take. segments: (start, end) of its keysteps, seconds."""
    name = take["take_name"]
    rows = _one_annotator(annotations, name, dropped)
    for index, (start_s, row) in enumerate(rows):
        last = index + 1 == len(rows)
        end_s = _duration(take) if last else rows[index + 1][0]
        segment = next((s for s in segments if s[0] <= start_s < s[1]), None)
        try:
            reason = _reason_to_drop(source, row)
        except UserError:
            dropped.add(
                "descriptions with unparsable truth values", f"{name} at {start_s:.1f} s",
                damage=True,
            )  # fmt: skip
            continue
        if reason is None and segment is None:
            reason = "outside every keystep segment"
        if reason is None and segment is not None:
            end_s = min(end_s, segment[1])
            if end_s - start_s <= source.min_duration_s:
                reason = f"not longer than {source.min_duration_s} s"
        if reason is None:
            yield Moment(start_s, end_s, row)
        else:
            dropped.add(reason, f"{name} at {start_s:.1f} s")


def _duration(take: dict[str, Any]) -> float:
    """Length of a take, seconds; without end if takes.json does not tell (the keystep ends it)."""
    duration_s = as_seconds(take.get("duration_sec"))
    return math.inf if duration_s is None else duration_s


def _one_annotator(
    annotations: Any, name: str, dropped: SkipReport
) -> list[tuple[float, dict[str, Any]]]:
    """(time, description) of the accepted annotator with the most of them (the first of equals), by
    time.

    Published validation clips never overlap, so annotators are not mixed (which one is kept there
    is not known).
    """
    accepted = []
    for annotation in annotations if isinstance(annotations, list) else [annotations]:
        try:
            rejected = as_bool(annotation.get("rejected", False))
        except (UserError, AttributeError):
            dropped.seen += 1
            dropped.add("annotations of another type", f"{name}: {annotation!r:.80}", damage=True)
            continue
        if rejected:
            dropped.add("of rejected annotations", name, len(_rows(annotation)))
        else:
            accepted.append(annotation)
    if not accepted:
        return []
    chosen = max(accepted, key=lambda annotation: len(_rows(annotation)))
    for annotation in accepted:
        if annotation is not chosen:
            dropped.add("of further annotators", name, len(_rows(annotation)))
    rows = _readable(_rows(chosen), name, dropped)
    return sorted(rows, key=lambda timed: timed[0])


def _rows(annotation: dict[str, Any]) -> list[Any]:
    rows = annotation.get("descriptions") or []
    return rows if isinstance(rows, list) else [rows]


def _readable(
    rows: list[Any], name: str, dropped: SkipReport
) -> list[tuple[float, dict[str, Any]]]:
    """The descriptions that have a text and a time; the others are damage."""
    dropped.seen += len(rows)
    readable = []
    for number, row in enumerate(rows):
        where = f"{name} description {number}"
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            dropped.add("descriptions of another type", f"{where}: {row!r:.80}", damage=True)
            continue
        time_s = as_seconds(row.get("timestamp"))
        if time_s is None:
            example = f"{where}: timestamp {row.get('timestamp')!r}"
            dropped.add("descriptions with unparsable timestamps", example, damage=True)
        else:
            readable.append((time_s, row))
    return readable


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
