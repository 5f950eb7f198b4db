"""Something-Something V2 on disk: one WebM a clip, labels as JSON.

    <root>/20bn-something-something-v2/<id>.webm
    <root>/labels/{train,validation,test,labels}.json     (or something-something-v2-<name>.json)

Each clip is one action of 2-6 s at about 12 fps. It has a template ("Pushing [something] from left
to right") and a filled label; the class is labels[template without brackets].
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig, check_folder

VIDEOS = "20bn-something-something-v2"
LABELS = "labels"
SPLIT_FILES = {"train": "train", "val": "validation"}


@SourceConfig.register_subclass("ssv2")
@dataclass(frozen=True, kw_only=True)
class Ssv2Source(SourceConfig):
    """SSV2 clips: frame pairs for latent-action labels and VLA pretraining, whole clips for
    zero-shot retrieval.

    The verb of a clip is its class, the template without brackets. SSV2 names no places and no
    cameras: every clip is its own scene, and all are called "exo", so that it serves retrieval with
    only the query itself left out, and not training across scenes.
    """

    text: Literal["label", "template"] = "label"  # instruction: objects named, or "something"

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        dropped = SkipReport()
        rows = [_clip_row(row, split) for row in self.rows(split)]
        return self.whole_videos(rows, dropped), dropped

    def rows(self, split: Split) -> list[dict[str, Any]]:
        """Per clip: id, video (path), text, label, template, class_name, class_index."""
        check_folder(self.root / VIDEOS, "the WebM files of Something-Something V2")
        classes = read_json(_label_file(self.root, "labels"))
        rows = []
        for entry in _entries(_label_file(self.root, SPLIT_FILES[split])):
            name = entry["template"].replace("[", "").replace("]", "")
            if name not in classes:
                raise UserError(
                    f"clip {entry['id']} has the template {entry['template']!r}, which labels.json "
                    "does not list: take both files from one release"
                )
            rows.append(
                {
                    "id": str(entry["id"]),
                    "video": self.root / VIDEOS / f"{entry['id']}.webm",
                    "text": entry["label"] if self.text == "label" else name,
                    "label": entry["label"],
                    "template": entry["template"],
                    "class_name": name,
                    "class_index": int(classes[name]),
                }
            )
        return rows


def _entries(path: Path) -> list[dict[str, str]]:
    """The clips that a label file lists. UserError where one has no id, label and template."""
    entries = read_json(path)
    wrong = [
        entry
        for entry in (entries if isinstance(entries, list) else [entries])
        if not isinstance(entry, dict) or not {"id", "label", "template"} <= set(entry)
    ]
    if wrong:
        raise UserError(
            f"{path}: expected a list of clips with id, label and template, as "
            f"Something-Something V2 has for training and validation, got {wrong[0]!r:.80}"
        )
    return entries


def _clip_row(row: dict[str, Any], split: Split) -> dict[str, Any]:
    name = f"ssv2/{row['id']}"
    return {
        "clip_id": name,
        "moment_id": name,
        "take": name,
        "scene": name,
        "view": "exo",
        "camera": "video",
        "verb": row["class_name"],
        "text": row["text"],
        "split": split,
        "video": row["video"],
        "tags": {"class_index": row["class_index"], "label": row["label"]},
    }


def _label_file(root: Path, name: str) -> Path:
    """labels/<name>.json, or the older name of the release."""
    old = root / LABELS / f"something-something-v2-{name}.json"
    return old if old.exists() else root / LABELS / f"{name}.json"
