"""FrameStore: clips decoded once into one memory-mapped array, so that training never decodes; or on
the fly, at every reading.

    <folder>/frames.npy      uint8 (N, T, H, W, 3); absent when decoding on the fly
    <folder>/records.json    the records, in row order
    <folder>/store.json      sizes, what was asked for, the videos that could not be read
    <folder>/report.json     what was kept and dropped, by the index and by decoding, and why

Building is parallel over videos, atomic, and gives the same bytes again; a damaged store, or one that an
older way of decoding made, is built anew. Damaged videos go to a
counted list of skipped files; more of them than `max_skipped` is an error. A clip that its video
ends in is cut there if half of it is left, and dropped otherwise.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder, hash_json, read_json, write_json
from invact_vla.core.limits import short
from invact_vla.data.video.display import Fit
from invact_vla.data.video.frames import VideoError, file_stamp, open_video
from invact_vla.data.video.video_info import VERSION, VideoInfo, clip_frames, pair_frames
from latent_actions.video.decode_errors import Damage, damage_of
from latent_actions.video.lazy_frames import LazyFrames
from latent_actions.video.probes import PROBES, probe_all
from latent_actions.video.records import ClipRecord, Record, decode_record, encode_record
from latent_actions.video.workers import run_parallel

logger = logging.getLogger(__name__)


class FrameStore:
    """Decoded frames of records. store[i]: uint8 (T, H, W, 3); store.batch(indices): (B, T, H, W,
    3).

    frames: uint8 (N, T, H, W, 3), read-only: memory-mapped, or decoded at every reading. records:
    one a row. skipped: messages of the videos that could not be read, whose records are left out.
    """

    def __init__(self, folder: Path, frames: Any, records: list[Any], skipped: list[str]):
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
        index: Mapping[str, Any] | None = None,
    ) -> "FrameStore":
        """Decode `frames` frames of every record at `size` px, unless the folder has just that
        already.

        Clips: frames at the midpoints of equal parts of the span. Pairs: from `frame` to
        `frame_end`, both included (frames=2 is exactly the pair). index: the report of the index,
        kept in report.json. Raises UserError when there is nothing to decode or when more than the
        share `max_skipped` of the videos, or of the clips, is damaged.
        """
        request = _request(records, folder, frames, size, fit)
        if (folder / "store.json").exists():
            try:
                if read_json(folder / "store.json")["request"] == request:
                    return cls.open(folder)
            except (UserError, LookupError, TypeError) as error:
                logger.warning("%s is built again: %s", folder, short(error))
        with atomic_folder(folder) as temporary:
            found = _fill(records, temporary, frames, size, workers, fit)
            kept = found.check(records, max_skipped)
            _drop_rows(temporary, kept)
            records = [record for record, keep in zip(records, kept, strict=True) if keep]
            _write_state(temporary, records, request, found, index)
        return cls.open(folder)

    @classmethod
    def on_the_fly(
        cls,
        records: Sequence[Record],
        folder: Path,
        frames: int = 8,
        size: int = 64,
        workers: int = 2,
        fit: Fit = "crop",
        max_skipped: float = 0.01,
        index: Mapping[str, Any] | None = None,
    ) -> "FrameStore":
        """As `build`, but frames are decoded at every reading and none are kept.

        The videos are only probed here (their frames counted), in parallel, with the same limits
        and the same report. A video that turns out damaged later is a VideoError when it is read.
        """
        request = _request(records, folder, frames, size, fit) | {"on_the_fly": True}
        folder.mkdir(parents=True, exist_ok=True)
        probed = probe_all([record.video for record in records], workers, folder / PROBES)
        found = Damage()
        for row, record in enumerate(records):
            found.look(row, record, probed[record.video])
        kept = found.check(records, max_skipped)
        records = [record for record, keep in zip(records, kept, strict=True) if keep]
        _write_state(folder, records, request, found, index)
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "FrameStore":
        """Open a built store. Raises UserError if the folder is not one."""
        folder = Path(folder)
        rows, state = read_json(folder / "records.json"), read_json(folder / "store.json")
        try:
            records = [decode_record(row) for row in rows]
            if state["request"].get("on_the_fly"):
                return cls(folder, _lazy(folder, records, state), records, state["skipped"])
            frames = np.load(folder / "frames.npy", mmap_mode="r", allow_pickle=False)
        except (ValueError, TypeError, LookupError, AttributeError, OSError, EOFError) as error:
            raise UserError(
                f"{folder} is a damaged store ({short(error)}): delete it and build it again"
            ) from error
        if len(frames) != len(records):
            raise UserError(
                f"{folder} has {len(frames)} rows of frames for {len(records)} records: "
                "delete the folder and build it again"
            )
        return cls(Path(folder), frames, records, state["skipped"])


def wanted_frames(record: Record, info: VideoInfo, count: int) -> np.ndarray:
    """Indices of the `count` frames of a record, int64. info: the length of its video."""
    if isinstance(record, ClipRecord):
        span = record.start_s, record.end_s
        return clip_frames(*span, info.fps, info.n_frames, count, info.times)
    return pair_frames(record.frame, record.frame_end, count, info)


def _lazy(folder: Path, records: Sequence[Record], state: dict[str, Any]) -> LazyFrames:
    """Frames of a store without frames. Raises VideoError if a video has gone since."""
    request = state["request"]
    videos = [record.video for record in records]
    probed = probe_all(videos, cache=folder / PROBES)
    infos: list[VideoInfo] = []
    for record in records:
        info = probed[record.video]
        if isinstance(info, VideoError):
            raise info
        infos.append(info)
    wanted = [wanted_frames(r, i, request["frames"]) for r, i in zip(records, infos, strict=True)]
    return LazyFrames(videos, infos, wanted, request["size"], request["fit"])


def _write_state(
    folder: Path,
    records: Sequence[Record],
    request: dict[str, Any],
    found: Damage,
    index: Mapping[str, Any] | None,
) -> None:
    write_json(folder / "records.json", [encode_record(record) for record in records])
    write_json(folder / "store.json", {"request": request, "skipped": found.messages()})
    report = {"kept": len(records), **found.as_json()}
    write_json(folder / "report.json", {"index": dict(index or {}), "decoding": report})


def _request(
    records: Sequence[Record], folder: Path, frames: int, size: int, fit: Fit
) -> dict[str, Any]:
    """What a store was built from: sizes, the records, and the sizes in bytes of their videos."""
    if not records:
        raise UserError(f"no clips to decode into {folder}: check the source's path and split")
    videos = sorted({record.video for record in records})
    bytes_of = [[str(path), (file_stamp(path) or (-1,))[0]] for path in videos]
    return {
        "frames": frames,
        "size": size,
        "fit": fit,
        "decoding": VERSION,
        "records": hash_json([_what_is_decoded(record) for record in records]),
        "videos": hash_json(bytes_of),
    }


def _what_is_decoded(record: Record) -> dict[str, Any]:
    """A record without what says nothing of its frames: which camera is best."""
    return {name: value for name, value in encode_record(record).items() if name != "best"}


def _fill(
    records: Sequence[Record], folder: Path, frames: int, size: int, workers: int, fit: Fit
) -> Damage:
    """Decode all records into folder/frames.npy, a row each; returns what could not be used."""
    path = folder / "frames.npy"
    shape = (len(records), frames, size, size, 3)
    np.lib.format.open_memmap(path, "w+", np.uint8, shape).flush()
    by_video: dict[Path, list[tuple[int, Record]]] = defaultdict(list)
    for row, record in enumerate(records):
        by_video[record.video].append((row, record))
    jobs = [(video, rows, path, frames, size, fit) for video, rows in by_video.items()]
    found = Damage()
    with tqdm(total=len(jobs), desc="decode", unit="video", mininterval=1.0) as bar:
        for part in run_parallel(_decode_video, jobs, workers):
            bar.update()
            found.update(part)
    np.lib.format.open_memmap(path, "r+").flush()
    return found


def _decode_video(job: tuple) -> Damage:
    """Decode all records of one video in one pass, into their rows."""
    video, rows, path, count, size, fit = job
    found = Damage()
    try:
        with open_video(video) as opened:
            info = opened.info
            rows = [(row, record) for row, record in rows if found.look(row, record, info)]
            if not rows:
                return found
            wanted = [wanted_frames(record, info, count) for _, record in rows]
            unique, inverse = np.unique(np.concatenate(wanted), return_inverse=True)
            decoded = opened.frames(unique, size, fit)
    except VideoError as error:
        found.videos[video] = (damage_of(video), str(error))
        return found
    array = np.load(path, mmap_mode="r+")
    for (row, _), frames in zip(rows, np.split(inverse.reshape(-1), len(rows)), strict=True):
        array[row] = decoded[frames]
    return found


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
