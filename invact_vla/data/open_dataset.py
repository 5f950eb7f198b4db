"""Opening demonstrations of any format."""

from pathlib import Path

from invact_vla.core.errors import UserError
from invact_vla.data.dataset_config import DatasetConfig
from invact_vla.data.readers.lerobot import LeRobotDataset
from invact_vla.data.readers.lerobot_meta import is_lerobot
from invact_vla.data.readers.libero_hdf5 import Hdf5Dataset, hdf5_files
from invact_vla.data.readers.rlds import RldsDataset, rlds_folders
from invact_vla.data.stored_dataset import StoredDataset


def open_dataset(config: DatasetConfig) -> StoredDataset:
    """A data set, without reading any pictures. Raises UserError for what is none."""
    return READERS[format_of(config)](config)


READERS = {"hdf5": Hdf5Dataset, "lerobot": LeRobotDataset, "rlds": RldsDataset}


def format_of(config: DatasetConfig) -> str:
    """The format that was named, or the one that the path looks like."""
    path = Path(config.path)
    if not path.exists():
        raise UserError(f"no demonstrations {path}: make some with `invact libero demos`")
    if config.format != "auto":
        return config.format
    if is_lerobot(path):
        return "lerobot"
    if rlds_folders(path):
        return "rlds"
    if hdf5_files(path):
        return "hdf5"
    raise UserError(f"{path} holds no demonstrations of a known format")
