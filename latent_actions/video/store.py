"""FrameStore: clips decoded once into one memory-mapped array, so that training never decodes.

    <folder>/frames.npy      uint8 (N, T, H, W, 3)
    <folder>/records.json    the records, in row order
    <folder>/store.json      sizes, what was asked for, the videos that could not be read

Building is parallel over videos, atomic, and gives the same bytes again. Damaged videos go to a
counted list of skipped files; more of them than `max_skipped` is an error.
"""

import dataclasses
import logging
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from invact_vla.data.decode import Fit, VideoError, decode_frames, probe
from invact_vla.errors import UserError
from invact_vla.training.files import atomic_folder, hash_json, read_json, write_json
from latent_actions.video.clips import clip_frames, pair_frames
from latent_actions.video.records import ClipRecord, PairRecord, Record
from latent_actions.video.workers import run_parallel

logger = logging.getLogger(__name__)
RECORD_TYPES = {"clip": ClipRecord, "pair": PairRecord}
LISTED_FILES = 5  # damaged files named in an error message


class FrameStore:
    """Decoded frames of records. store[i]: uint8 (T, H, W, 3); store.batch(indices): (B, T, H, W,
    3).

    frames: uint8 (N, T, H, W, 3), memory-mapped, read-only. records: one a row. skipped: messages
    of the videos that could not be read, whose records are left out.
    """

    def __init__(self, folder: Path, frames: np.ndarray, records: list[Any], skipped: list[str]):
        self.folder = folder
        self.frames = frames
        self.records = records
        self.skipped = skipped

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> np.ndarray:
        return np.array(self.frames[index])

    def batch(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Rows in the given order, copied: uint8 (B, T, H, W, 3)."""
        return self.frames[np.asarray(indices, np.int64)]

    @classmethod
    def build(
        cls,
        records: Sequence[Record],
        folder: Path,
        frames: int = 8,
        size: int = 64,
        workers: int = 2,
        fit: Fit = "crop",
        max_skipped: float = 0.01,
    ) -> "FrameStore":
        """Decode `frames` frames of every record at `size` px, unless the folder has just that
        already.

        Clips: frames at the midpoints of equal parts of the span. Pairs: from `frame` to
        `frame_end`, both included (frames=2 is exactly the pair). Raises UserError when there is
        nothing to decode or when more than the share `max_skipped` of the videos is damaged.
        """
        if not records:
            raise UserError(f"no clips to decode into {folder}: check the source's path and split")
        request = _request(records, frames, size, fit)
        if (folder / "store.json").exists() and read_json(folder / "store.json")[
            "request"
        ] == request:
            return cls.open(folder)
        with atomic_folder(folder) as temporary:
            skipped = _fill(records, temporary, frames, size, workers, fit)
            n_videos = len({record.video for record in records})
            _check_skipped(skipped, n_videos, max_skipped)
            kept = [record for record in records if str(record.video) not in skipped]
            _drop_rows(temporary, [str(record.video) not in skipped for record in records])
            write_json(temporary / "records.json", [_encode(record) for record in kept])
            messages = [skipped[video] for video in sorted(skipped)]
            write_json(temporary / "store.json", {"request": request, "skipped": messages})
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "FrameStore":
        """Open a built store. Raises UserError if the folder is not one."""
        state = read_json(Path(folder) / "store.json")
        records = [_decode(row) for row in read_json(Path(folder) / "records.json")]
        frames = np.load(Path(folder) / "frames.npy", mmap_mode="r")
        if len(frames) != len(records):
            raise UserError(
                f"{folder} has {len(frames)} rows of frames for {len(records)} records: "
                "delete the folder and build it again"
            )
        return cls(Path(folder), frames, records, state["skipped"])


def _request(records: Sequence[Record], frames: int, size: int, fit: Fit) -> dict[str, Any]:
    """What a store was built from: sizes, the records, and the sizes in bytes of their videos."""
    videos = sorted({record.video for record in records})
    bytes_of = [[str(path), path.stat().st_size if path.exists() else -1] for path in videos]
    return {
        "frames": frames,
        "size": size,
        "fit": fit,
        "records": hash_json([_encode(record) for record in records]),
        "videos": hash_json(bytes_of),
    }


def _fill(
    records: Sequence[Record], folder: Path, frames: int, size: int, workers: int, fit: Fit
) -> dict[str, str]:
    """Decode all records into folder/frames.npy, a row each; returns {damaged video: message}."""
    path = folder / "frames.npy"
    shape = (len(records), frames, size, size, 3)
    np.lib.format.open_memmap(path, "w+", np.uint8, shape).flush()
    by_video: dict[Path, list[tuple[int, Record]]] = defaultdict(list)
    for row, record in enumerate(records):
        by_video[record.video].append((row, record))
    jobs = [(video, rows, path, frames, size, fit) for video, rows in by_video.items()]
    skipped: dict[str, str] = {}
    with tqdm(total=len(jobs), desc="decode", unit="video", mininterval=1.0) as bar:
        for video, message in run_parallel(_decode_video, jobs, workers):
            bar.update()
            if message is not None:
                skipped[str(video)] = message
    return skipped


def _decode_video(job: tuple) -> tuple[Path, str | None]:
    """Decode all records of one video in one pass, into their rows; a damaged video gives a
    message.
    """
    video, rows, path, count, size, fit = job
    try:
        wanted = _wanted_frames(video, rows, count)
        unique, inverse = np.unique(np.concatenate(wanted), return_inverse=True)
        decoded = decode_frames(video, unique, size, fit)
    except VideoError as error:
        return video, str(error)
    array = np.load(path, mmap_mode="r+")
    for (row, _), frames in zip(rows, np.split(inverse.reshape(-1), len(rows)), strict=True):
        array[row] = decoded[frames]
    array.flush()
    return video, None


def _wanted_frames(video: Path, rows: list[tuple[int, Record]], count: int) -> list[np.ndarray]:
    info = probe(video) if any(isinstance(record, ClipRecord) for _, record in rows) else None
    wanted = []
    for _, record in rows:
        if isinstance(record, PairRecord):
            wanted.append(pair_frames(record.frame, record.frame_end, count))
            continue
        assert info is not None
        if record.start_s * info.fps >= info.n_frames:
            raise VideoError(
                f"{video} has {info.n_frames} frames ({info.n_frames / info.fps:.2f} s), but clip "
                f"{record.clip_id} starts at {record.start_s:.2f} s: the file is truncated"
            )
        wanted.append(clip_frames(record.start_s, record.end_s, info.fps, info.n_frames, count))
    return wanted


def _check_skipped(skipped: dict[str, str], n_videos: int, max_skipped: float) -> None:
    if not skipped:
        return
    share = len(skipped) / n_videos
    named = "; ".join(skipped[video] for video in sorted(skipped)[:LISTED_FILES])
    if share > max_skipped:
        raise UserError(
            f"{len(skipped)} of {n_videos} videos are damaged ({share:.1%}; "
            f"at most {max_skipped:.1%} may be skipped): {named}"
        )
    logger.warning("skipped %d of %d videos: %s", len(skipped), n_videos, named)


def _drop_rows(folder: Path, kept: list[bool]) -> None:
    """Rewrite frames.npy without the rows of skipped videos."""
    if all(kept):
        return
    old = folder / "frames.npy"
    whole = np.load(old, mmap_mode="r")
    new = folder / "kept.npy"
    rows = np.flatnonzero(kept)
    out = np.lib.format.open_memmap(new, "w+", np.uint8, (len(rows), *whole.shape[1:]))
    for start in range(0, len(rows), 256):
        out[start : start + 256] = whole[rows[start : start + 256]]
    out.flush()
    del whole, out
    new.replace(old)


def _encode(record: Record) -> dict[str, Any]:
    kind = "clip" if isinstance(record, ClipRecord) else "pair"
    return {"kind": kind, **dataclasses.asdict(record), "video": str(record.video)}


def _decode(row: dict[str, Any]) -> Record:
    values = {key: value for key, value in row.items() if key != "kind"}
    return RECORD_TYPES[row["kind"]](**{**values, "video": Path(values["video"])})
