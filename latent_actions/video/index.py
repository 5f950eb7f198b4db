"""The index of a source: its clips, and a report of what was dropped and why.

`invact data index` writes it without decoding anything:

    <out>/records.json    the clips, in order
    <out>/report.json     below

report = {"source", "root", "splits": {split: {kept, moments, verbs, scenes, takes, views, dropped:
{reason: {count, damage, examples}}}}, "notes": [what the numbers mean for training and retrieval]}
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.files import write_json
from invact_vla.core.limits import read_text
from invact_vla.core.run_folder import open_run
from latent_actions.video.records import ClipRecord, Split, encode_record
from latent_actions.video.skip_report import EXAMPLES, SkipReport, dropped_lines
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources import EgoExo4dSource

logger = logging.getLogger(__name__)
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class ClipIndex:
    """Clips of some splits, in order, and the report on them."""

    records: list[ClipRecord]
    report: dict[str, Any]


def build_index(
    source: SourceConfig,
    splits: Sequence[Split] = SPLITS,
    vocabulary: Collection[str] | None = None,
) -> ClipIndex:
    """Clips of some splits with a verb (of the vocabulary, if one is given).

    UserError if more than the share source.max_skipped of what a split lists is damaged, or if a
    split has no clip left, with the reasons."""
    records: list[ClipRecord] = []
    report: dict[str, Any] = {"source": source.name, "root": str(source.root), "splits": {}}
    for split in splits:
        listed, dropped = source.checked_index(split)
        kept = [record for record in listed if _has_label(record, vocabulary, dropped)]
        if not kept:
            raise UserError(
                f"no clips of split {split!r} below {source.root}: "
                f"{dropped.summary() or 'nothing is listed'}; check the root, the split and the "
                "options of the source"
            )
        records += kept
        report["splits"][split] = {
            "kept": len(kept),
            "moments": len({record.moment_id for record in kept}),
            "verbs": len({record.verb for record in kept}),
            "scenes": len({record.scene for record in kept}),
            "takes": len({record.take for record in kept}),
            "views": dict(sorted(Counter(record.view for record in kept).items())),
            "dropped": dropped.as_json(),
        }
    report["notes"] = notes_on(records)
    for note in report["notes"]:
        logger.warning("%s: %s", source.name, note)
    return ClipIndex(records, report)


def _has_label(record: ClipRecord, vocabulary: Collection[str] | None, dropped: SkipReport) -> bool:
    if not record.verb:
        dropped.add("clips without a verb", record.clip_id)
    elif vocabulary is not None and record.verb not in vocabulary:
        dropped.add("verbs not in the vocabulary", f"{record.clip_id}: {record.verb}")
    else:
        return True
    return False


def notes_on(records: Sequence[ClipRecord]) -> list[str]:
    """What is unusual about an index: one class, few scenes, one view, verbs unseen in training."""
    notes = []
    by_split: dict[str, list[ClipRecord]] = defaultdict(list)
    for record in records:
        by_split[record.split].append(record)
    for split, clips in by_split.items():
        verbs, scenes = {c.verb for c in clips}, {c.scene for c in clips}
        if len(verbs) == 1:
            notes.append(f"{split} has one class only ({min(verbs)}): nothing can be distinguished")
        if len(scenes) <= 2:
            few = "one scene" if len(scenes) == 1 else "two scenes"
            notes.append(
                f"{split} has {few} only ({', '.join(sorted(scenes))}): retrieval across scenes "
                "needs two or more, and says little with two"
            )
        views: dict[str, set[str]] = defaultdict(set)
        for clip in clips:
            views[clip.moment_id].add(clip.view)
        if all(len(seen) == 1 for seen in views.values()):
            notes.append(f"{split} has no moment that both an ego and an exo camera see")
    known = {record.verb for record in by_split.get("train", ())}
    val = by_split.get("val", [])
    unseen = Counter(record.verb for record in val if known and record.verb not in known)
    if unseen:
        named = ", ".join(verb for verb, _ in unseen.most_common(EXAMPLES))
        notes.append(
            f"{len(unseen)} verbs of val are unseen in training ({unseen.total()} of {len(val)} clips; "
            f"such as {named}): they stay queries and gallery, and are no classes of the verb term"
        )
    return notes


def format_report(report: dict[str, Any]) -> str:
    """The report as lines of text."""
    lines = [f"{report['source']} below {report['root']}"]
    for split, part in report["splits"].items():
        views = ", ".join(f"{count} {view}" for view, count in part["views"].items())
        names = ("moments", "verbs", "scenes", "takes")
        counts = ", ".join(f"{part[name]} {name}" for name in names)
        lines.append(f"{split}: {part['kept']} clips ({views}), {counts}")
        lines += dropped_lines(part["dropped"])
    return "\n".join([*lines, *(f"note: {note}" for note in report["notes"])])


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Which clips a source has."""

    out: Path  # run folder
    source: SourceConfig = field(default_factory=EgoExo4dSource)  # where the videos are
    splits: tuple[Split, ...] = SPLITS  # splits to list
    vocabulary: Path | None = None  # text file, one verb per line: other verbs are dropped
    overwrite: bool = False  # replace a run folder of another config


def main(config: IndexConfig) -> Path:
    """Print the report, write records.json and report.json; returns the run folder."""
    run = open_run(config.out, config, inputs=config.source.parents(), overwrite=config.overwrite)
    if run.finished:
        return run.folder
    vocabulary = None
    if config.vocabulary is not None:
        if not config.vocabulary.is_file():
            raise UserError(f"no file {config.vocabulary}: expected text with one verb per line")
        lines = read_text(config.vocabulary).splitlines()
        vocabulary = {line.strip() for line in lines} - {""}
    index = build_index(config.source, config.splits, vocabulary)
    write_json(run.folder / "records.json", [encode_record(record) for record in index.records])
    write_json(run.folder / "report.json", index.report)
    print(format_report(index.report))
    run.finish({split: part["kept"] for split, part in index.report["splits"].items()})
    return run.folder
