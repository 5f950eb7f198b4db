"""Keysteps of Ego-Exo4D (V2): segments of several atomic actions, one record per camera.

    <root>/annotations/keystep_{train,val}.json     {annotations: {take_uid: {take_name, scenario,
        segments: [{start_time, end_time, step_id, step_name, step_description, is_essential,
        step_unique_id}]}}, taxonomy: {scenario: {id: {name, is_leafnode, parent_id, parent_name,
        unique_id}}}, vocabulary: {unique_id: name}}                  and egoexo4d_takes.py

A keystep is embedded as a composition of its atomic actions: `parts` holds their spans, as
atomic_descriptions_<split>.json gives them, where that file is there.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from invact_vla.core.errors import UserError
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources.egoexo4d import EgoExo4dSource, moments_of
from latent_actions.video.sources.egoexo4d_takes import (
    SceneKey,
    Views,
    as_bool,
    cameras_of,
    chosen_cameras,
    known_takes,
    read_annotations,
    read_takes,
    scene_of,
    scene_tags,
    segments_of,
)

LabelLevel = Literal["leaf", "parent", "scenario"]


@SourceConfig.register_subclass("egoexo4d_keystep")
@dataclass(frozen=True, kw_only=True)
class EgoExo4dKeystepSource(SourceConfig):
    """Keystep segments of Ego-Exo4D. The verb of a record is its label at `label_level`; tags hold
    all levels ("leaf", "parent", "scenario"), step_id, step_unique_id, is_essential (0 or 1) and
    every scene key ("scene.<key>").
    """

    scene_key: SceneKey = "institution"  # what ClipRecord.scene is: the grouping by place
    label_level: LabelLevel = "leaf"  # leaf: the step; parent: above it in the taxonomy; scenario
    exo: Literal["all", "best"] = "best"  # exo cameras of a segment: all, or the take's best
    views: Views = "both"  # takes with an ego and an exo camera, or with any
    min_duration_s: float = 0.0  # segments that are not longer are dropped, seconds
    essential_only: bool = False  # leave out steps that are not essential to the task

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_duration_s < 0:
            raise ValueError(f"min_duration_s must be >= 0, got {self.min_duration_s}")

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        takes, keysteps = read_takes(self.root), read_annotations(self.root, "keystep", split)
        described = self._descriptions(split)
        records, dropped = [], SkipReport()
        for uid in known_takes(iter(keysteps["annotations"]), takes, dropped):
            take = _Take(
                takes[uid], keysteps["annotations"][uid], described.get(uid, []),
                keysteps.get("taxonomy", {}), split,
            )  # fmt: skip
            records += self._segments(take, dropped)
        return records, dropped

    def for_labels(self) -> "EgoExo4dKeystepSource":
        return replace(self, views="any")

    def _descriptions(self, split: Split) -> dict[str, Any]:
        name = "atomic_descriptions"
        if not (self.root / "annotations" / f"{name}_{split}.json").exists():
            return {}
        return read_annotations(self.root, name, split)["annotations"]

    def _segments(self, take: "_Take", dropped: SkipReport) -> Iterator[ClipRecord]:
        cameras = cameras_of(self.root, take.entry, dropped, self.views)
        if not cameras:
            return
        chosen = chosen_cameras(cameras, self.exo, None, take.entry)
        segments = segments_of(take.keysteps, take.name, dropped)
        dropped.seen += len(segments)
        spans = take.atomic_spans(self.root, [(start, end) for start, end, _ in segments])
        for number, (start, end, segment) in enumerate(segments):
            try:
                reason = self._reason_to_drop(segment, end - start)
            except UserError:
                where = f"{take.name} at {start:.1f} s"
                dropped.add("keysteps with unparsable truth values", where, damage=True)
                continue
            if reason is not None:
                dropped.add(reason, f"{take.name} at {start:.1f} s")
                continue
            tags = take.tags(segment)
            for camera in chosen:
                yield ClipRecord(
                    clip_id=f"{take.name}/k{number:04d}/{camera.name}",
                    moment_id=f"{take.name}/k{number:04d}",
                    take=take.name,
                    scene=scene_of(take.entry, self.scene_key),
                    view=camera.view,
                    camera=camera.name,
                    verb=str(tags[self.label_level]),
                    text=str(segment.get("step_description") or segment["step_name"]),
                    split=take.split,
                    video=camera.video,
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


@dataclass(frozen=True)
class _Take:
    """One take: its entry in takes.json, its keysteps, its atomic descriptions, the taxonomy."""

    entry: dict[str, Any]
    keysteps: Any
    descriptions: Any
    taxonomy: dict[str, Any]
    split: Split

    @property
    def name(self) -> str:
        return self.entry["take_name"]

    def atomic_spans(
        self, root: Path, segments: list[tuple[float, float]]
    ) -> list[tuple[float, float]]:
        """(start, end) of the atomic actions, by the rules of the atomic reader."""
        rules = EgoExo4dSource(root=root)
        moments = moments_of(rules, self.entry, self.descriptions, segments, SkipReport())
        return [(moment.start_s, moment.end_s) for moment in moments]

    def tags(self, segment: dict[str, Any]) -> dict[str, str | float]:
        """Labels of a segment at every level, its step, and the scene keys of the take."""
        scenario = str(self.keysteps.get("scenario", ""))
        step = str(segment["step_name"])
        node = self.taxonomy.get(scenario, {}).get(str(segment.get("step_id")), {})
        return {
            "leaf": step,
            "parent": str(node.get("parent_name") or step),  # a step at the top is its own parent
            "scenario": scenario,
            "step_id": str(segment.get("step_id")),
            "step_unique_id": str(segment.get("step_unique_id")),
            "is_essential": float(as_bool(segment.get("is_essential"))),
            **scene_tags(self.entry),
        }
