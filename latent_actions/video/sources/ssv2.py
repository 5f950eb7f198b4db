"""Something-Something V2 on disk: a video per clip, labels as JSON.

    <root>/20bn-something-something-v2/<id>.webm     as released; also <id>.mp4 and the like, or a
                                                     folder <id>/img_00001.jpg, ... as LAPA dumps it
    <root>/labels/{train,validation,test,labels}.json     (or something-something-v2-<name>.json)

Each clip is one action of 2-6 s at about 12 fps. It has a template ("Pushing [something] from left
to right") and a filled label; the class is labels[template without brackets]. Clips of the test split
have neither.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.data.video.frames import list_videos
from invact_vla.data.video.pictures import PICTURES_FPS, at_rate
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig, check_folder, check_rate

VIDEOS = "20bn-something-something-v2"
LABELS = "labels"
SPLIT_FILES = {"train": "train", "val": "validation", "test": "test"}


@SourceConfig.register_subclass("ssv2")
@dataclass(frozen=True, kw_only=True)
class Ssv2Source(SourceConfig):
    """SSV2 clips: frame pairs for latent-action labels and VLA pretraining, whole clips for
    zero-shot retrieval.

    The verb of a clip is its class, the template without brackets. SSV2 names no places and no
    cameras: every clip is its own scene, and all are called "exo", so that it serves retrieval with
    only the query itself left out, and not training across scenes."""

    splits: ClassVar[tuple[Split, ...]] = ("train", "val", "test")

    text: Literal["label", "template"] = "label"  # instruction: objects named, or "something"
    pictures_fps: float = PICTURES_FPS  # rate of folders of pictures, which do not tell

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rate("pictures_fps", self.pictures_fps)

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        dropped, clips = SkipReport(), {}
        folder = self.root / VIDEOS
        check_folder(folder, "the videos of Something-Something V2")
        videos = {video.stem: video for video in list_videos(folder, depth=1)}
        classes = _classes(_label_file(self.root, "labels")) if split != "test" else {}
        training = self._training_ids() if split == "val" else set()
        for entry in _entries(_label_file(self.root, SPLIT_FILES[split]), split):
            name = str(entry["id"])
            if name in clips:
                dropped.add("listed twice", name)
            elif name in training:
                dropped.add("listed for training too", name)
            elif name not in videos:
                dropped.seen += 1
                dropped.add("videos missing", f"no {name}.webm in {folder}", damage=True)
            else:
                video = at_rate(videos[name], self.pictures_fps)
                clips[name] = ClipRecord(
                    clip_id=f"ssv2/{name}", video=video, split=split, **self._labels(entry, classes)
                )
        return self.whole_videos(clips.values(), dropped), dropped

    def _training_ids(self) -> set[str]:
        """Clips that are not held out, whatever validation.json says."""
        path = _label_file(self.root, SPLIT_FILES["train"])
        return {str(entry["id"]) for entry in _entries(path, "test")} if path.exists() else set()

    def _labels(self, entry: dict[str, str], classes: dict[str, int]) -> dict[str, Any]:
        """What a clip's entry says, as fields of its record; nothing in the test split."""
        if "template" not in entry:
            return {}
        name = _without_brackets(entry["template"])
        if name not in classes:
            raise UserError(
                f"clip {entry['id']} has the template {entry['template']!r}, which labels.json "
                "does not list: take both files from one release"
            )
        return {
            "verb": name,
            "text": entry["label"] if self.text == "label" else name,
            "tags": {"class_index": classes[name], "label": entry["label"]},
        }


def _classes(path: Path) -> dict[str, int]:
    """{template without brackets: index of the class}."""
    classes = read_json(path)
    if not isinstance(classes, dict) or not all(str(n).isdecimal() for n in classes.values()):
        raise UserError(
            f"{path}: expected an object of classes and their numbers, as Something-Something V2 has, "
            f"got {classes!r:.80}"
        )
    return {_without_brackets(name): int(index) for name, index in classes.items()}


def _without_brackets(template: str) -> str:
    return template.replace("[", "").replace("]", "")


def _entries(path: Path, split: Split) -> list[dict[str, Any]]:
    """The clips that a label file lists. UserError where one has no id, label and template (id alone
    in the test split)."""
    entries = read_json(path)
    texts = () if split == "test" else ("label", "template")
    wrong = [
        entry
        for entry in (entries if isinstance(entries, list) else [entries])
        if not isinstance(entry, dict)
        or not isinstance(entry.get("id"), str | int)
        or not all(isinstance(entry.get(name), str) for name in texts)
    ]
    if wrong:
        raise UserError(
            f"{path}: expected a list of clips with id{', label and template' if texts else ''}, as "
            f"Something-Something V2 has for {SPLIT_FILES[split]}, got {wrong[0]!r:.80}"
        )
    return [{name: entry[name] for name in ("id", *texts)} for entry in entries]


def _label_file(root: Path, name: str) -> Path:
    """labels/<name>.json, or the older name of the release."""
    old = root / LABELS / f"something-something-v2-{name}.json"
    return old if old.exists() else root / LABELS / f"{name}.json"
