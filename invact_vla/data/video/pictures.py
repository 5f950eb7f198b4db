"""Videos that are single pictures, by a path like that of a file:

    <folder>                          numbered pictures, img_00001.jpg and so on, as LAPA dumps clips
    <demonstrations>/<name>/<camera>  a camera of a robot demonstration, as invact_vla/data/readers gives
                                      its pictures: upright, one per step

What the path cannot say stands behind it: `?fps=30`, and for demonstrations `key`, `action` and
`rotation` as DatasetConfig has them, where they are not the format's own.
"""

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.hdf5_file import VIDEOS, VideoError
from invact_vla.data.readers import open_dataset
from invact_vla.data.readers.lerobot_meta import is_lerobot
from invact_vla.data.readers.rlds import rlds_folders
from invact_vla.data.source_files import check_file, check_pixels, decode_picture, stack_alike
from invact_vla.data.stored_dataset import StoredDataset
from invact_vla.data.video.decode import frame_indices
from invact_vla.data.video.display import Display, Fit
from invact_vla.data.video.video_info import VideoInfo

NUMBERED = re.compile(r"^(?:(?:img|image|frame)[_-]?)?(\d+)\.(?:jpe?g|png)$", re.I)
_LEFT_BEHIND = ("thumbs.db", "desktop.ini")  # by file managers, beside hidden files
MAX_FPS = 10_000
PICTURES_FPS = 12.0  # of folders of pictures: the rate of Something-Something V2
STEPS_FPS = 20.0  # of demonstrations that do not tell: LIBERO's control rate


@dataclass(frozen=True)
class PictureVideo:
    """A video of single pictures. info: without sides, which the pictures alone tell. files: what it is
    read from; name: of it in them; read: the pictures of some indices, uint8 (H, W, 3) each. actions: of
    a demonstration, float64 (T, A), in the data's own convention; None for other videos."""

    path: Path
    info: VideoInfo
    files: tuple[Path, ...]
    name: str
    read: Callable[[Sequence[int]], Iterable[np.ndarray]]
    actions: Callable[[], np.ndarray] | None = None

    def frames(
        self,
        indices: Sequence[int] | np.ndarray,
        size: int | None = None,
        fit: Fit = "crop",
        seek: bool = False,
    ) -> np.ndarray:
        """uint8 (T, H, W, 3), scaled as `frames.decode_frames` does it."""
        import av

        wanted, inverse = np.unique(frame_indices(indices), return_inverse=True)
        if wanted[-1] >= self.info.n_frames:
            raise VideoError(
                f"{self.path} ends after {self.info.n_frames} frames, frame {wanted[-1]} was wanted: "
                "pictures are missing; fetch it again"
            )
        display, found = Display(), []
        for array in self.read(wanted.tolist()):
            height, width = array.shape[:2]
            check_pixels(str(self.path), size or height, size or width, len(inverse))
            if size is not None:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), "rgb24")
                array = display.to_array(frame, size, fit)
            found.append(array)
        return stack_alike(str(self.path), found)[inverse.reshape(-1)]

    def all_frames(self, size: int | None = None, fit: Fit = "crop") -> np.ndarray:
        """All of them, as `frames`."""
        return self.frames(range(self.info.n_frames), size, fit)


def with_options(path: Path, options: Mapping[str, object]) -> Path:
    """The path of a video of pictures with what the path cannot say; without it if there is none."""
    given = {name: value for name, value in options.items() if value is not None}
    return path.with_name(f"{path.name}?{urlencode(given)}") if given else path


def at_rate(video: Path, fps: float) -> Path:
    """A video of a listing with the rate of its pictures, if it is a folder of them."""
    return with_options(video, {"fps": fps}) if fps != PICTURES_FPS and video.is_dir() else video


def holds_pictures(names: Sequence[str]) -> bool:
    """Whether a folder with these entries is a video: numbered pictures and nothing else but what file
    managers leave behind."""
    names = [n for n in names if not n.startswith(".") and n.lower() not in _LEFT_BEHIND]
    return bool(names) and all(map(NUMBERED.match, names))


