"""FrameStore: clips decoded once into one memory-mapped array, so that training never decodes; or on
the fly, at every reading.

    <folder>/frames.npy      uint8 (N, T, H, W, 3); absent when decoding on the fly
    <folder>/records.json    the records, in row order
    <folder>/store.json      sizes, what was asked for, the videos that could not be read
    <folder>/report.json     what was kept and dropped, by the index and by decoding, and why

Building is parallel over videos, atomic, and gives the same bytes again; a damaged store, or one that
an older way of decoding made, is built anew. Damaged videos go to a counted list of skipped files; more
of them than `max_skipped` is an error. A clip that its video ends in is cut there if half of it is left,
and dropped otherwise.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from invact_vla.core.errors import UserError
from invact_vla.core.files import alone, atomic_folder, hash_json, read_json, write_json
from invact_vla.core.limits import short
from invact_vla.data.video.display import Fit
from invact_vla.data.video.frames import VideoError, decode_frames, file_stamp, open_video
from invact_vla.data.video.video_info import VERSION, VideoInfo, clip_frames, pair_frames
from invact_vla.untrusted.arrays import map_frames
from latent_actions.video.probes import PROBES, probe_all
from latent_actions.video.records import ClipRecord, Record, decode_record, encode_record
from latent_actions.video.skip_report import Damage, damage_of
from latent_actions.video.workers import run_parallel

logger = logging.getLogger(__name__)


class FrameStore:
    """Decoded frames of records. store[i]: uint8 (T, H, W, 3); store.batch(indices): (B, T, H, W,
    3).

    frames: uint8 (N, T, H, W, 3), read-only: memory-mapped, or decoded at every reading. records:
    one a row. skipped: messages of the videos that could not be read, whose records are left out."""

    def __init__(self, folder: Path, frames: Any, records: list[Any], skipped: list[str]):
        self.folder, self.frames, self.records, self.skipped = folder, frames, records, skipped

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
        on_the_fly: bool = False,
    ) -> "FrameStore":
        """Decode `frames` frames of every record at `size` px, unless the folder has just that
        already.

        Clips: frames at the midpoints of equal parts of the span. Pairs: from `frame` to
        `frame_end`, both included (frames=2 is exactly the pair). index: the report of the index,
        kept in report.json. Raises UserError when there is nothing to decode or when more than the
        share `max_skipped` of the videos, or of the clips, is damaged.

        on_the_fly: frames are decoded at every reading and none are kept; the videos are only probed
        here, with the same limits and the same report. One that turns out damaged later is a VideoError
        when it is read."""
        request = _request(records, folder, frames, size, fit)
        with alone(folder):
            if on_the_fly:
                folder.mkdir(parents=True, exist_ok=True)
                probed = probe_all([record.video for record in records], workers, folder / PROBES)
                found = Damage()
                for row, record in enumerate(records):
                    found.look(row, record, probed[record.video])
                request["on_the_fly"] = True
                _write_state(folder, records, request, found, max_skipped, index)
                return cls.open(folder)
            if (folder / "store.json").exists():
                try:
                    known = read_json(folder / "store.json")["request"]
                    if {"times": request["times"], **known} == request:
                        return cls.open(folder)
                except (UserError, LookupError, TypeError) as error:
                    logger.warning("%s is built again: %s", folder, short(error))
            with atomic_folder(folder) as temporary:
                found = _fill(records, temporary, frames, size, workers, fit)
                kept = _write_state(temporary, records, request, found, max_skipped, index)
                _drop_rows(temporary / "frames.npy", kept)
            return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "FrameStore":
        """Open a built store. Raises UserError if the folder is not one, VideoError if it has no frames
        and a video has gone since."""
        folder = Path(folder)
        rows, state = read_json(folder / "records.json"), read_json(folder / "store.json")
        try:
            records = [decode_record(row) for row in rows]
            if state["request"].get("on_the_fly"):
                frames: Any = LazyFrames(records, state["request"], folder / PROBES)
            else:
                count, size = state["request"]["frames"], state["request"]["size"]
                frames = map_frames(folder / "frames.npy", (len(records), count, size, size, 3))
            return cls(folder, frames, records, state["skipped"])
        except (ValueError, TypeError, LookupError, AttributeError, OSError, EOFError) as error:
            raise UserError(
                f"{folder} is a damaged store ({short(error)}): delete it and build it again"
            ) from error


class LazyFrames:
    """Clips that are decoded when they are read, uint8 (N, T, size, size, 3) to index by a row or by
    rows: an array without the memory of one.

    Reading jumps to the key frame before the clip, so its cost does not grow with the length of the
    video. Raises VideoError if a file is damaged: no other clip is put in its place."""

    dtype = np.dtype(np.uint8)

    def __init__(self, records: Sequence[Record], request: Mapping[str, Any], probes: Path) -> None:
        """request: "frames" of each clip, "size" and "fit". probes: cache of the videos' lengths."""
        probed = probe_all([record.video for record in records], cache=probes)
        self._clips: list[tuple[Path, VideoInfo, np.ndarray]] = []
        for record in records:
            info = probed[record.video]
            if isinstance(info, VideoError):
                raise info
            self._clips.append((record.video, info, wanted_frames(record, info, request["frames"])))
        self._size, self._fit = request["size"], request["fit"]
        self.shape = (len(records), request["frames"], self._size, self._size, 3)

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, rows: int | slice | Sequence[int] | np.ndarray) -> np.ndarray:
        picked = np.arange(len(self))[rows]
        found = np.zeros((picked.size, *self.shape[1:]), self.dtype)
        for frames, row in zip(found, picked.reshape(-1), strict=True):
            video, info, wanted = self._clips[row]
            frames[:] = decode_frames(video, wanted, self._size, self._fit, seek=True, info=info)
        return found if picked.ndim else found[0]


