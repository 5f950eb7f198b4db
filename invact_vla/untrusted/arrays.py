"""Arrays and pictures of strangers: looked at before they are decoded, bounded in size, no pickles."""

import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from invact_vla.core.errors import UserError
from invact_vla.core.limits import one_line, refuse_pointer, short, some

MAX_BYTES = 256 << 20  # of the unpacked array
PICTURES = ("PNG", "JPEG", "WEBP", "BMP")  # those that are read
MAX_PIXELS = 9_500_000  # of a frame: 4K film has 8.3 and 8.8 million


def read_npz(path: Path, name: str, limit: int = MAX_BYTES) -> np.ndarray:
    """The array of numbers `name` of an .npz file. UserError for a missing, damaged or enormous one."""
    path = Path(path)
    refuse_pointer(path)
    with one_line(f"{path} is no .npz file of numbers: {{error}}"):
        with zipfile.ZipFile(path) as archive:
            sizes = {i.filename.removesuffix(".npy"): i.file_size for i in archive.infolist()}
        if name not in sizes:
            raise UserError(f"{path} has no array {short(name)}: it has {some(sizes)}")
        if sizes[name] > limit:
            raise UserError(f"{path}: array {short(name)} has {sizes[name]} bytes, at most {limit}")
        with np.load(path, allow_pickle=False) as arrays:
            value = arrays[name]
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
            raise ValueError(f"{short(name)} is no array of numbers")
        return value


def map_frames(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 frames of a .npy file, memory-mapped, to be read. UserError for a missing or damaged file,
    and for one of another shape."""
    refuse_pointer(path)
    with one_line(f"{path} is no array of frames {shape} ({{error}}): delete it, it is made again"):
        frames = np.load(path, mmap_mode="r", allow_pickle=False)
        if (frames.dtype, frames.shape) != (np.uint8, shape):
            raise ValueError(f"it holds {frames.dtype} {frames.shape}")
        return frames


@contextmanager
def open_picture(where: str, source: bytes | Path) -> Iterator[Image.Image]:
    """A picture that is not decoded yet; whatever is wrong with it, also later in the block, is a
    UserError that begins with `where`."""
    with one_line(f"{where}: a picture cannot be decoded ({{error}}): fetch it again"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our bound is lower
            given = io.BytesIO(source) if isinstance(source, bytes) else source
            image = Image.open(given, formats=PICTURES)
        with image:
            check_size(where, image.height, image.width)
            yield image


def as_rgb(image: Image.Image) -> np.ndarray:
    """uint8 (H, W, 3) of a picture of any mode; of 16 bits the upper 8. ValueError for numbers that have
    no known scale."""
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode in ("I", "F"):
        raise ValueError(f"a picture of mode {image.mode} has no known scale: save it with 8 bits")
    return np.asarray(image.convert("RGB"))


def check_size(where: str, height: int, width: int) -> None:
    """UserError for frames too large to be decoded."""
    if height * width > MAX_PIXELS:
        raise UserError(
            f"{where}: frames of {width} x {height} px, more than the {MAX_PIXELS} px that are decoded: "
            "scale them down first"
        )