def open_pictures(path: Path) -> PictureVideo | None:
    """The video of pictures that a path leads to; None if it leads to none. Raises VideoError."""
    path = Path(path)
    if path.is_file():
        return None
    name, mark, query = path.name.partition("?")
    bare, options = (path.with_name(name), dict(parse_qsl(query))) if name and mark else (path, {})
    if bare.is_dir():
        return _folder(bare, _rate(path, options) or PICTURES_FPS)
    container = next((parent for parent in bare.parents if parent.exists()), None)
    inside = bare.relative_to(container).parts if container is not None else ()
    if container is None or len(inside) < 2 or (container.is_file() and inside[0] == VIDEOS):
        return None
    if container.is_dir() and not is_lerobot(container) and not rlds_folders(container):
        return None
    try:
        return _demonstration(path, container, "/".join(inside[:-1]), inside[-1], options)
    except (UserError, ValueError) as error:
        raise VideoError(str(error)) from error


def _rate(path: Path, options: Mapping[str, str]) -> float | None:
    """The frames per second that a path says, if it does."""
    text = options.get("fps")
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate < MAX_FPS:
        raise VideoError(f"{path}: expected ?fps= and frames per second, got {text!r:.40}")
    return rate


def _folder(folder: Path, fps: float) -> PictureVideo:
    with os.scandir(folder) as entries:  # a link that leads nowhere is no picture
        matches = [NUMBERED.match(entry.name) for entry in entries if entry.is_file()]
    found = [(int(match[1]), folder / match[0]) for match in matches if match]
    numbered = dict(found)
    if len(numbered) != len(found):
        raise VideoError(f"{folder} has two pictures of one number: leave one of each")
    files = tuple(numbered[number] for number in sorted(numbered))
    if not files:
        raise VideoError(f"no pictures in {folder}: expected img_00001.jpg and so on")
    last = max(numbered)
    if last - min(numbered) + 1 != len(files):
        gap = next(n for n in range(min(numbered), last) if n not in numbered)
        raise VideoError(f"{folder} lacks picture {gap} of {last}: fetch it again")

    def read(indices: Sequence[int]) -> Iterator[np.ndarray]:
        for file in (files[index] for index in indices):
            yield decode_picture(str(file), check_file(file).read_bytes())

    return PictureVideo(folder, VideoInfo(len(files), fps, 0, 0), files, "", read)


def _demonstration(
    path: Path, container: Path, name: str, camera: str, options: Mapping[str, str]
) -> PictureVideo | None:
    stamp = container.stat().st_mtime_ns
    dataset = _dataset(container, camera, tuple(sorted(options.items())), stamp)
    place = next((i for i, e in enumerate(dataset.all_episodes) if e.name == name), None)
    if place is None or camera not in dataset.camera_keys:
        return None
    files = tuple(dataset.episode_files(place, camera))
    fps = _rate(path, options) or dataset.fps or STEPS_FPS
    info = VideoInfo(dataset.all_episodes[place].length, fps, 0, 0)

    def read(indices: Sequence[int]) -> list[np.ndarray]:
        try:
            return list(dataset.upright_frames(place, camera)[np.asarray(indices)])
        except UserError as error:
            raise VideoError(str(error)) from error

    return PictureVideo(
        path, info, files, f"{name}/{camera}", read, lambda: dataset.checked_numbers(place).actions
    )


@lru_cache(maxsize=16)
def _dataset(
    container: Path, camera: str, options: tuple[tuple[str, str], ...], _stamp: int
) -> StoredDataset:
    given = dict(options)
    return open_dataset(
        DatasetConfig(
            path=container,
            cameras={camera: given["key"]} if "key" in given else {},
            action=given.get("action"),
            rotation=given.get("rotation", "auto"),
            instruction="unknown",  # pictures alone are read
        )
    )
