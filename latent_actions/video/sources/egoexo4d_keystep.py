"""Keysteps of Ego-Exo4D (V2): segments of several atomic actions, one record per camera.

    <root>/annotations/keystep_{train,val}.json     {annotations: {take_uid: {take_name, scenario,
        segments: [{start_time, end_time, step_id, step_name, step_description, is_essential,
        step_unique_id}]}}, taxonomy: {scenario: {id: {name, is_leafnode, parent_id, parent_name,
        unique_id}}}, vocabulary: {unique_id: name}}                  and egoexo4d_takes.py

A keystep is embedded as a composition of its atomic actions: `parts` holds their spans, as
atomic_descriptions_<split>.json gives them, where that file is there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from invact_vla.core.errors import UserError
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources.egoexo4d import EgoExo4dSource
from latent_actions.video.sources.egoexo4d_takes import (
    SceneKey,
    Take,
    TakesSource,
    as_bool,
    known_takes,
    scene_tags,
    segments_of,
)

LabelLevel = Literal["leaf", "parent", "scenario"]


@SourceConfig.register_subclass("egoexo4d_keystep")
@dataclass(frozen=True, kw_only=True)
class EgoExo4dKeystepSource(TakesSource):
    """Keystep segments of Ego-Exo4D. The verb of a record is its label at `label_level`; tags hold
    all levels ("leaf", "parent", "scenario"), step_id, step_unique_id, is_essential (0 or 1) and
    every scene key ("scene.<key>").
    """

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
