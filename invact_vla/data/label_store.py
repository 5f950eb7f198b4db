"""Latent labels on disk: one Parquet file, a row per pair of frames, and its identity.

    video_id    name of the clip in its data set
    path        of the clip's video, relative to the root that was labeled; what counts as a video and
                its key: see video/frames.py, and label_videos.py for finding it again
    video_key   of the video's content
    frame, frame_end, text, codes

The store knows which labeler and which data made it, and refuses to be read as another's. Equal labels
give equal bytes: rows are sorted, and nothing but content is written.
"""

import json
import os
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.core.limits import parse_json, refuse_pointer, short
from invact_vla.core.schema import LatentLabels
from invact_vla.data.source_files import open_parquet

METADATA_KEY = b"invact_labels"
TEXTS = ("video_id", "path", "video_key", "text")
COLUMNS = [*TEXTS, "frame", "frame_end", "codes"]
MOST_CODES = 4096  # of a pair
MOST_LETTERS = 10_000  # of a text


@dataclass(frozen=True)
class LabelIdentity:
    """What a store holds: who labeled which data, with what code space."""

    labeler: str
    labeler_hash: str
    dataset: str
    dataset_hash: str
    codebook_size: int
    code_length: int


@dataclass(frozen=True)
class LabelStore:
    """Labels of N pairs. frame, frame_end: int64 (N,) frame numbers of the pair in its video. One path
    has one key."""

    identity: LabelIdentity
    video_id: tuple[str, ...]
    path: tuple[str, ...]
    video_key: tuple[str, ...]
    frame: np.ndarray
    frame_end: np.ndarray
    text: tuple[str, ...]
    labels: LatentLabels

    def __post_init__(self) -> None:
        identity = self.identity
        columns = [getattr(self, name) for name in (*TEXTS, "frame", "frame_end")]
        lengths = {len(self.labels.codes), *map(len, columns)}
        if len(lengths) != 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        if self.labels.codes.shape[1] != identity.code_length:
            raise ValueError(
                f"expected {identity.code_length} codes a pair, got {self.labels.codes.shape[1]}"
            )
        if self.labels.codebook_size != identity.codebook_size:
            raise ValueError("codebook size of the labels and of their identity differ")
        if np.any(self.frame_end <= self.frame):
            raise ValueError("a pair must end after it starts")
        if len(set(zip(self.path, self.video_key, strict=True))) != len(set(self.path)):
            raise ValueError("a path with two keys")

    def __len__(self) -> int:
        return len(self.video_id)

    def select(self, rows: np.ndarray) -> "LabelStore":
        """Some of the labels: bool (N,), or row numbers, int (n,). A store like any other."""
        chosen = np.arange(len(self))[rows]
        return replace(
            self,
            **{name: tuple(getattr(self, name)[i] for i in chosen) for name in TEXTS},
            frame=self.frame[chosen],
            frame_end=self.frame_end[chosen],
            labels=LatentLabels(self.labels.codes[chosen], self.labels.codebook_size),
        )

    @property
    def videos(self) -> dict[str, str]:
        """{path: key} of the videos, by path."""
        return dict(sorted(set(zip(self.path, self.video_key, strict=True))))


def relative_path(video: Path, root: Path) -> str:
    """The path of a video below the root of its data set, as label stores keep it. UserError if it
    lies elsewhere."""
    path = PurePosixPath(os.path.relpath(video, root))
    if ".." in path.parts:
        raise UserError(f"{video} does not lie below {root}: give a root that holds all videos")
    return str(path)


