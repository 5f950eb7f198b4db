"""Latent labels on disk: one Parquet file, a row per pair of frames, and its identity.

    video_id    name of the clip in its data set
    path        of the clip's video, relative to the root that was labeled; what counts as a video and
                its key: see video/frames.py
    video_key   of the video's content
    frame, frame_end, text, codes
    labeler_hash of each row, so that rows of two labelers are not read as those of one

The store knows which labeler and which data made it, and refuses to be read as another's. Equal labels
give equal bytes: rows are sorted, and nothing but content is written.

On request the continuous vectors lie in a file beside it: path, frame, frame_end as in the store, and
vector, float32, all of one width. Rows are found by the pair, so a store that was filtered or ordered
anew keeps its vectors.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.core.limits import parse_json, refuse_pointer, short, some
from invact_vla.core.schema import LatentLabels
from invact_vla.data.source_files import open_parquet
from invact_vla.data.video.frames import VideoError, video_key

METADATA_KEY = b"invact_labels"
TEXTS = ("video_id", "path", "video_key", "text")
COLUMNS = [*TEXTS, "frame", "frame_end", "codes"]
LABELER = "labeler_hash"
PAIR = ("path", "frame", "frame_end")
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
        identity, codes = self.identity, self.labels.codes
        columns = [getattr(self, name) for name in (*TEXTS, "frame", "frame_end")]
        lengths = {len(codes), *map(len, columns)}
        if len(lengths) != 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        if codes.shape[1] != identity.code_length:
            raise ValueError(f"expected {identity.code_length} codes a pair, got {codes.shape[1]}")
        if self.labels.codebook_size != identity.codebook_size:
            raise ValueError("codebook size of the labels and of their identity differ")
        if np.any(self.frame_end <= self.frame):
            raise ValueError("a pair must end after it starts")
        if len(set(zip(self.path, self.video_key, strict=True))) != len(set(self.path)):
            raise ValueError("a path with two keys")

    def __len__(self) -> int:
        return len(self.video_id)

    def select(self, rows: np.ndarray | Sequence[int]) -> "LabelStore":
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
    def labeler_hash(self) -> tuple[str, ...]:
        """The labeler of each row, the same one in all."""
        return (self.identity.labeler_hash,) * len(self)

    @property
    def videos(self) -> dict[str, str]:
        """{path: key} of the videos, by path."""
        return dict(sorted(set(zip(self.path, self.video_key, strict=True))))

    @property
    def pairs(self) -> list[tuple[str, int, int]]:
        """(path, frame, frame_end) of each row."""
        return list(zip(self.path, self.frame.tolist(), self.frame_end.tolist(), strict=True))


def relative_path(video: Path, root: Path) -> str:
    """The path of a video below the root of its data set, as label stores keep it. UserError if it
    lies elsewhere."""
    path = PurePosixPath(os.path.relpath(video, root))
    if ".." in path.parts:
        raise UserError(f"{video} does not lie below {root}: give a root that holds all videos")
    return str(path)


def write_labels(path: Path, store: LabelStore) -> None:
    """Write a store atomically, rows sorted by (video_id, path, frame, frame_end), then by the rest."""
    codes = store.labels.codes.tolist()
    keys = list(zip(store.video_id, store.pairs, store.text, codes, strict=True))
    store = store.select(sorted(range(len(store)), key=keys.__getitem__))
    metadata = {METADATA_KEY: json.dumps(asdict(store.identity), sort_keys=True).encode()}
    _write(path, store, (*TEXTS, LABELER), "codes", store.labels.codes.astype(np.int16), metadata)


def _write(
    path: Path,
    store: LabelStore,
    texts: Sequence[str],
    name: str,
    values: np.ndarray,
    metadata: Any,
) -> None:
    """Some texts of a store, its frames, and a column of lists from values (N, n)."""
    columns: dict[str, Any] = {n: pa.array(getattr(store, n), pa.string()) for n in texts}
    columns |= {n: pa.array(getattr(store, n), pa.int64()) for n in ("frame", "frame_end")}
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    columns[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), temporary)


def read_labels(path: Path, **expected: str | int) -> LabelStore:
    """Read a store; `expected` fields of LabelIdentity must match, else UserError names both sides.

    Example: read_labels(path, labeler="invact", dataset_hash=...)."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"no label store {path}: run `invact latent label` first")
    if path.is_dir():
        inside = ", ".join(sorted(p.name for p in path.glob("*.parquet"))) or "no *.parquet"
        raise UserError(f"{path} is a folder, with {inside}: give one label store of a split")
    with _refused_as(path, "is not a label store", "invact latent label"):
        labelers = [LABELER] if LABELER in open_parquet(path).schema_arrow.names else []
        names, texts = [*COLUMNS, *labelers], [*TEXTS, *labelers]
        table = pq.read_table(path, columns=names, read_dictionary=texts, memory_map=True)
        metadata = table.schema.metadata or {}
        if METADATA_KEY not in metadata:
            raise ValueError(
                "its metadata, which say what it holds, are gone: filter a store by pyarrow, as "
                "table.filter(...) does, which keeps them"
            )
        identity = _identity(metadata[METADATA_KEY], path)
        store = _store(table, identity)
        others = {text for name in labelers for text in _texts(table[name])}
    others.discard(identity.labeler_hash)
    if others:
        raise UserError(
            f"{path} holds rows of other labelers than {identity.labeler} ({identity.labeler_hash}): "
            f"{some(sorted(others))}; a code means another motion in each: keep a store per labeler"
        )
    for name, value in expected.items():
        if getattr(identity, name) != value:
            raise UserError(
                f"{path} holds labels with {name} {short(repr(getattr(identity, name)))}, expected "
                f"{value!r}: label this data with this labeler again, or give the store that belongs "
                "to it"
            )
    return store


