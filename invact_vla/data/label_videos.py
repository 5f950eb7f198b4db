"""The videos of a label store, found again: by their path below a root, and known by their key."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.limits import short
from invact_vla.data.label_store import LabelStore
from invact_vla.data.video.frames import VideoError, video_key


def find_videos(
    store: LabelStore, root: Path, paths: Iterable[str] | None = None
) -> dict[str, Path]:
    """{path in the store: the video below `root`}, each with the content that was labeled: of all
    paths, or of some.

    root: the one that was labeled, wherever it lies now, or a folder inside it that holds all videos.
    UserError for a video that is missing or another one than was labeled.
    """
    if not Path(root).exists():
        raise UserError(f"no folder {root}: give the folder whose videos were labeled")
    keys = store.videos
    wanted = list(keys if paths is None else paths)
    bar = tqdm(wanted, "check videos", unit="video", mininterval=5, disable=len(wanted) < 5000)
    return {path: _find(Path(root), path, keys[path]) for path in bar}


def _find(root: Path, path: str, key: str) -> Path:
    """A video, by its whole path, or by the end of it where `root` lies below what was labeled."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts:
        raise UserError(f"the label store names a video outside of its root, {short(path)}")
    if len(path) > 2000 or "\0" in path or any(len(part.encode()) > 255 for part in parts):
        raise UserError(f"the label store names a video by no path, {short(path)}")
    other = None
    for depth in range(len(parts)):
        video = root.joinpath(*parts[depth:])
        try:
            if video_key(video) == key:
                return video
            other = other or video
        except VideoError:
            continue
    if other is not None:
        raise UserError(
            f"{other} is not the video that was labeled as {short(path)} (another content): give the "
            "root of the labeled videos, or label these again"
        )
    below = next((p for p in root.glob(f"*/{parts[-1]}")), None)
    hint = (
        f"; it lies in {below.parent}: give that" if below else ": give the root that was labeled"
    )
    raise UserError(f"no video {short(path)} in {root}{hint}")
