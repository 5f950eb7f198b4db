"""The gallery: both backends against a sort over all rows, and what is kept on disk."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invact_vla.core.errors import UserError
from latent_actions.retrieval import index
from latent_actions.retrieval.index import Entry, Gallery, has_faiss

BACKENDS = [
    "numpy",
    pytest.param("faiss", marks=pytest.mark.skipif(not has_faiss(), reason="FAISS not installed")),
]


def make_gallery(vectors):
    entries = [
        Entry(clip=f"m{i}/cam", verb="pick", text="picks", scene=f"s{i % 3}", take="t", view="ego")
        for i in range(len(vectors))
    ]
    return Gallery(vectors, entries, np.zeros((len(vectors), 2, 4, 4, 3), np.uint8), "test")


def naive(gallery, query, out, top):
    unit = (query / np.linalg.norm(query)).astype(np.float32).astype(np.float64)
    values = gallery.vectors.astype(np.float64) @ unit
    allowed = [i for i in range(len(gallery)) if i not in set(out)]
    return sorted(allowed, key=lambda i: (-values[i], i))[:top]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 150), st.integers(1, 12), st.integers(0, 1 << 30), st.booleans())
def test_equals_a_sort_of_all_rows(backend, count, top, seed, tied):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, 8)).astype(np.float32)
    if tied:
        rows = np.eye(8, dtype=np.float32)[rng.integers(3, size=count)]  # up to a third are equal
    gallery = make_gallery(rows)
    queries = np.concatenate([rows[:1], rng.normal(size=(2, 8)).astype(np.float32)])
    out = [rng.choice(count, rng.integers(count + 1), replace=False) for _ in queries]
    found = gallery.nearest(queries, top, leave_out=out, backend=backend)
    for place, query in enumerate(queries):
        expected = naive(gallery, query, out[place], top)
        assert found.rows[place, : len(expected)].tolist() == expected
        assert (found.rows[place, len(expected) :] == -1).all()
        assert np.isnan(found.similarity[place, len(expected) :]).all()


def test_a_gallery_is_kept(tmp_path):
    gallery = make_gallery(np.random.default_rng(0).normal(size=(5, 3)))
    gallery.save(tmp_path / "gallery")
    again = Gallery.load(tmp_path / "gallery")
    np.testing.assert_allclose(again.vectors, gallery.vectors, atol=1e-7)
    assert again.entries == gallery.entries and again.made_by == "test"
    assert again.row_of("m3/cam") == 3


def test_what_is_no_gallery_is_refused(tmp_path):
    with pytest.raises(UserError, match="no file"):
        Gallery.load(tmp_path)
    (tmp_path / "gallery.json").write_text('{"format": "other"}')
    with pytest.raises(UserError, match="is not a gallery"):
        Gallery.load(tmp_path)
    gallery = make_gallery(np.eye(3))
    with pytest.raises(UserError, match="no clip 'x'"):
        gallery.row_of("x")
    with pytest.raises(ValueError, match="expected queries"):
        gallery.nearest(np.eye(4), 1)


def test_a_torn_gallery_is_refused(tmp_path):
    make_gallery(np.eye(3)).save(tmp_path / "g")
    np.save(tmp_path / "g" / "vectors.npy", np.eye(2))
    with pytest.raises(UserError, match="damaged gallery"):
        Gallery.load(tmp_path / "g")


def test_without_faiss_numpy_answers(monkeypatch):
    monkeypatch.setattr(index, "has_faiss", lambda: False)
    gallery = make_gallery(np.eye(3))
    assert gallery.nearest(np.eye(3)[:1], 1).rows.tolist() == [[0]]
    with pytest.raises(UserError, match="not installed"):
        gallery.nearest(np.eye(3)[:1], 1, backend="faiss")
