"""The continuous vectors beside the codes of a label store, on request.

One Parquet file: path, frame, frame_end name the pair as in the label store; vector is float32, all of
one width. Rows are found by the pair, so a store that was filtered or ordered anew keeps its vectors.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file
from invact_vla.core.limits import refuse_pointer, short
from invact_vla.data.label_store import LabelStore
from invact_vla.data.source_files import open_parquet

KEY = ("path", "frame", "frame_end")


def write_vectors(path: Path, store: LabelStore, vectors: np.ndarray) -> None:
    """Write vectors, float32 (N, D) in the order of the store, atomically; rows sorted by the pair."""
    if vectors.shape != (len(store), vectors.shape[-1]) or vectors.dtype != np.float32:
        raise ValueError(f"expected float32 ({len(store)}, D), got {vectors.dtype} {vectors.shape}")
    pairs = _pairs(store)
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    ordered = [pairs[i] for i in order]
    columns = {
        "path": pa.array([path for path, _, _ in ordered], pa.string()),
        "frame": pa.array([frame for _, frame, _ in ordered], pa.int64()),
        "frame_end": pa.array([frame_end for _, _, frame_end in ordered], pa.int64()),
    }
    flat = pa.array(np.ascontiguousarray(vectors[order]).reshape(-1), pa.float32())
    columns["vector"] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    with atomic_file(path) as temporary:
        pq.write_table(pa.table(columns), temporary)


def read_vectors(path: Path, store: LabelStore) -> np.ndarray:
    """The vectors of the pairs of a store, float32 (N, D) in its order. UserError for a file that is
    none of vectors, or lacks a pair."""
    refuse_pointer(path)
    try:
        open_parquet(path)
        table = pq.read_table(path, columns=[*KEY, "vector"])
        column = table["vector"].combine_chunks()
        vectors = column.flatten().to_numpy().astype(np.float32).reshape(len(table), -1)
        keys = zip(*(table[name].to_pylist() for name in KEY), strict=True)
        rows = {pair: row for row, pair in enumerate(keys)}
    except (UserError, pa.ArrowException, OSError, LookupError, TypeError, ValueError,
            AttributeError) as error:  # fmt: skip
        raise UserError(
            f"{path} holds no vectors of labels ({short(error)}): make it with `invact latent label "
            "--vectors true`"
        ) from error
    missing = [pair for pair in _pairs(store) if pair not in rows]
    if missing:
        raise UserError(
            f"{path} lacks the vectors of {len(missing)} of {len(store)} pairs, such as "
            f"{short(missing[0])}: give the file beside this label store"
        )
    return vectors[[rows[pair] for pair in _pairs(store)]]


def _pairs(store: LabelStore) -> list[tuple[str, int, int]]:
    return list(zip(store.path, store.frame.tolist(), store.frame_end.tolist(), strict=True))
