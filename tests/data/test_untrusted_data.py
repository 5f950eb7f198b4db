"""Data sets of strangers: nothing outside of their folder is read, no claim of theirs is believed."""

import io
import json
import resource
import shutil
from pathlib import Path
from typing import Any

import av
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from invact_vla.core.errors import UserError
from invact_vla.core.limits import inside, short
from invact_vla.core.schema import LatentLabels
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.hdf5_file import open_hdf5, read_array
from invact_vla.data.label_store import LabelIdentity, LabelStore, read_labels, write_labels
from invact_vla.data.readers import open_dataset
from invact_vla.data.readers.lerobot_meta import LeRobotMeta
from invact_vla.data.source_files import decode_picture
from invact_vla.data.video.frames import decode_all, decode_frames, probe
from tests.data.demos import NAME, demonstration, write_hdf5


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture
def demos(tmp_path: Path) -> Path:
    return write_hdf5(tmp_path / "given" / NAME, {"demo_0": demonstration()})


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.hdf5"
    with h5py.File(path, "w") as file:
        file["actions"] = demonstration()["actions"]
    return path


def one_line(error: Any) -> str:
    assert "\n" not in str(error.value) and len(str(error.value)) < 1500
    return str(error.value)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "link/x", "chain", "\0", "a" * 300]
)
def test_paths_that_lead_out(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    (folder / "chain").symlink_to("link/x")
    (tmp_path / "x").write_text("x")
    with pytest.raises(UserError, match="outside of it") as error:
        inside(folder, name)
    one_line(error)


def test_paths_that_stay(tmp_path: Path) -> None:
    cache = tmp_path / "models--a--b"
    snapshot = cache / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "f").write_text("x")
    (snapshot / "config.json").symlink_to("../../blobs/f")
    assert inside(snapshot, "config.json").read_text() == "x"
    (tmp_path / "way").symlink_to(snapshot)  # the folder itself may be a link: the user gave it
    assert inside(tmp_path / "way", "config.json").read_text() == "x"


def test_short_is_one_printable_line() -> None:
    class Bad:
        def __str__(self) -> str:
            raise ValueError

    assert short("a\n\x1b[31mb") == "a ?[31mb" and len(short("x" * 10**6)) == 200 and short(Bad())


@pytest.mark.parametrize(
    "how", ["external link", "external storage", "virtual", "group link", "deep"]
)
def test_hdf5_of_other_files(demos: Path, secret: Path, how: str) -> None:
    with h5py.File(demos, "a") as file:
        group: Any = file["data/demo_0"]
        del group["actions"]
        if how == "external link":
            group["actions"] = h5py.ExternalLink(str(secret), "/actions")
        elif how == "group link":
            del file["data"]
            file["data"] = h5py.ExternalLink(str(secret), "/")
        elif how == "deep":
            file["other"] = h5py.ExternalLink(str(secret), "/")
            group["actions"] = h5py.SoftLink("/other/actions")
        elif how == "external storage":
            group.create_dataset("actions", (12, 7), "u1", external=[(str(secret), 0, 84)])
        else:
            layout = h5py.VirtualLayout((12, 7), float)
            layout[:] = h5py.VirtualSource(str(secret), "actions", (12, 7))
            group.create_virtual_dataset("actions", layout)
    with pytest.raises(UserError, match=r"another file|lie elsewhere") as error:
        open_dataset(DatasetConfig(path=demos))
    one_line(error)


def test_soft_links_inside_a_file_are_followed(demos: Path) -> None:
    with h5py.File(demos, "a") as file:
        file.move("data/demo_0/actions", "kept")
        file["data/demo_0/actions"] = h5py.SoftLink("/kept")
        file["data/demo_0/loop"] = h5py.SoftLink("/data/demo_0/loop")
    assert open_dataset(DatasetConfig(path=demos)).episodes[0].length == 12


def test_a_folder_with_a_link_out_of_it(demos: Path, secret: Path) -> None:
    (demos.parent / "b_task_here_demo.hdf5").symlink_to(secret)
    with pytest.raises(UserError, match="outside of it"):
        open_dataset(DatasetConfig(path=demos.parent))