def wanted_frames(record: Record, info: VideoInfo, count: int) -> np.ndarray:
    """Indices of the `count` frames of a record, int64. info: the length of its video."""
    if isinstance(record, ClipRecord):
        span = record.start_s, record.end_s
        return clip_frames(*span, info.fps, info.n_frames, count, info.times)
    return pair_frames(record.frame, record.frame_end, count, info)


def _write_state(
    folder: Path,
    records: Sequence[Record],
    request: dict[str, Any],
    found: Damage,
    max_skipped: float,
    index: Mapping[str, Any] | None,
) -> list[bool]:
    """Write all but the frames; returns which rows are kept. UserError for too much damage."""
    rows = found.check(records, max_skipped)
    records = [
        replace(record, end_s=found.ends[row]) if row in found.ends else record
        for row, record in enumerate(records)
    ]
    kept = [encode_record(record) for record, keep in zip(records, rows, strict=True) if keep]
    write_json(folder / "records.json", kept)
    write_json(folder / "store.json", {"request": request, "skipped": found.messages()})
    report = {"kept": len(kept), **found.as_json()}
    write_json(folder / "report.json", {"index": dict(index or {}), "decoding": report})
    return rows


def _request(
    records: Sequence[Record], folder: Path, frames: int, size: int, fit: Fit
) -> dict[str, Any]:
    """What a store was built from: sizes, the records (but for which camera is best, which says nothing
    of the frames), and the sizes in bytes of their videos and when they changed."""
    if not records:
        raise UserError(f"no clips to decode into {folder}: check the source's path and split")
    decoded = [{k: v for k, v in encode_record(r).items() if k != "best"} for r in records]
    videos = sorted({record.video for record in records})
    stamps = [file_stamp(path) or (-1, -1) for path in videos]
    return {
        "frames": frames,
        "size": size,
        "fit": fit,
        "decoding": VERSION,
        "records": hash_json(decoded),
        "videos": hash_json([[str(p), stamp[0]] for p, stamp in zip(videos, stamps, strict=True)]),
        "times": hash_json([stamp[1] for stamp in stamps]),
    }


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
    parts = run_parallel(_decode_video, jobs, workers)
    for part in tqdm(parts, "decode", len(jobs), unit="video", mininterval=1.0):
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


def _drop_rows(path: Path, kept: list[bool]) -> None:
    """Rewrite an array without the rows of skipped videos."""
    if all(kept):
        return
    whole, rows = np.load(path, mmap_mode="r"), np.flatnonzero(kept)
    new = path.with_name("kept.npy")
    out = np.lib.format.open_memmap(new, "w+", np.uint8, (len(rows), *whole.shape[1:]))
    for start in range(0, len(rows), 256):
        out[start : start + 256] = whole[rows[start : start + 256]]
    out.flush()
    del whole, out
    new.replace(path)
