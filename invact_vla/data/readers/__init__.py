"""LIBERO HDF5, LeRobot and RLDS: a reader per format behind `dataset.RobotDataset`."""

from pathlib import Path

from invact_vla.core.errors import UserError
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.readers.lerobot import LeRobotDataset
from invact_vla.data.readers.lerobot_meta import INFO, is_lerobot
from invact_vla.data.readers.libero_hdf5 import Hdf5Dataset, hdf5_files
from invact_vla.data.readers.rlds import RldsDataset, rlds_folders
from invact_vla.data.stored_dataset import StoredDataset

READERS = {
    "lerobot": (LeRobotDataset, is_lerobot),
    "rlds": (RldsDataset, rlds_folders),
    "hdf5": (Hdf5Dataset, hdf5_files),
}


def open_dataset(config: DatasetConfig) -> StoredDataset:
    """A data set of the format that is named, or that the path looks like, without reading any
    pictures. Raises UserError for what is none."""
    return reader_of(config)(config)


def reader_of(config: DatasetConfig) -> type[StoredDataset]:
    """What reads a data set; UserError where there is none of a known format."""
    path = Path(config.path)
    if not path.exists():
        raise UserError(f"no demonstrations {path}: make some with `invact libero demos`")
    for name, (reader, fits) in READERS.items():
        if name == config.format or (config.format == "auto" and fits(path)):
            return reader
    raise UserError(
        f"{path} holds no demonstrations of a known format: expected an HDF5 file (.hdf5, .h5) or a "
        f"folder of them, a LeRobot folder ({INFO}) or an RLDS folder (features.json)"
    )
