"""The label store: round trip, equal bytes, refusals."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_file
from invact_vla.core.schema import LatentLabels
from invact_vla.data.label_store import (
    LabelIdentity,
    LabelStore,
    read_labels,
    write_labels,
)

IDENTITY = LabelIdentity("lapa", "abc", "ssv2", "def", 8, 4)


def make_store(n: int, seed: int = 0) -> LabelStore:
    rng = np.random.default_rng(seed)
    frame = rng.integers(0, 50, n)
    return LabelStore(
        identity=IDENTITY,
        video_id=tuple(f"{seed}-{i % 3}" for i in range(n)),
        path=tuple(f"{seed}/{i % 3}.mp4" for i in range(n)),
        video_key=tuple(f"{seed}{i % 3}" for i in range(n)),
        frame=frame,
        frame_end=frame + 5,
        text=tuple(f"Pushing {i}" for i in range(n)),
        labels=LatentLabels(rng.integers(0, 8, (n, 4)), 8),
    )


def rows(store: LabelStore) -> list:
    columns = (
        store.video_id,
        store.path,
        store.video_key,
        store.frame.tolist(),
        store.frame_end.tolist(),
        store.text,
    )
    return sorted(zip(*columns, store.labels.codes.tolist(), strict=True))


@pytest.mark.parametrize("n", [1, 7, 100])
def test_round_trip(tmp_path, n):
    store = make_store(n)
    write_labels(tmp_path / "l.parquet", store)
    back = read_labels(tmp_path / "l.parquet", labeler="lapa", codebook_size=8)
    assert back.identity == IDENTITY and rows(back) == rows(store)


def test_bytes_do_not_depend_on_the_order_of_rows(tmp_path):
    store = make_store(30)
    order = np.random.default_rng(1).permutation(30)
    columns = ("video_id", "path", "video_key", "text")
    other = replace(
        store, frame=store.frame[order], frame_end=store.frame_end[order],
        labels=LatentLabels(store.labels.codes[order], 8),
        **{name: tuple(getattr(store, name)[i] for i in order) for name in columns},
    )  # fmt: skip
    write_labels(tmp_path / "a.parquet", store)
    write_labels(tmp_path / "b.parquet", other)
    assert hash_file(tmp_path / "a.parquet") == hash_file(tmp_path / "b.parquet")


def test_labels_of_another_labeler_or_data_are_refused(tmp_path):
    write_labels(tmp_path / "l.parquet", make_store(5))
    with pytest.raises(UserError, match="'lapa', expected 'invact'"):
        read_labels(tmp_path / "l.parquet", labeler="invact")
    with pytest.raises(UserError, match="dataset_hash"):
        read_labels(tmp_path / "l.parquet", dataset_hash="other")


def test_damaged_and_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no label store"):
        read_labels(tmp_path / "none.parquet")
    write_labels(tmp_path / "l.parquet", make_store(50))
    data = (tmp_path / "l.parquet").read_bytes()
    (tmp_path / "l.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match="is not a label store"):
        read_labels(tmp_path / "l.parquet")


def changed(table: pa.Table, name: str, change: Callable[[list], list], kind=None) -> pa.Table:
    """A table with one column changed."""
    column = pa.array(change(table[name].to_pylist()), kind)
    return table.set_column(table.column_names.index(name), name, column)


@pytest.mark.parametrize(
    ("name", "change", "kind", "said"),
    [
        (
            "codes",
            lambda c: [None, *c[1:]],
            pa.list_(pa.int16(), 4),
            "rows with other than 4 codes",
        ),
        ("codes", lambda c: [[0, None, 0, 0], *c[1:]], None, "numbers that are missing"),
        ("codes", lambda c: [[0.5, 0.0, 0.0, 0.0], *c[1:]], None, "truncated"),
        ("codes", lambda c: [[8, 0, 0, 0], *c[1:]], None, r"expected \[0, 8\)"),
        ("frame", lambda f: [None, *f[1:]], None, "numbers that are missing"),
        ("frame", lambda f: [-1, *f[1:]], None, "frames below 0"),
        ("frame", lambda f: [0.5, *f[1:]], pa.float64(), "truncated"),
        ("frame", lambda f: [float("nan"), *f[1:]], pa.float64(), "is not a label store"),
        ("frame_end", lambda f: [2**63, *f[1:]], pa.uint64(), "not in range"),
        ("text", lambda t: [None, *t[1:]], None, "texts that are missing"),
        ("path", lambda p: list(range(len(p))), None, "is not a label store"),
    ],
)
def test_odd_columns_are_refused(tmp_path, name, change, kind, said):
    path = tmp_path / "l.parquet"
    write_labels(path, make_store(5))
    pq.write_table(changed(pq.read_table(path), name, change, kind), path)
    with pytest.raises(UserError, match=said) as caught:
        read_labels(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("codes", pa.list_(pa.int64())), ("codes", pa.large_list(pa.uint8())),
        ("frame", pa.float64()), ("frame_end", pa.int32()), ("text", pa.large_string()),
        ("path", pa.dictionary(pa.int32(), pa.string())),
    ],
)  # fmt: skip
def test_a_store_that_another_tool_has_filtered(tmp_path, name, kind):
    path, store = tmp_path / "l.parquet", make_store(20)
    write_labels(path, store)
    table = pq.read_table(path)
    pq.write_table(changed(table, name, list, kind).filter(pc.field("frame") > 20), path)
    kept = store.select(store.frame > 20)
    assert 0 < len(kept) < 20 and rows(read_labels(path)) == rows(kept)
    pq.write_table(table.replace_schema_metadata(None), path)
    with pytest.raises(UserError, match=r"its metadata, .* are gone: filter a store by pyarrow"):
        read_labels(path)


def test_rows_of_two_labelers_are_not_read_as_those_of_one(tmp_path):
    """Concatenated tables keep the first one's metadata, and filtered ones with them."""
    path, tables = tmp_path / "l.parquet", []
    for labeler, seed in (("abc", 0), ("abc", 1), ("xyz", 2)):
        identity = replace(IDENTITY, labeler_hash=labeler)
        write_labels(path, replace(make_store(9, seed), identity=identity))
        tables.append(pq.read_table(path))
    pq.write_table(pa.concat_tables(tables[:2]), path)
    assert rows(read_labels(path)) == sorted(rows(make_store(9)) + rows(make_store(9, 1)))
    mixed = pa.concat_tables([tables[0], tables[2]])
    for table in (mixed, mixed.filter(pc.field("labeler_hash") == "xyz")):
        pq.write_table(table, path)
        with pytest.raises(UserError, match=r"rows of other labelers than lapa \(abc\): xyz"):
            read_labels(path)
    pq.write_table(tables[0].drop_columns(["labeler_hash"]), path)
    assert rows(read_labels(path)) == rows(make_store(9))  # as stores were written before


def test_codes_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"expected \[0, 8\)"):
        LatentLabels(np.array([[0, 8]]), 8)
    store = make_store(3)
    with pytest.raises(ValueError, match="end after"):
        replace(store, frame_end=store.frame)
