"""What features.json of an RLDS data set says, by tensorflow-datasets' own classes and no others."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.limits import inside, short

FEATURES, INFO = "features.json", "dataset_info.json"
_SPLIT = re.compile(r"\w[\w.-]{0,99}")
_MOST_SPLITS = 1000


def import_tfds() -> Any:
    """tensorflow-datasets, which needs no TensorFlow for this."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"RLDS data need tensorflow-datasets ({error}): pip install 'invact-vla[rlds]' (it needs "
            "no TensorFlow)"
        ) from error
    return tfds


def steps_of(folder: Path) -> dict[str, Any]:
    """The features of a step; FeaturesDicts become plain ones. UserError if there are none."""
    connector = import_tfds().features.FeatureConnector
    content = read_json(inside(folder, FEATURES))
    try:
        with _known_classes_only(connector):
            steps = connector.from_json(content)["steps"].feature
        return {k: dict(f) if hasattr(f, "items") else f for k, f in steps.items()}
    except Exception as error:  # protobuf's own errors among them
        raise UserError(
            f"{folder / FEATURES} does not describe RLDS episodes ({short(error)}): expected a data set "
            "`steps` of action and observation"
        ) from error


@contextmanager
def _known_classes_only(connector: Any) -> Iterator[None]:
    """tensorflow-datasets imports any module that the file names as that of a class."""
    imports = connector.__dict__["cls_from_name"]
    known = dict(connector._registered_features)
    connector.cls_from_name = classmethod(lambda _, name: known[name])
    try:
        yield
    finally:
        connector.cls_from_name = imports


def width_of(where: str, key: str, feature: Any) -> int:
    """How many numbers a step has of a feature. UserError for what is no list of plain numbers."""
    shape, encoding = getattr(feature, "shape", None), getattr(feature, "_encoding", None)
    if not isinstance(shape, tuple) or len(shape) > 1 or shape in ((None,), (0,)):
        raise UserError(f"{where}: {key} of shape {short(str(shape))}, expected (numbers,)")
    if getattr(encoding, "value", "none") == "zlib":
        raise UserError(f"{where}: {key} is compressed: save it without an encoding")
    return int(shape[0]) if shape else 1


def splits_of(folder: Path) -> dict[str, int]:
    """Episodes of each split, as dataset_info.json has them; 0 where it does not say. UserError if the
    files are no TFRecords."""
    info = read_json(inside(folder, INFO))
    try:
        splits = {
            str(split.get("name")): sum(int(n) for n in split.get("shardLengths") or [])
            for split in info.get("splits") or []
        }
        form = str(info.get("fileFormat") or "tfrecord")
        odd = [name for name in splits if not _SPLIT.fullmatch(name)]
        if odd or len(splits) > _MOST_SPLITS:
            raise ValueError(f"{len(splits)} splits, {odd[0] if odd else 'too many'}")
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{folder / INFO} does not describe splits ({short(error)})") from error
    if form != "tfrecord":
        raise UserError(
            f"{folder} holds files of format {short(form)}, expected tfrecord: convert them with "
            "tensorflow-datasets (convert_format)"
        )
    return splits
