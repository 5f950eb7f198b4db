"""`invact bench decode`: clips per second of the installed video decoders, side by side in one run.

A clip is what labeling reads: evenly spaced frames of a short video as RGB at a small size, by one
thread, the file opened anew for each. PyAV is what this project decodes with; each other library is used
as its documentation says, with its own scaling where it has one. Ratios are of processor time, which
depends less on what else runs: each has one thread. The difference is the mean of |pixel -
PyAV's pixel|: large when a library gives other frames, small when it scales in another way. Folders of
pictures, which the other libraries do not read, are measured too, by this project alone.
"""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import write_json
from invact_vla.core.machine import cpu_name
from invact_vla.core.timing import Ratio, take_turns
from invact_vla.data.video.frames import decode_frames, list_videos, probe
from invact_vla.data.video.video_io import write_video

CONTAINERS = {"webm": "vp9", "mp4": "h264"}
Shape = tuple[int, int]
Read = Callable[[Path, np.ndarray, Shape], np.ndarray]  # path, indices, size to scale to


@dataclass(frozen=True, kw_only=True)
class BenchDecodeConfig:
    """What to measure, and how often."""

    # folder of .webm or .mp4 files, or of folders of pictures; none: drawn ones of SSV2's shape
    videos: Path | None = None
    count: int = 8  # videos of each container, at most
    frames: int = 8  # frames read of each, evenly spaced
    size: int = 64  # height and width of the frames, pixels
    rounds: int = 10  # readings of all videos by each decoder; one more warms up
    out: Path | None = None  # JSON with every number

    def __post_init__(self) -> None:
        if min(self.count, self.frames, self.size, self.rounds) < 1:
            raise ValueError("count, frames, size and rounds must be at least 1")


def main(config: BenchDecodeConfig) -> int:
    """Measure and print; returns 0."""
    found = measure(config)
    print("\n".join(lines(found)))
    if config.out is not None:
        write_json(config.out, found)
    return 0


def measure(config: BenchDecodeConfig) -> dict[str, Any]:
    """All numbers, as they are written: {container: {decoder: clips per second, ratio, difference}}."""
    torch.set_num_threads(1)
    readers, missing = installed()
    with tempfile.TemporaryDirectory() as drawn:
        containers = _videos(config, Path(drawn))
        found = {name: _compare(config, readers, v, name) for name, v in containers.items()}
    asked = {name: getattr(config, name) for name in ("frames", "size", "rounds")}
    return {"machine": cpu_name(), **asked, "missing": missing, "containers": found}


def lines(found: Mapping[str, Any]) -> list[str]:
    """The numbers as text."""
    machine = found["machine"]
    text = [f"{found['frames']} frames of {found['size']} px per clip, one thread, {machine}"]
    for container, part in found["containers"].items():
        text.append(f"{container}: {part['videos']} videos, {part['shape']}")
        for name, row in part["decoders"].items():
            ratio = "x PyAV {median:.2f} [{low:.2f}, {high:.2f}]".format(**row["ratio"])
            text.append(
                f"  {name:10s} {row['clips_per_s']:8.1f} clips/s, {row['clips_per_cpu_s']:8.1f} per CPU "
                f"second  {ratio}  difference {row['difference']:.1f}"
            )
    if found["missing"]:
        text.append("not measured: " + ", ".join(f"{k} ({v})" for k, v in found["missing"].items()))
    return text


def _compare(
    config: BenchDecodeConfig, readers: Mapping[str, Read], videos: list[Path], name: str
) -> dict[str, Any]:
    counts = [probe(video).n_frames for video in videos]
    wanted = [np.rint(np.linspace(0, n - 1, config.frames)).astype(np.int64) for n in counts]
    sizes = [decode_frames(video, [0]).shape[1:3] for video in videos]
    shapes = [_scaled(height, width, config.size) for height, width in sizes]

    def reading(read: Read) -> Callable[[int], list[np.ndarray]]:
        return lambda _: [
            _center(read(video, rows, shape), config.size)
            for video, rows, shape in zip(videos, wanted, shapes, strict=True)
        ]

    sides = {k: reading(read) for k, read in readers.items() if k == "PyAV" or name in CONTAINERS}
    expected = np.stack(sides["PyAV"](0)).astype(np.int16)
    differences = {
        library: float(np.abs(np.stack(side(0)).astype(np.int16) - expected).mean())
        for library, side in sides.items()
    }
    timings = take_turns(sides, config.rounds, torch.device("cpu"), name)
    return {
        "videos": len(videos),
        "shape": f"{sizes[0][1]} x {sizes[0][0]}, {counts[0]} frames (the first)",
        "decoders": {
            library: {
                "clips_per_s": len(videos) / median(timing.clock),
                "clips_per_cpu_s": len(videos) / median(timing.processor),
                "ratio": asdict(Ratio.of(timing.processor, timings["PyAV"].processor)),
                "difference": differences[library],
            }
            for library, timing in timings.items()
        },
    }


