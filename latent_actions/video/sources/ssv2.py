"""Something-Something V2 on disk: one WebM a clip, labels as JSON.

    <root>/20bn-something-something-v2/<id>.webm
    <root>/labels/{train,validation,test,labels}.json     (or something-something-v2-<name>.json)

Each clip is one action of 2-6 s at about 12 fps. It has a template ("Pushing [something] from left
to right") and a filled label; the class is labels[template without brackets].
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from invact_vla.data.decode import VideoError, probe
from invact_vla.errors import UserError
from invact_vla.training.files import read_json
from latent_actions.video.clips import episode_rng, horizon_frames, pair_starts
from latent_actions.video.records import ClipRecord, PairRecord, Split
from latent_actions.video.source import Dropped, SourceConfig, check_folder

VIDEOS = "20bn-something-something-v2"
LABELS = "labels"
SPLIT_FILES = {"train": "train", "val": "validation"}


@SourceConfig.register_subclass("ssv2")
@dataclass(frozen=True, kw_only=True)
class Ssv2Source(SourceConfig):
    """Frame pairs of SSV2 clips, for latent-action labels and VLA pretraining."""

    text: Literal["label", "template"] = "label"  # instruction: objects named, or "something"
    max_skipped: float = 0.01  # share of damaged or missing videos that may be left out

    def __post_init__(self) -> None:
        if not 0 <= self.max_skipped <= 1:
            raise ValueError(f"max_skipped must be in [0, 1], got {self.max_skipped}")

    def clips(self, split: Split) -> list[ClipRecord]:
        raise UserError(
            "ssv2 has no scenes and no views, so no clips for retrieval: use its pairs, "
            "or the source egoexo4d or folder"
        )

    def pairs(self, split: Split, h_s: float, pairs_per_clip: int, seed: int) -> list[PairRecord]:
        records, damaged, dropped = [], [], Dropped()
        rows = self.rows(split)
        for row in tqdm(rows, desc=f"ssv2 {split}", unit="clip", mininterval=1.0, leave=False):
            episode = f"ssv2/{row['id']}"
            try:
                info = probe(row["video"])
            except VideoError as error:
                damaged.append(str(error))
                dropped.add("damaged", str(row["video"]))
                continue
            horizon = horizon_frames(h_s, info.fps)
            starts = pair_starts(info.n_frames, horizon, pairs_per_clip, episode_rng(seed, episode))
            if not len(starts):
                dropped.add("shorter than the horizon", episode)
            for start in starts.tolist():
                records.append(
                    PairRecord(
                        episode=episode, video=row["video"], text=row["text"],
                        frame=start, frame_end=start + horizon, fps=info.fps,
                    )
                )  # fmt: skip
        if len(damaged) > self.max_skipped * len(rows):
            raise UserError(
                f"{len(damaged)} of {len(rows)} videos below {self.root} are damaged or missing "
                f"(at most {self.max_skipped:.1%} may be): {'; '.join(damaged[:5])}"
            )
        dropped.log(f"ssv2 {split} pairs", len(records))
        return records

    def rows(self, split: Split) -> list[dict[str, Any]]:
        """Per clip: id, video (path), text, label, template, class_index."""
        check_folder(self.root / VIDEOS, "the WebM files of Something-Something V2")
        classes = read_json(_label_file(self.root, "labels"))
        rows = []
        for entry in read_json(_label_file(self.root, SPLIT_FILES[split])):
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
                    "class_index": int(classes[name]),
                }
            )
        return rows


def _label_file(root: Path, name: str) -> Path:
    """labels/<name>.json, or the older name of the release."""
    old = root / LABELS / f"something-something-v2-{name}.json"
    return old if old.exists() else root / LABELS / f"{name}.json"
