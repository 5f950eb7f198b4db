"""RLDS without TensorFlow: the golden sample exactly, framing by property, damaged ones."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invact_vla.core.errors import UserError
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.readers import open_dataset
from invact_vla.data.readers.tfrecord import (
    list_records,
    masked_crc32c,
    parse_varint,
    read_features,
    varint,
)
from invact_vla.data.stored_dataset import StoredDataset
from tests.paths import GOLDEN, REPOSITORY, needs_golden

pytest.importorskip("tensorflow_datasets")
WORDS = [
    "put both the alphabet soup and the tomato sauce in the basket",
    "put the black bowl in the bottom drawer of the cabinet and close it",
]
TFRECORD = "libero_10_no_noops-train.tfrecord-00000-of-00001"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden version folder, to break."""
    if GOLDEN is None:
        pytest.skip("no ../shared/golden reference data here")
    source = GOLDEN / "rlds_tiny/libero_10_no_noops/1.0.0"
    return Path(shutil.copytree(source, tmp_path / "libero_10_no_noops/1.0.0"))


def opened(path: Path, **options: Any) -> StoredDataset:
    return open_dataset(DatasetConfig(path=path, **{"gripper": "open_is_one", **options}))


@pytest.mark.parametrize("above", [0, 1, 2])
def test_golden_is_read_exactly(above: int, folder: Path) -> None:
    path = [folder, *folder.parents][above]
    dataset = opened(path, state=("state", "joint_state"))
    assert [(e.instruction, e.length) for e in dataset.episodes] == list(zip(WORDS, (5, 6)))  # noqa: B905
    assert dataset.cameras == ("agentview", "wrist") and dataset.state_dim == 15
    for e in range(2):
        numbers, rng = dataset.numbers(e), np.random.default_rng(e)
        assert numbers.state is not None
        for t in range(len(numbers.actions)):
            state = np.concatenate([rng.normal(size=8), rng.normal(size=7)]).astype(np.float32)
            action = np.append(rng.uniform(-1, 1, 6), float(t >= 3)).astype(np.float32)
            np.testing.assert_array_equal(numbers.state[t], state)
            np.testing.assert_array_equal(numbers.actions[t], action)


def test_pictures_are_those_of_tensorflow_datasets(folder: Path) -> None:
    """But for the last digit of the transform: theirs decodes with another one without TensorFlow."""
    import tensorflow_datasets as tfds

    features = tfds.features.FeaturesDict.from_config(str(folder))
    dataset = opened(folder)
    for place, record in enumerate(list_records(folder / TFRECORD)):
        whole = record.path.read_bytes()[record.start : record.start + record.length]
        steps: Any = features.deserialize_example_np(whole)["steps"]
        for camera, key in (("agentview", "image"), ("wrist", "wrist_image")):
            reference = np.stack([step["observation"][key] for step in steps])
            frames = dataset.frames(place, camera)
            assert frames.shape == reference.shape and frames.dtype == np.uint8
            assert np.abs(frames.astype(int) - reference).mean() < 1.5


def test_gripper_and_default_state(folder: Path) -> None:
    assert opened(folder).state_dim == 8
    closed = opened(folder, gripper="open_is_zero").numbers(0).actions[:, 6]
    np.testing.assert_array_equal(closed, [1, 1, 1, 0, 0])
    with pytest.raises(UserError, match=r"--data\.gripper open_is_one"):
        opened(folder, gripper="auto").numbers(0)


@needs_golden
def test_tensorflow_is_never_imported() -> None:
    assert GOLDEN is not None
    code = f"""
import sys
from pathlib import Path

from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.readers import open_dataset
config = DatasetConfig(path=Path({str(GOLDEN / "rlds_tiny")!r}), gripper="open_is_one")
dataset = open_dataset(config)
print([dataset.frames(i, "wrist").shape[0] + len(dataset.numbers(i).actions) for i in range(2)])
assert "tensorflow" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[10, 12]", done.stderr


def test_options(folder: Path) -> None:
    dataset = opened(folder, cameras={"agentview": "wrist_image"})
    np.testing.assert_array_equal(dataset.frames(0, "agentview"), opened(folder).frames(0, "wrist"))
    with pytest.raises(UserError, match=r"no pictures left, it has \['image', 'wrist_image'\]"):
        opened(folder, cameras={"agentview": "left"})
    with pytest.raises(UserError, match="no action moves"):
        opened(folder, action="moves")
    with pytest.raises(UserError, match="no joints, it has"):
        opened(folder, state=("joints",))
    assert len(opened(folder, instruction="lift", max_demos=1).episodes) == 1


def test_damage(folder: Path) -> None:
    path = folder / TFRECORD
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(UserError, match="ends within a record"):
        opened(folder)
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])  # one bit of the last record
    assert len(opened(folder).episodes) == 2  # listing reads little
    with pytest.raises(UserError, match="checksum does not agree"):
        opened(folder).numbers(1)
    path.write_bytes(b"x" + whole[1:])
    with pytest.raises(UserError, match="no TFRecord file or is damaged at byte 0"):
        opened(folder)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match="git-lfs text pointer"):
        opened(folder)
    path.unlink()
    with pytest.raises(UserError, match="0 episodes of split train in 0 files, 2 expected"):
        opened(folder)


def test_an_episode_is_missing(folder: Path) -> None:
    path = folder / TFRECORD
    first = list_records(path)[0]
    path.write_bytes(path.read_bytes()[: first.start + first.length + 4])
    with pytest.raises(UserError, match="1 episodes of split train in 1 files, 2 expected"):
        opened(folder)


def test_foreign_folders(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "other/1.0.0")
    with pytest.raises(UserError, match="expected one RLDS data set"):
        opened(tmp_path)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"fileFormat": "array_record"}))
    with pytest.raises(UserError, match="format array_record, expected tfrecord"):
        opened(folder)
    (folder / "features.json").write_text("{}")
    with pytest.raises(UserError, match="does not describe RLDS episodes"):
        opened(folder)


def message(features: dict[str, bytes]) -> bytes:
    """A serialized Example of bytes features, one value each."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(data)) + data

    entries = [
        field(1, field(1, key.encode()) + field(2, field(1, field(1, value))))
        for key, value in features.items()
    ]
    return field(1, b"".join(entries))


def framed(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    crc = struct.pack("<I", masked_crc32c(length))
    return length + crc + data + struct.pack("<I", masked_crc32c(data))


KEYS = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.dictionaries(KEYS, st.binary(max_size=400), max_size=5), max_size=4), st.data())
def test_wanted_features_are_what_protobuf_reads(
    features: list[dict[str, bytes]], data: st.DataObject
) -> None:
    import tempfile

    from tensorflow_datasets.proto import tf_example_pb2

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tfrecord"
        path.write_bytes(b"".join(framed(message(f)) for f in features))
        records = list_records(path)
        assert len(records) == len(features)
        for record, own in zip(records, features, strict=True):
            names = data.draw(st.sets(st.sampled_from(sorted(own)))) if own else set()
            example = tf_example_pb2.Example.FromString(
                read_features(record, names.__contains__, 1 << 20)
            )
            read = {k: v.bytes_list.value[0] for k, v in example.features.feature.items()}
            assert read == {k: v for k, v in own.items() if k in names}


@given(st.integers(0, 2**63))
def test_varint_round_trip(value: int) -> None:
    assert parse_varint(varint(value) + b"rest") == (value, len(varint(value)))


def test_crc() -> None:
    """The check value of CRC-32C, and the mask of TFRecord."""
    crc = 0xE3069283
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc32c(b"123456789") == masked