def _videos(config: BenchDecodeConfig, drawn: Path) -> dict[str, list[Path]]:
    """{container, or "pictures": videos}: those of a folder, or drawn ones."""
    if config.videos is None:
        return {suffix: draw_videos(drawn, suffix, config.count) for suffix in CONTAINERS}
    found: dict[str, list[Path]] = {}
    for video in list_videos(config.videos):
        kind = "pictures" if video.is_dir() else video.suffix[1:]
        if kind in (*CONTAINERS, "pictures"):
            found.setdefault(kind, []).append(video)
    if not found:
        raise UserError(
            f"no .webm or .mp4 file below {config.videos}, and no folder of pictures: give a folder of "
            "videos"
        )
    return {kind: videos[: config.count] for kind, videos in found.items()}


def draw_videos(folder: Path, suffix: str, count: int) -> list[Path]:
    """Videos of SSV2's shape, 48 frames of 426 x 240 px at 12 per second: drifting plaids with grain."""
    paths = [folder / f"{number}.{suffix}" for number in range(count)]
    rows, columns = np.mgrid[:240, :426]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        speed = rng.uniform(0.05, 0.3, 3)
        waves = [
            np.sin(columns / (17 + k) + t * speed[k]) + np.sin(rows / (23 - k) - t * speed[k])
            for t in range(48)
            for k in range(3)
        ]
        frames = np.stack(waves).reshape(48, 3, 240, 426).transpose(0, 2, 3, 1)
        frames = 127 + 50 * frames + rng.normal(0, 3, frames.shape)
        write_video(path, frames.clip(0, 255).astype(np.uint8), 12, CONTAINERS[suffix])  # type: ignore[arg-type]
    return paths


def installed() -> tuple[dict[str, Read], dict[str, str]]:
    """({library: its reader}, {library: why it is not measured}) of all decoders; PyAV is first."""
    readers: dict[str, Read] = {"PyAV": _pyav}
    missing: dict[str, str] = {}
    for name, module, read in (
        ("torchcodec", "torchcodec", _torchcodec),
        ("OpenCV", "cv2", _opencv),
        ("decord2", "decord", _decord),
    ):
        try:
            if find_spec(module) is None:
                missing[name] = "not installed"
                continue
            __import__(module)
            readers[name] = read
        except (ImportError, OSError, RuntimeError) as error:  # FFmpeg's libraries are not there
            missing[name] = str(error).partition("\n")[0][:100]
    return readers, missing


def _scaled(height: int, width: int, size: int) -> Shape:
    scale = size / min(height, width)
    return max(size, round(height * scale)), max(size, round(width * scale))


def _center(frames: np.ndarray, size: int) -> np.ndarray:
    top, left = (frames.shape[1] - size) // 2, (frames.shape[2] - size) // 2
    return frames[:, top : top + size, left : left + size]


def _pyav(path: Path, wanted: np.ndarray, shape: Shape) -> np.ndarray:
    return decode_frames(path, wanted, min(shape))


def _torchcodec(path: Path, wanted: np.ndarray, shape: Shape) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder  # type: ignore[import-not-found]

    decoder = VideoDecoder(str(path), num_ffmpeg_threads=1)
    frames = decoder.get_frames_at(wanted.tolist()).data.float()
    small = torch.nn.functional.interpolate(frames, shape, mode="bilinear", antialias=True)
    return small.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def _opencv(path: Path, wanted: np.ndarray, shape: Shape) -> np.ndarray:
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    needed, found = set(wanted.tolist()), {}
    for number in range(int(wanted.max()) + 1):
        if not capture.grab():
            raise UserError(f"OpenCV read {number} frames of {path}: leave this video out")
        if number in needed:
            image = cv2.resize(capture.retrieve()[1], shape[::-1], interpolation=cv2.INTER_AREA)
            found[number] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    capture.release()
    return np.stack([found[number] for number in wanted.tolist()])


def _decord(path: Path, wanted: np.ndarray, shape: Shape) -> np.ndarray:
    from decord import VideoReader, cpu  # type: ignore[import-not-found]

    reader = VideoReader(str(path), ctx=cpu(0), height=shape[0], width=shape[1], num_threads=1)
    return reader.get_batch(wanted.tolist()).asnumpy()
