"""A small RLDS data set, written with tensorflow-datasets' own features and protobuf messages."""

import io
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from invact_vla.data.readers.tfrecord import masked_crc32c

VERSION = Path("toy/1.0.0")
RECORDS = "toy-train.tfrecord-00000-of-00001"
STEPS = 6


def png(height: int = 16, width: int = 16) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()


def huge(width: int, height: int) -> bytes:
    """A PNG that says it is this large."""
    data = bytearray(png())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def framed(data: bytes) -> bytes:
    """A record with right checksums."""
    length = struct.pack("<Q", len(data))
    crcs = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
    return length + next(crcs) + data + next(crcs)


def example(**changes: Any) -> bytes:
    """A serialized episode. changes: other values of its features, by the last part of their names."""
    from tensorflow_datasets.proto import tf_example_pb2

    actions = np.random.default_rng(0).uniform(-0.5, 0.5, (STEPS, 7))
    actions[:, 6] = np.arange(STEPS) > 2
    values = {
        "action": actions.ravel().tolist(), "state": [0.5] * 8 * STEPS, "image": [png()] * STEPS,
        "language_instruction": [b"open the drawer"] * STEPS, **changes,
    }  # fmt: skip
    message = tf_example_pb2.Example()
    for name, value in values.items():
        above = "steps/observation/" if name in ("image", "state") else "steps/"
        feature = message.features.feature[above + name]
        kind = feature.bytes_list if isinstance(value[0], bytes) else feature.float_list
        kind.value.extend(value)
    return message.SerializeToString()


def features() -> dict[str, Any]:
    """features.json of `example`."""
    import tensorflow_datasets as tfds
    from google.protobuf import json_format

    f: Any = tfds.features
    observation = {
        "image": f.Image(shape=(None, None, 3)),
        "state": f.Tensor(shape=(8,), dtype=np.float32),
    }
    step = {
        "action": f.Tensor(shape=(7,), dtype=np.float32), "language_instruction": f.Text(),
        "observation": observation,
    }  # fmt: skip
    return json_format.MessageToDict(f.FeaturesDict({"steps": f.Dataset(step)}).to_proto())


def write_rlds(root: Path, *examples: bytes) -> Path:
    """The version folder below `root`; one episode if none is given."""
    folder = root / VERSION
    folder.mkdir(parents=True)
    episodes = examples or (example(),)
    (folder / RECORDS).write_bytes(b"".join(map(framed, episodes)))
    (folder / "features.json").write_text(json.dumps(features()))
    split = {"name": "train", "shardLengths": [str(len(episodes))]}
    info = {"fileFormat": "tfrecord", "splits": [split]}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    return folder