@contextmanager
def _refused_as(path: Path, fault: str, maker: str) -> Iterator[None]:
    """What goes wrong with the content of a file, as a UserError."""
    if path.is_file():
        refuse_pointer(path)
    try:
        yield
    except (UserError, pa.ArrowException, OSError, LookupError, TypeError, ValueError, AttributeError,
            ArithmeticError) as error:  # fmt: skip
        raise UserError(f"{path} {fault} ({short(error)}): make it with `{maker}`") from error


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
    column, length = table["codes"].combine_chunks(), identity.code_length
    lengths: Any = pc.call_function("list_value_length", [column])
    if not np.all(lengths.to_numpy(zero_copy_only=False) == length):
        raise ValueError(f"rows with other than {length} codes")
    codes = _whole(column.flatten()).reshape(-1, length)
    frame, frame_end = _whole(table["frame"]), _whole(table["frame_end"])
    if (frame < 0).any():
        raise ValueError("frames below 0")
    return LabelStore(
        identity=identity,
        **{name: _texts(table[name]) for name in TEXTS},
        frame=frame,
        frame_end=frame_end,
        labels=LatentLabels(codes, identity.codebook_size),
    )


def _whole(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The numbers of a column, int64; ValueError or pyarrow's error if one is missing or broken."""
    if column.null_count:
        raise ValueError("numbers that are missing")
    return column.cast(pa.int64()).to_numpy()


def _texts(column: pa.ChunkedArray) -> tuple[str, ...]:
    """The texts of a column; equal ones are one object, however often they come."""
    found: list[str] = []
    for chunk in column.chunks:
        if chunk.null_count:
            raise ValueError("texts that are missing")
        words = chunk.dictionary.to_pylist()
        if not all(isinstance(word, str) and len(word) <= MOST_LETTERS for word in words):
            raise ValueError(f"texts that are none, or longer than {MOST_LETTERS} letters")
        found += [words[i] for i in chunk.indices.to_pylist()]
    return tuple(found)


def write_vectors(path: Path, store: LabelStore, vectors: np.ndarray) -> None:
    """Write vectors, float32 (N, D) in the order of the store, atomically; rows sorted by the pair."""
    if vectors.shape != (len(store), vectors.shape[-1]) or vectors.dtype != np.float32:
        raise ValueError(f"expected float32 ({len(store)}, D), got {vectors.dtype} {vectors.shape}")
    order = sorted(range(len(store)), key=store.pairs.__getitem__)
    _write(path, store.select(order), ["path"], "vector", vectors[order], None)


def read_vectors(path: Path, store: LabelStore) -> np.ndarray:
    """The vectors of the pairs of a store, float32 (N, D) in its order. UserError for a file that is
    none of vectors, or lacks a pair."""
    with _refused_as(path, "holds no vectors of labels", "invact latent label --vectors true"):
        open_parquet(path)
        table = pq.read_table(path, columns=[*PAIR, "vector"])
        column = table["vector"].combine_chunks()
        vectors = column.flatten().to_numpy().astype(np.float32).reshape(len(table), -1)
        keys = zip(*(table[name].to_pylist() for name in PAIR), strict=True)
        rows = {pair: row for row, pair in enumerate(keys)}
    missing = [pair for pair in store.pairs if pair not in rows]
    if missing:
        raise UserError(
            f"{path} lacks the vectors of {len(missing)} of {len(store)} pairs, such as "
            f"{short(missing[0])}: give the file beside this label store"
        )
    return vectors[[rows[pair] for pair in store.pairs]]


def find_videos(
    store: LabelStore, root: Path, paths: Iterable[str] | None = None
) -> dict[str, Path]:
    """{path in the store: the video below `root`}, each with the content that was labeled: of all
    paths, or of some.

    root: the one that was labeled, wherever it lies now, or a folder inside it that holds all videos.
    UserError for a video that is missing or another one than was labeled."""
    root = Path(root)
    if not root.exists():
        raise UserError(f"no folder {root}: give the folder whose videos were labeled")
    keys = store.videos
    wanted = list(keys if paths is None else paths)
    bar = tqdm(wanted, "check videos", unit="video", mininterval=5, disable=len(wanted) < 5000)
    return {path: _find(root, path, keys[path]) for path in bar}


def _find(root: Path, path: str, key: str) -> Path:
    """A video, by its whole path, or by the end of it where `root` lies below what was labeled."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise UserError(f"the label store names a video outside of its root, {short(path)}")
    if len(path) > 2000 or "\0" in path or any(len(part.encode()) > 255 for part in parts):
        raise UserError(f"the label store names a video by no path, {short(path)}")
    other = None
    for depth in range(len(parts)):
        video = root.joinpath(*parts[depth:])
        try:
            if video_key(video) == key:
                return video
            other = other or video
        except VideoError:
            continue
    if other is not None:
        raise UserError(
            f"{other} is not the video that was labeled as {short(path)} (another content): give the "
            "root of the labeled videos, or label these again"
        )
    below = next((p for p in root.glob(f"*/{parts[-1]}")), None)
    where = f"; it lies in {below.parent}: give that" if below else ": give what was labeled"
    raise UserError(f"no video {short(path)} in {root}{where}")
