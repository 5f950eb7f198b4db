"""Clips of Ego-Exo4D (V2), one record per camera: atomic descriptions, cut by keysteps; and keysteps.

    <root>/annotations/{atomic_descriptions,keystep}_{train,val}.json        and egoexo4d_takes.py

An atomic clip runs from a description's time stamp to the next one's, is cut at the end of the
keystep segment that it starts in, and is kept if longer than `min_duration_s` (this reproduces the
structure of InvAct's published validation list).

    keystep_{train,val}.json     {annotations: {take_uid: {take_name, scenario, segments:
        [{start_time, end_time, step_id, step_name, step_description, is_essential,
        step_unique_id}]}}, taxonomy: {scenario: {id: {name, is_leafnode, parent_id, parent_name,
        unique_id}}}, vocabulary: {unique_id: name}}

A keystep is embedded as a composition of its atomic actions: `parts` holds their spans, as
atomic_descriptions_<split>.json gives them, where that file is there.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from invact_vla.core.errors import UserError
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources.egoexo4d_poses import hand_paths
from latent_actions.video.sources.egoexo4d_takes import (
    SceneKey,
    Take,
    TakesSource,
    as_bool,
    as_seconds,
    known_takes,
    named_exo,
    scene_tags,
    segments_of,
)
from latent_actions.video.verbs import strip_subject, verb_of

OTHER_PERSON = re.compile(
    r"^\s*#?\s*(O\b|the\s+(other\s+)?(man|woman|person|lady|boy|girl)\b)", re.I
)
Timed = tuple[float, dict[str, Any]]  # a description and its time
LabelLevel = Literal["leaf", "parent", "scenario"]


class Moment(NamedTuple):
    """A kept description of a take, in seconds of the take."""

    start_s: float
    end_s: float
    row: dict[str, Any]


@SourceConfig.register_subclass("egoexo4d")
@dataclass(frozen=True, kw_only=True)
class EgoExo4dSource(TakesSource):
    """Atomic clips of Ego-Exo4D, one record per (description, camera)."""

    min_duration_s: float = 1.0  # clips that are not longer are dropped, seconds
    drop_unsure: bool = True  # leave out descriptions that the annotator marked as unsure
    need_ego_visible: bool = False  # leave out descriptions marked as not visible in the ego view

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        takes = self.takes()
        descriptions = self.annotations("atomic_descriptions", split)["annotations"]
        keysteps = self.annotations("keystep", split)["annotations"]
        records, dropped = [], SkipReport()
        for uid, take in known_takes(takes, descriptions, dropped):
            if uid in keysteps:
                records += self._clips(split, take, descriptions[uid], keysteps[uid], dropped)
            else:
                dropped.add("takes without keysteps", take["take_name"])
        return records, dropped

    def hand_paths(
        self, records: Sequence[ClipRecord], frames: Sequence[np.ndarray], fps: Sequence[float]
    ) -> np.ndarray:
        uids = {take["take_name"]: uid for uid, take in self.takes().items()}
        return hand_paths(self.root, uids, records, frames, fps)

    def _clips(
        self, split: Split, take: Take, annotations: Any, keysteps: Any, dropped: SkipReport
    ) -> Iterator[ClipRecord]:
        """Every kept moment, seen by the ego and the exo cameras that are on disk."""
        cameras = self.cameras(take, dropped)
        if not cameras:
            return
        segments = [s[:2] for s in segments_of(keysteps, take["take_name"], dropped)]
        for number, moment in enumerate(self.moments(take, annotations, segments, dropped)):
            text, stated = strip_subject(moment.row["text"]), moment.row.get("best_exo")
            named = named_exo(take, stated, [camera.name for camera in cameras])
            times = {"start_s": moment.start_s, "end_s": moment.end_s}
            words = {"text": text, "verb": verb_of(text) or ""}
            for clip in self.clips_of(
                take, cameras, f"{number:04d}", stated, split=split, **words, **times
            ):
                yield replace(clip, best=clip.camera == named)

    def moments(
        self,
        take: Take,
        annotations: Any,
        segments: list[tuple[float, float]],
        dropped: SkipReport,
    ) -> Iterator[Moment]:
        """The kept descriptions of a take. segments: (start, end) of its keysteps, seconds."""
        rows = _one_annotator(annotations, take["take_name"], dropped)
        duration_s = as_seconds(take.get("duration_sec"))  # if it is not told, the keystep ends it
        last = math.inf if duration_s is None else duration_s
        ends = [*(start_s for start_s, _ in rows[1:]), last]
        for (start_s, row), end_s in zip(rows, ends, strict=False):
            where = f"{take['take_name']} at {start_s:.1f} s"
            segment = next((s for s in segments if s[0] <= start_s < s[1]), None)
            try:
                reason = self._reason_to_drop(row)
            except UserError:
                dropped.add("descriptions with unparsable truth values", where, damage=True)
                continue
            if segment is None:
                reason = reason or "outside every keystep segment"
            elif min(end_s, segment[1]) - start_s <= self.min_duration_s:
                reason = reason or f"not longer than {self.min_duration_s} s"
            elif reason is None:
                yield Moment(start_s, min(end_s, segment[1]), row)
            if reason is not None:
                dropped.add(reason, where)

    def _reason_to_drop(self, row: dict[str, Any]) -> str | None:
        subject = row.get("narration_subject", row.get("subject"))
        if subject not in (None, "C") or OTHER_PERSON.match(row["text"]):
            return "about another person"
        if verb_of(row["text"]) is None:
            return "without a word"
        if self.drop_unsure and as_bool(row.get("unsure", False)):
            return "marked unsure"
        if self.need_ego_visible and not as_bool(row.get("ego_visible", True)):
            return "not visible in the ego view"
        return None


def _one_annotator(annotations: Any, name: str, dropped: SkipReport) -> list[Timed]:
    """The descriptions of the accepted annotator with the most of them (the first of equals), by time.

    Published validation clips never overlap, so annotators are not mixed (which one is kept there
    is not known)."""
    accepted: list[list[Any]] = []
    for annotation in annotations if isinstance(annotations, list) else [annotations]:
        try:
            rejected = as_bool(annotation.get("rejected", False))
        except (UserError, AttributeError):
            dropped.seen += 1
            dropped.add("annotations of another type", f"{name}: {annotation!r:.80}", damage=True)
            continue
        rows = annotation.get("descriptions") or []
        rows = rows if isinstance(rows, list) else [rows]
        if rejected:
            dropped.add("of rejected annotations", name, len(rows))
        else:
            accepted.append(rows)
    if not accepted:
        return []
    chosen = max(accepted, key=len)
    for rows in accepted:
        if rows is not chosen:
            dropped.add("of further annotators", name, len(rows))
    return sorted(_readable(chosen, name, dropped), key=lambda timed: timed[0])


def _readable(rows: list[Any], name: str, dropped: SkipReport) -> Iterator[Timed]:
    """The descriptions that have a text and a time; the others are damage."""
    dropped.seen += len(rows)
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
            yield time_s, row


@SourceConfig.register_subclass("egoexo4d_keystep")
@dataclass(frozen=True, kw_only=True)
class EgoExo4dKeystepSource(TakesSource):
    """Keystep segments of Ego-Exo4D. The verb of a record is its label at `label_level`; tags hold
    all levels ("leaf", "parent", "scenario"), step_id, step_unique_id, is_essential (0 or 1) and
    every scene key ("scene.<key>")."""

    scene_key: SceneKey = "institution"  # what ClipRecord.scene is: the grouping by place
    label_level: LabelLevel = "leaf"  # leaf: the step; parent: above it in the taxonomy; scenario
    exo: Literal["all", "best"] = "best"  # exo cameras of a segment: all, or the take's best
    essential_only: bool = False  # leave out steps that are not essential to the task

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        takes, keysteps, described = self.takes(), self.annotations("keystep", split), {}
        if (self.root / "annotations" / f"atomic_descriptions_{split}.json").exists():
            described = self.annotations("atomic_descriptions", split)["annotations"]
        taxonomy, records, dropped = keysteps.get("taxonomy", {}), [], SkipReport()
        for uid, take in known_takes(takes, keysteps["annotations"], dropped):
            found = keysteps["annotations"][uid], described.get(uid, []), taxonomy
            records += self._clips(split, take, *found, dropped)
        return records, dropped

    def _clips(
        self,
        split: Split,
        take: Take,
        keysteps: Any,
        descriptions: Any,
        taxonomy: dict[str, Any],
        dropped: SkipReport,
    ) -> Iterator[ClipRecord]:
        name, cameras = take["take_name"], self.cameras(take, dropped)
        if not cameras:
            return
        segments = segments_of(keysteps, name, dropped)
        dropped.seen += len(segments)
        atomic = EgoExo4dSource(root=self.root).moments(
            take, descriptions, [segment[:2] for segment in segments], SkipReport()
        )
        spans = [(moment.start_s, moment.end_s) for moment in atomic]
        for number, (start, end, segment) in enumerate(segments):
            where = f"{name} at {start:.1f} s"
            try:
                reason = self._reason_to_drop(segment, end - start)
            except UserError:
                dropped.add("keysteps with unparsable truth values", where, damage=True)
                continue
            if reason is not None:
                dropped.add(reason, where)
                continue
            tags = _tags(take, keysteps, taxonomy, segment)
            yield from self.clips_of(
                take,
                cameras,
                f"k{number:04d}",
                verb=str(tags[self.label_level]),
                text=str(segment.get("step_description") or segment["step_name"]),
                split=split,
                start_s=start,
                end_s=end,
                tags=tags,
                parts=tuple((a, min(b, end)) for a, b in spans if start <= a < end),
            )

    def _reason_to_drop(self, segment: dict[str, Any], duration_s: float) -> str | None:
        if not segment.get("step_name"):
            return "keysteps without a name"
        if duration_s <= self.min_duration_s:
            return f"not longer than {self.min_duration_s} s"
        essential = as_bool(segment.get("is_essential"))
        if self.essential_only and not essential:
            return "not essential"
        return None


def _tags(
    take: Take, keysteps: dict[str, Any], taxonomy: dict[str, Any], segment: dict[str, Any]
) -> dict[str, str | float]:
    """Labels of a segment at every level, its step, and the scene keys of the take."""
    scenario, step = str(keysteps.get("scenario", "")), str(segment["step_name"])
    node = taxonomy.get(scenario, {}).get(str(segment.get("step_id")), {})
    return {
        "leaf": step,
        "parent": str(node.get("parent_name") or step),  # a step at the top is its own parent
        "scenario": scenario,
        "step_id": str(segment.get("step_id")),
        "step_unique_id": str(segment.get("step_unique_id")),
        "is_essential": float(as_bool(segment.get("is_essential"))),
        **scene_tags(take),
    }