def test_hdf5_of_enormous_claims(demos: Path) -> None:
    before = peak_mib()
    with h5py.File(demos, "a") as file:
        del file["data/demo_0/actions"]
        file.create_dataset("data/demo_0/actions", (300_000_000, 7), chunks=(1000, 7))
    with pytest.raises(UserError, match="at most") as error:
        open_dataset(DatasetConfig(path=demos))
    one_line(error)
    with h5py.File(demos, "a") as file:
        file.create_dataset("big", (1 << 40,), "u1", chunks=(1 << 20,))
        file.create_dataset("words", data=["a", "b"])
    for name in ("big", "words", "data"):
        with pytest.raises(UserError, match="no HDF5 file"), open_hdf5(demos) as file:
            read_array(file[name])
    assert peak_mib() - before < 300


INFO: dict[str, Any] = {
    "codebase_version": "v2.1", "fps": 10, "chunks_size": 1000,
    "features": {
        "action": {"dtype": "float32", "shape": [7]},
        "observation.images.image": {"dtype": "video", "shape": [8, 8, 3]},
    },
}  # fmt: skip


def lerobot(folder: Path, info: dict[str, Any], **row: Any) -> Path:
    (folder / "meta").mkdir(parents=True)
    (folder / "meta/info.json").write_text(json.dumps({**INFO, **info}))
    (folder / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "go"}\n')
    episode = {"episode_index": 0, "length": 3, "tasks": ["go"], **row}
    (folder / "meta/episodes.jsonl").write_text(json.dumps(episode) + "\n")
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"video_path": "../{video_key}.mp4"},
        {"video_path": "/etc/{episode_index}"},
        {"data_path": "data/../../x{episode_index}.parquet"},
        {"data_path": "{episode_index.__class__.__init__}"},
        {"data_path": "{episode_index:2000000000d}"},
        {"data_path": "{episode_index!r:>999}"},
        {"data_path": "{other}"},
        {"data_path": "{0}"},
        {"data_path": ["x"]},
        {"data_path": "link/episode.parquet"},
        {"chunks_size": -3},
        {"chunks_size": "x"},
        {"features": {"action": []}},
        {"codebase_version": "9" * 10**6},
    ],
    ids=range(14),
)
def test_lerobot_paths(tmp_path: Path, change: dict[str, Any]) -> None:
    folder = lerobot(tmp_path / "set", change)
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(UserError) as error:
        LeRobotMeta(folder)
    one_line(error)


@pytest.mark.parametrize(
    "row",
    [
        {"length": 300_000_000}, {"length": -1}, {"length": "3"}, {"length": 1e308}, {"length": None},
        {"episode_index": 2_000_000_000}, {"episode_index": -1}, {"episode_index": True},
    ],
)  # fmt: skip
def test_lerobot_numbers(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"episodes\.jsonl") as error:
        LeRobotMeta(lerobot(tmp_path / "set", {}, **row))
    one_line(error)


@pytest.mark.parametrize("text", ["[" * 10**6, "9" * 5000, '{"a": ' * 10**5, "\xff", "NaN", "[1]"])
def test_lerobot_json(tmp_path: Path, text: str) -> None:
    folder = lerobot(tmp_path / "set", {})
    for name in ("info.json", "episodes.jsonl", "tasks.jsonl"):
        (folder / "meta" / name).write_bytes(text.encode("latin1"))
        with pytest.raises(UserError) as error:
            open_dataset(DatasetConfig(path=folder))
        one_line(error)
        shutil.rmtree(folder)
        lerobot(folder, {})


def film(path: Path, side: int, count: int) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=30)
        stream.width = stream.height = side
        stream.pix_fmt = "yuv420p"
        stream.options = {"preset": "ultrafast"}
        frame = av.VideoFrame.from_ndarray(np.zeros((side, side, 3), np.uint8), format="rgb24")
        for _ in range(count):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_film_of_enormous_frames(tmp_path: Path) -> None:
    path = film(tmp_path / "large.mp4", 4096, 3)
    before = peak_mib()
    for read in (probe, decode_all, lambda p: decode_all(p, 32), lambda p: decode_frames(p, [0])):
        with pytest.raises(UserError, match="4096 x 4096 px") as error:
            read(path)
        one_line(error)
    assert peak_mib() - before < 100
    with pytest.raises(UserError, match="MiB"):
        decode_frames(film(tmp_path / "small.mp4", 64, 2), np.zeros(200_000, int))


