"""Latent labels on disk: one Parquet file of (episode, frame, frame_end, text, codes) and its identity.

The store knows which labeler and which data made it, and refuses to be read as another's. Equal labels
give equal bytes: rows are sorted, and nothing but content is written.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
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
TEXTS = ("episode", "text")
COLUMNS = ["episode", "frame", "frame_end", "text", "codes"]
MOST_CODES = 4096  # of a pair
MOST_LETTERS = 10_000  # of a text


@dataclass(frozen=True)
class LabelIdentity:
    """What a store holds: who labeled which data, with what code space."""

    labeler: str
    labeller_hash: str
    dataset: str
    dataset_hash: str
    codebook_size: int
    code_length: int


@dataclass(frozen=True)
class LabelStore:
    """Labels of N pairs. frame, frame_end: int64 (N,) frame numbers of the pair in its episode."""

    identity: LabelIdentity
    episode: tuple[str, ...]
    frame: np.ndarray
    frame_end: np.ndarray
    text: tuple[str, ...]
    labels: LatentLabels

    def __post_init__(self) -> None:
        n, identity = len(self.episode), self.identity
        lengths = {n, len(self.frame), len(self.frame_end), len(self.text), len(self.labels.codes)}
        if lengths != {n}:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")
        if self.labels.codes.shape[1] != identity.code_length:
            raise ValueError(
                f"expected {identity.code_length} codes a pair, got {self.labels.codes.shape[1]}"
            )
        if self.labels.codebook_size != identity.codebook_size:
            raise ValueError("codebook size of the labels and of their identity differ")
        if np.any(self.frame_end <= self.frame):
            raise ValueError("a pair must end after it starts")

    def __len__(self) -> int:
        return len(self.episode)


def write_labels(path: Path, store: LabelStore) -> None:
    """Write a store atomically, rows sorted by (episode, frame, frame_end)."""
    order = sorted(
        range(len(store)),
        key=lambda i: (store.episode[i], int(store.frame[i]), int(store.frame_end[i])),
    )
    codes = store.labels.codes[order].astype(np.int16)
    flat = pa.array(codes.reshape(-1), pa.int16())
    columns = {
        "episode": pa.array([store.episode[i] for i in order], pa.string()),
        "frame": pa.array(np.asarray(store.frame)[order], pa.int64()),
        "frame_end": pa.array(np.asarray(store.frame_end)[order], pa.int64()),
        "text": pa.array([store.text[i] for i in order], pa.string()),
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
        episode=_texts(table["episode"]),
        frame=table["frame"].to_numpy(),
        frame_end=table["frame_end"].to_numpy(),
        text=_texts(table["text"]),
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


def concatenate(stores: Sequence[LabelStore]) -> LabelStore:
    """One store of several with the same identity (shards)."""
    identities = {s.identity for s in stores}
    if len(identities) != 1:
        raise UserError(
            f"label shards of different labelers or data: {sorted(map(str, identities))}"
        )
    first = stores[0]
    return LabelStore(
        identity=first.identity,
        episode=tuple(e for s in stores for e in s.episode),
        frame=np.concatenate([s.frame for s in stores]),
        frame_end=np.concatenate([s.frame_end for s in stores]),
        text=tuple(t for s in stores for t in s.text),
        labels=LatentLabels(
            np.concatenate([s.labels.codes for s in stores]), first.identity.codebook_size
        ),
    )
