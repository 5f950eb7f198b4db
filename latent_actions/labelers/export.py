"""`invact latent export`: a label store in the layout of other tools.

    lapa           <out>/labels.jsonl        a row per pair: id, image, instruction, delta, fields
                   <out>/images/...          with --images true: the first frames, img_%05d.jpg
    huggingface    <out>/data/<split>-00000-of-00001.parquet, README.md: load_dataset("<out>")

LAPA's second stage also reads `vision`, the 256 ids of LWM's image tokens, which its own script adds
to such rows. Source of the rows: LAPA's repository, `laq/inference_sthv2.py`.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, atomic_folder
from invact_vla.data.label_store import LabelStore, find_videos, read_labels, read_vectors
from invact_vla.data.video.frames import decode_frames

INSTRUCTION = (
    "<s> You are a helpful assistant. USER: What action should the robot take to `{}` ASSISTANT:"
)
FIELDS = "[instruction],[vision],delta"  # names in brackets get no loss


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which labels go where, and in which layout."""

    labels: Path = Path("runs/labels/labels_train.parquet")  # label store
    out: Path = Path("runs/labels_exported")  # new folder
    to: Literal["lapa", "huggingface"] = "huggingface"  # layout
    split: str = "train"  # name of the split, for huggingface
    vectors: Path | None = None  # vectors of the labels (`latent label --vectors`), for huggingface
    images: bool = False  # for lapa: also write the first frames as JPEG files
    videos: Path = Path("data/ssv2")  # root of the labeled videos, for images

    def __post_init__(self) -> None:
        if self.vectors is not None and self.to != "huggingface":
            raise ValueError("vectors are exported with --to huggingface only")
        if self.images and self.to != "lapa":
            raise ValueError("images are exported with --to lapa only")
        if not self.split.isidentifier():
            raise ValueError(f"split must be a name such as train, got {self.split!r}")


def main(config: ExportConfig) -> Path:
    """Write the folder; returns it."""
    if config.out.exists():
        raise UserError(f"{config.out} exists: give another --out, or delete it")
    store = read_labels(config.labels)
    with atomic_folder(config.out) as temporary:
        if config.to == "lapa":
            write_lapa(store, temporary / "labels.jsonl")
            if config.images:
                write_images(store, config.videos, temporary / "images")
        else:
            vectors = None if config.vectors is None else read_vectors(config.vectors, store)
            write_huggingface(store, temporary, config.split, vectors)
    print(f"{len(store)} labels in {config.out}")
    return config.out


def write_lapa(store: LabelStore, path: Path) -> None:
    """LAPA's rows, one JSON object per line."""
    with atomic_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row, codes in enumerate(store.labels.codes.tolist()):
            frame = int(store.frame[row])
            line = {
                "id": f"{store.video_id[row]}_{frame}",
                "image": f"images/{image_of(store.path[row], frame)}",
                "instruction": INSTRUCTION.format(store.text[row]),
                "delta": [str(code) for code in codes],
                "fields": FIELDS,
            }
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


def image_of(path: str, frame: int) -> str:
    """Where the JPEG file of a frame lies: a folder per video, whose suffix stays, so that two videos
    of one name are never mixed up."""
    return str(PurePosixPath(path) / f"img_{frame:05d}.jpg")


def write_images(store: LabelStore, videos: Path, folder: Path) -> None:
    """The first frames of all pairs, at their own size."""
    frames: dict[str, set[int]] = defaultdict(set)
    for path, frame in zip(store.path, store.frame.tolist(), strict=True):
        frames[path].add(frame)
    found = find_videos(store, videos)
    for path, wanted in tqdm(frames.items(), "images", unit="video", mininterval=5):
        for frame, image in zip(
            sorted(wanted), decode_frames(found[path], sorted(wanted)), strict=True
        ):
            target = folder / image_of(path, frame)
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(target, quality=95)


def write_huggingface(
    store: LabelStore, folder: Path, split: str, vectors: np.ndarray | None = None
) -> None:
    """One Parquet file with the features that `datasets` reads from its metadata, and a card."""
    columns: dict[str, tuple[pa.DataType, Any]] = {
        **{
            name: (pa.string(), getattr(store, name))
            for name in ("video_id", "path", "video_key", "text")
        },
        **{name: (pa.int64(), getattr(store, name)) for name in ("frame", "frame_end")},
        "codes": (pa.list_(pa.int16()), list(store.labels.codes.astype(np.int16))),
    }
    if vectors is not None:
        columns["vector"] = (pa.list_(pa.float32()), list(vectors))
    table = pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})
    features = {name: _feature(kind) for name, (kind, _) in columns.items()}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    (folder / "data").mkdir()
    target = folder / "data" / f"{split}-00000-of-00001.parquet"
    pq.write_table(table.replace_schema_metadata(metadata), target)
    (folder / "README.md").write_text(_card(store, split))


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "Sequence"}
    names = {
        pa.int16(): "int16",
        pa.int64(): "int64",
        pa.float32(): "float32",
        pa.string(): "string",
    }
    return {"dtype": names[kind], "_type": "Value"}


def _card(store: LabelStore, split: str) -> str:
    identity = store.identity
    return f"""---
configs:
- config_name: default
  data_files:
  - split: {split}
    path: data/{split}-*.parquet
---

# Latent-action labels: {identity.labeler} on {identity.dataset}

{len(store)} pairs of frames, {identity.code_length} codes of {identity.codebook_size} each. `path` is
relative to the root of the labeled videos, `video_key` names the content of the file; `frame` and
`frame_end` count the frames that a player shows, from 0.
Labeler {identity.labeler_hash}, pairs {identity.dataset_hash}.
"""