def test_a_pointer_instead_of_a_film(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git-lfs"):
        decode_all(tmp_path / "a.mp4")


def store(count: int = 3) -> LabelStore:
    identity = LabelIdentity("lapa", "h", "synth", "d", 8, 2)
    labels = LatentLabels(np.zeros((count, 2), np.int64), 8)
    return LabelStore(
        identity,
        ("e",) * count,
        ("e.mp4",) * count,
        ("k",) * count,
        np.arange(count),
        np.arange(1, count + 1),
        ("t",) * count,
        labels,
    )


def change_store(path: Path, identity: dict[str, Any] | bytes | None, **columns: Any) -> Path:
    write_labels(path, store())
    table = pq.read_table(path)
    metadata = dict(table.schema.metadata or {})
    for name, column in columns.items():
        table = table.drop([name]) if column is None else table.set_column(
            table.column_names.index(name), name, column)  # fmt: skip
    if isinstance(identity, dict):
        known = json.loads(metadata[b"invact_labels"])
        identity = json.dumps({**known, **identity}).encode()
    metadata[b"invact_labels"] = metadata[b"invact_labels"] if identity is None else identity
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


@pytest.mark.parametrize(
    ("identity", "columns"),
    [
        ({"code_length": 0}, {}), ({"code_length": "2"}, {}), ({"code_length": 3}, {}),
        ({"codebook_size": -1}, {}), ({"codebook_size": 1 << 40}, {}), ({"labeler": ["a"]}, {}),
        ({"more": 1}, {}), (b"[" * 100_000, {}), (b"[]", {}), (b"\xff", {}),
        (None, {"text": None}), (None, {"codes": None}),
        (None, {"text": pa.array([1, 2, 3])}), (None, {"text": pa.array(["a", None, "b"])}),
        (None, {"text": pa.array(["x" * 20_000] * 3)}), (None, {"frame": pa.array(["a", "b", "c"])}),
        (None, {"frame_end": pa.array([0, 0, 0])}), (None, {"codes": pa.array([1, 2, 3])}),
        (None, {"codes": pa.array([[1, 2], [3], [4, 5, 6]])}),
        (None, {"codes": pa.array([[1, 9], [1, 1], [1, 1]])}),
    ],
    ids=range(20),
)  # fmt: skip
def test_label_stores(tmp_path: Path, identity: Any, columns: dict[str, Any]) -> None:
    path = change_store(tmp_path / "l.parquet", identity, **columns)
    with pytest.raises(UserError, match="not a label store") as error:
        read_labels(path)
    one_line(error)


def test_a_label_store_of_many_rows(tmp_path: Path) -> None:
    path, count = tmp_path / "l.parquet", 3_000_000
    write_labels(path, store())
    metadata = pq.read_schema(path).metadata
    row = pq.read_table(path).slice(0, 1)
    table = row.take(pa.array(np.zeros(count, np.int64))).replace_schema_metadata(metadata)
    pq.write_table(table, path)
    assert path.stat().st_size < 150_000
    with pytest.raises(UserError, match="claims 3000000 rows"):
        read_labels(path)
    (tmp_path / "p.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git-lfs"):
        read_labels(tmp_path / "p.parquet")


def test_equal_texts_are_one_object(tmp_path: Path) -> None:
    write_labels(tmp_path / "l.parquet", store())
    found = read_labels(tmp_path / "l.parquet")
    assert found.text == ("t",) * 3 and found.text[0] is found.text[2] and len(found) == 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_of_enormous_size_is_not_decoded(kind: str) -> None:
    """A few kilobytes that would be 400 MB of pixels."""
    buffer = io.BytesIO()
    Image.new("1" if kind == "PNG" else "L", (12_000, 12_000)).save(buffer, kind)
    assert len(buffer.getvalue()) < 3_000_000
    with pytest.raises(UserError, match="px that are decoded"):
        decode_picture("here", buffer.getvalue())