def write_labels(path: Path, store: LabelStore) -> None:
    """Write a store atomically, rows sorted by (video_id, path, frame, frame_end), then by the rest."""
    frames = store.frame.tolist(), store.frame_end.tolist()
    codes = store.labels.codes
    keys = list(zip(store.video_id, store.path, *frames, store.text, codes.tolist(), strict=True))
    order = sorted(range(len(store)), key=keys.__getitem__)
    flat = pa.array(codes[order].astype(np.int16).reshape(-1), pa.int16())
    texts = {name: getattr(store, name) for name in TEXTS}
    columns = {
        **{
            name: pa.array([column[i] for i in order], pa.string())
            for name, column in texts.items()
        },
        "frame": pa.array(np.asarray(store.frame)[order], pa.int64()),
        "frame_end": pa.array(np.asarray(store.frame_end)[order], pa.int64()),
        "codes": pa.FixedSizeListArray.from_arrays(flat, store.identity.code_length),
    }
    metadata = {METADATA_KEY: json.dumps(asdict(store.identity), sort_keys=True).encode()}
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary)


def read_labels(path: Path, **expected: str | int) -> LabelStore:
    """Read a store; `expected` fields of LabelIdentity must match, else UserError names both sides.

    Example: read_labels(path, labeler="invact", dataset_hash=...).
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"no label store {path}: run `invact latent label` first")
    if path.is_dir():
        inside = ", ".join(sorted(p.name for p in path.glob("*.parquet"))) or "no *.parquet"
        raise UserError(f"{path} is a folder, with {inside}: give one label store of a split")
    refuse_pointer(path)
    try:
        open_parquet(path)
        table = pq.read_table(path, columns=COLUMNS, read_dictionary=list(TEXTS), memory_map=True)
        identity = _identity((table.schema.metadata or {})[METADATA_KEY], path)
        store = _store(table, identity)
    except (UserError, pa.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError,
            ArithmeticError) as error:  # fmt: skip
        raise UserError(
            f"{path} is not a label store ({short(error)}): make it with `invact latent label`"
        ) from error
    for name, value in expected.items():
        if getattr(identity, name) != value:
            raise UserError(
                f"{path} holds labels with {name} {short(repr(getattr(identity, name)))}, expected "
                f"{value!r}: "
                "label this data with this labeler again, or give the store that belongs to it"
            )
    return store


def _identity(content: bytes, path: Path) -> LabelIdentity:
    """The identity in a file; ValueError or TypeError for fields of other names or kinds."""
    values = parse_json(content, str(path))
    if not isinstance(values, dict):
        raise ValueError("its identity is no object")
    identity = LabelIdentity(**values)
    for field in fields(LabelIdentity):
        expected = int if field.name in ("codebook_size", "code_length") else str
        if type(getattr(identity, field.name)) is not expected:
            raise ValueError(f"{field.name} is no {expected.__name__}")
    if not 0 < identity.code_length <= MOST_CODES or not 0 < identity.codebook_size <= 1 << 15:
        raise ValueError("a code space of impossible size")
    return identity


def _store(table: pa.Table, identity: LabelIdentity) -> LabelStore:
    column = table["codes"].combine_chunks()
    lengths: Any = pc.call_function("list_value_length", [column])
    if not np.all(lengths.to_numpy(zero_copy_only=False) == identity.code_length):
        raise ValueError(f"rows with other than {identity.code_length} codes")
    codes = column.flatten().to_numpy()
    return LabelStore(
        identity=identity,
        **{name: _texts(table[name]) for name in TEXTS},
        frame=table["frame"].to_numpy(),
        frame_end=table["frame_end"].to_numpy(),
        labels=LatentLabels(
            codes.reshape(-1, identity.code_length).astype(np.int64), identity.codebook_size
        ),
    )


def _texts(column: pa.ChunkedArray) -> tuple[str, ...]:
    """The texts of a column; equal ones are one object, however often they come."""
    found: list[str] = []
    for chunk in column.chunks:
        words = chunk.dictionary.to_pylist()
        if not all(isinstance(word, str) and len(word) <= MOST_LETTERS for word in words):
            raise ValueError(f"texts that are none, or longer than {MOST_LETTERS} letters")
        found += [words[i] for i in chunk.indices.to_pylist()]
    return tuple(found)
