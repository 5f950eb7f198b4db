"""Vectors beside the codes, filtered stores, and exports."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from invact_vla.core.errors import UserError
from invact_vla.data.label_store import LabelStore, read_labels, read_vectors, write_labels
from invact_vla.data.video.video_io import write_video
from latent_actions.labelers import LapaConfig, RandomConfig, label
from latent_actions.labelers.export import ExportConfig, main
from latent_actions.labelers.label import LabelConfig, store_path
from latent_actions.labelers.lapa import LapaLabeler
from latent_actions.labelers.laq.checkpoint import save_pretrained
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.labelers.pairs import PairConfig
from latent_actions.video.sources import FolderSource


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    for scene in ("kitchen", "garage"):
        for verb in ("pick", "put"):
            frames = rng.integers(0, 255, (16, 4, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2)
            place = root / "train" / scene / verb
            place.mkdir(parents=True)
            write_video(place / "a.mp4", frames, 10)  # one name in four folders
    return root


@pytest.fixture(scope="module")
def run(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    torch.manual_seed(0)
    sizes = LaqConfig(
        dim=32, quant_dim=3, image_size=32, patch_size=4, spatial_depth=1, temporal_depth=1,
        dim_head=16, heads=2, residual=True,
    )  # fmt: skip
    save_pretrained(LatentActionQuantizer(sizes), folder / "laq")
    pairs = PairConfig(
        source=FolderSource(root=videos), horizon_s=0.5, pairs_per_clip=3, frames=2, shard=5
    )
    config = LabelConfig(
        out=folder / "run", labeler=LapaConfig(laq=folder / "laq"), pairs=pairs, splits=("train",),
        vectors=True,
    )  # fmt: skip
    return label.main(config)


@pytest.fixture
def store(run: Path) -> LabelStore:
    return read_labels(store_path(run, "train"))


def test_vectors_belong_to_their_codes(run, store):
    vectors = read_vectors(run / "vectors_train.parquet", store)
    assert vectors.shape == (12, 12) and vectors.dtype == np.float32
    model = LapaLabeler(run.parent / "laq").model
    with torch.no_grad():
        codes = model.vq.look_up(torch.from_numpy(vectors.reshape(12, 4, 3)))
    assert (codes.numpy() == store.labels.codes).all()


def test_a_filtered_store_is_a_store_and_keeps_its_vectors(run, store, tmp_path):
    path, keep = tmp_path / "filtered.parquet", np.array([9, 2, 4])
    table = pq.read_table(store_path(run, "train")).take(keep)
    pq.write_table(table, path)
    filtered = read_labels(path, labeler="lapa")
    assert (filtered.labels.codes == store.labels.codes[keep]).all()
    assert filtered.path == tuple(store.path[i] for i in keep)
    vectors = read_vectors(run / "vectors_train.parquet", store)
    assert (read_vectors(run / "vectors_train.parquet", filtered) == vectors[keep]).all()
    again = store.select(keep)
    assert again.path == filtered.path and again.identity == store.identity
    write_labels(tmp_path / "again.parquet", again)
    assert sorted(read_labels(tmp_path / "again.parquet").path) == sorted(again.path)
    assert len(store.select(store.frame > 3)) == (store.frame > 3).sum()
    # lists of any length and long texts, as other tools write them
    loose = table.set_column(
        table.schema.get_field_index("codes"), "codes", table["codes"].cast(pa.list_(pa.int64()))
    )
    text = table.schema.get_field_index("text")
    loose = loose.set_column(text, "text", loose["text"].cast(pa.large_string()))
    pq.write_table(loose.replace_schema_metadata(table.schema.metadata), path)
    assert (read_labels(path).labels.codes == filtered.labels.codes).all()


def test_vectors_that_are_missing_are_named(run, store, tmp_path):
    path = tmp_path / "v.parquet"
    pq.write_table(pq.read_table(run / "vectors_train.parquet").slice(0, 5), path)
    with pytest.raises(UserError, match="lacks the vectors of 7 of 12 pairs"):
        read_vectors(path, store)
    with pytest.raises(UserError, match="holds no vectors of labels"):
        read_vectors(store_path(run, "train"), store)


def test_a_labeler_without_vectors_says_so(videos, tmp_path):
    config = LabelConfig(
        out=tmp_path / "r", labeler=RandomConfig(), vectors=True, splits=("train",),
        pairs=PairConfig(source=FolderSource(root=videos), horizon_s=0.5),
    )  # fmt: skip
    with pytest.raises(UserError, match="random has no continuous vectors"):
        label.main(config)


def test_rows_as_lapa_reads_them(run, store, videos, tmp_path):
    out = main(
        ExportConfig(
            labels=store_path(run, "train"),
            out=tmp_path / "o",
            to="lapa",
            images=True,
            videos=videos,
        )
    )
    rows = [json.loads(line) for line in (out / "labels.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    for row, codes, frame in zip(rows, store.labels.codes, store.frame, strict=True):
        assert row["delta"] == [str(code) for code in codes]
        assert row["id"].endswith(f"_{frame}") and row["image"].endswith(f"/img_{frame:05d}.jpg")
        assert row["fields"] == "[instruction],[vision],delta"
        assert row["instruction"].startswith("<s> You are a helpful assistant. USER: What action")
        assert Image.open(out / row["image"]).size == (32, 32)
    assert len({Path(row["image"]).parent for row in rows}) == 4  # never mixed up
    with pytest.raises(UserError, match="exists"):
        main(ExportConfig(labels=store_path(run, "train"), out=tmp_path / "o", to="lapa"))


def test_a_hugging_face_data_set(run, store, tmp_path):
    out = main(
        ExportConfig(
            labels=store_path(run, "train"), out=tmp_path / "hf",
            vectors=run / "vectors_train.parquet",
        )
    )  # fmt: skip
    table = pq.read_table(out / "data" / "train-00000-of-00001.parquet")
    assert table["codes"].to_pylist() == store.labels.codes.tolist()
    assert table["path"].to_pylist() == list(store.path)
    vectors = np.array(table["vector"].to_pylist(), np.float32)
    assert (vectors == read_vectors(run / "vectors_train.parquet", store)).all()
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(features) == table.column_names
    assert features["frame"] == {"dtype": "int64", "_type": "Value"}
    assert features["codes"]["feature"] == {"dtype": "int16", "_type": "Value"}
    assert "path: data/train-*.parquet" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    "wrong", [{"to": "lapa", "vectors": Path("v")}, {"images": True}, {"split": "a b"}]
)
def test_options_that_do_not_go_together(wrong):
    with pytest.raises(ValueError, match=r"are exported with|split must be"):
        ExportConfig(**wrong)
