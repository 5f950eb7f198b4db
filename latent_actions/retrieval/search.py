"""`invact encoder search`: the clips nearest to a query clip, printed and as a page of pictures.

    <out>/search.html   the page
    <out>/search.txt    what is printed

The gallery of an encoder's vectors is made once and kept; see index.py.
"""

import logging
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, hash_json, hash_tree
from invact_vla.core.run_folder import open_run
from invact_vla.data.video.frames import SUFFIXES, probe
from invact_vla.data.video.pictures import PICTURES_FPS, at_rate
from invact_vla.html import media
from invact_vla.html.render import Html, write_page
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.inputs import sprites  # noqa: F401  registers the data source
from latent_actions.encoder.inputs.clips import ClipData, VideoClips
from latent_actions.encoder.inputs.video_input import as_clips
from latent_actions.retrieval.encoders import encoder_folder, evaluated
from latent_actions.retrieval.index import Backend, Entry, Found, Gallery
from latent_actions.video.records import Split

logger = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent / "templates"
PAGE_FILE = "search.html"
SHOWN_FRAMES = 4  # of each clip, side by side


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Which clips, and what is looked for."""

    POSITIONAL = "query"

    # clips of the gallery (<moment>/<camera>), or paths of video files or folders of pictures
    query: tuple[str, ...]
    encoder: Path  # encoder folder, or the run folder of its training
    out: Path = Path("runs/search")  # run folder
    data: ClipData = field(default_factory=VideoClips)  # clips of the gallery
    split: Split = "val"  # split whose clips are the gallery
    gallery: Path | None = None  # folder to keep the gallery in; default: <encoder>/gallery_<split>
    top: int = 10  # clips found for a query
    backend: Backend = "auto"  # auto (faiss if installed) | faiss | numpy: the same answer
    workers: int = 2  # decoding processes
    device: str = "auto"  # where networks run: auto | cpu | cuda | cuda:N | mps
    overwrite: bool = False  # replace a run folder of another search

    def __post_init__(self) -> None:
        if self.top < 1 or not self.query:
            raise ValueError(f"top must be >= 1 and query given, got {self.top} and {self.query}")


def main(config: SearchConfig) -> Path:
    """Print the nearest clips of every query, write the page; returns the run folder."""
    for query in config.query:
        if _is_video(query) and not Path(query).exists():
            raise UserError(f"no video {query}: correct the path, or name a clip of the gallery")
    torch.set_num_threads(1)
    encoder = InvActEncoder.from_pretrained(encoder_folder(config.encoder), config.device)
    gallery = open_gallery(config, encoder)
    fps = getattr(getattr(config.data, "source", None), "pictures_fps", PICTURES_FPS)
    queries = [_query(query, encoder, gallery, fps) for query in config.query]
    vectors, shown, leave_out = zip(*queries, strict=True)
    asked = np.stack(vectors)
    found = gallery.nearest(asked, config.top, leave_out=leave_out, backend=config.backend)
    text = format_found(config.query, gallery, found)
    run = open_run(config.out, config, _parents(config), config.overwrite)
    if not run.finished:
        write_search_page(run.folder / PAGE_FILE, config.query, shown, gallery, found)
        with atomic_file(run.folder / "search.txt") as temporary:
            temporary.write_text(text + "\n")
        run.finish({"clips": len(gallery)})
    print(text, end=f"\n{run.folder / PAGE_FILE}\n")
    return run.folder


def _parents(config: SearchConfig) -> dict[str, Path]:
    videos = {q: Path(q) for q in config.query if _is_video(q)}
    return {"encoder": encoder_folder(config.encoder), **config.data.parents(), **videos}


def open_gallery(config: SearchConfig, encoder: InvActEncoder) -> Gallery:
    """The kept gallery if it is of this encoder and these clips, else a new one."""
    root = encoder_folder(config.encoder)
    folder = config.gallery or root.parent / f"gallery_{config.split}"
    table = config.data.table(
        encoder.config.frames, folder.with_name(f"{folder.name}_frames"), config.workers,
        (config.split,),
    )  # fmt: skip
    names = ("verb", "text", "scene", "take", "view")
    entries = [
        Entry(
            clip=f"{table.moment[row]}/{table.camera[row]}",
            **{name: getattr(table, name)[row] for name in names},
        )
        for row in range(len(table))
    ]
    some = table.frames[:: max(1, len(table) // 64)]
    shown = [asdict(e) for e in entries]
    made_of = [hash_tree(root), shown, zlib.crc32(some.tobytes())]
    if encoder.config.duration_weight and table.seconds is not None:
        made_of.append(table.seconds.tolist())
    made_by = hash_json(made_of)
    if (folder / "gallery.json").exists():
        gallery = Gallery.load(folder)
        if gallery.made_by == made_by:
            return gallery
    logger.info("embedding %d clips", len(table))
    parts = np.array_split(np.arange(len(table)), max(1, len(table) // 256))
    vectors = np.concatenate([encoder.embed(table.read(part)) for part in parts])
    vectors = evaluated(encoder, "encoder").timed(vectors, table.seconds)
    thumbnails = np.concatenate([_few(table.read(part)) for part in parts])
    gallery = Gallery(vectors, entries, thumbnails, made_by)
    gallery.save(folder)
    return gallery


def _query(
    query: str, encoder: InvActEncoder, gallery: Gallery, fps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vector (D,), frames to show (F, S, S, 3) and gallery rows to leave out, of one query: the scene
    of a query that is a clip of the gallery. fps: rate of a folder of pictures."""
    if _is_video(query):
        clip = as_clips(query, encoder.config.frames, encoder.config.size)
        vector = encoder.embed(clip)
        if gallery.vectors.shape[1] > vector.shape[1]:  # it says durations
            seconds = np.array([probe(at_rate(Path(query), fps)).duration_s])
            vector = evaluated(encoder, "encoder").timed(vector, seconds)
        return vector[0], _few(clip)[0], np.zeros(0, np.int64)
    row = gallery.row_of(query)
    entry = gallery.entries[row]
    same = [n for n, other in enumerate(gallery.entries) if other.scene == entry.scene]
    return gallery.vectors[row], gallery.thumbnails[row], np.array(same, np.int64)


def _is_video(query: str) -> bool:
    """A file of a video container, there or not, or a folder of pictures."""
    return Path(query).suffix.lower() in SUFFIXES or Path(query).is_dir()


def _few(clips: np.ndarray) -> np.ndarray:
    """SHOWN_FRAMES frames of each clip, evenly spaced: (N, T, ...) -> (N, F, ...)."""
    picks = np.linspace(0, clips.shape[1] - 1, SHOWN_FRAMES).round().astype(int)
    return clips[:, picks]


def format_found(queries: Sequence[str], gallery: Gallery, found: Found) -> str:
    """One line per found clip: rank, cosine, verb, clip, text."""
    lines = []
    for number, query in enumerate(queries):
        lines.append(f"{query}  {_about(_entry(query, gallery))}".rstrip())
        for place, (entry, _, cosine) in enumerate(_near(number, gallery, found), 1):
            lines.append(f"{place:>4}  {cosine:+.3f}  {entry.verb:<14}  {entry.clip}  {entry.text}")
    return "\n".join(lines)


def write_search_page(
    path: Path, queries: Sequence[str], shown: Sequence[np.ndarray], gallery: Gallery, found: Found
) -> Path:
    """The page: a section per query, a strip of frames per clip; a frame marks the query's verb."""
    sections = []
    for number, query in enumerate(queries):
        own = _entry(query, gallery)
        near = [
            {
                "entry": entry,
                "cosine": cosine,
                "picture": _strip(thumbnails, entry.clip),
                # how it is framed: by whether it has the query's verb, where that is known
                "kind": "" if own is None else "success" if entry.verb == own.verb else "failure",
            }
            for entry, thumbnails, cosine in _near(number, gallery, found)
        ]
        picture = _strip(shown[number], query)
        sections.append({"name": query, "about": _about(own), "picture": picture, "found": near})
    values = {"title": "Nearest clips", "scope": "", "clips": len(gallery), "queries": sections}
    return write_page(path, "search.html.j2", TEMPLATES, **values)


def _near(number: int, gallery: Gallery, found: Found) -> Iterator[tuple[Entry, np.ndarray, float]]:
    """What was found for a query, nearest first, with thumbnails and cosine."""
    for row, cosine in zip(found.rows[number], found.similarity[number], strict=True):
        if row >= 0:
            yield gallery.entries[row], gallery.thumbnails[row], cosine


def _strip(frames: np.ndarray, label: str) -> Html:
    """Frames side by side, uint8 (F, S, S, 3)."""
    return media.frame(np.concatenate(list(frames), axis=1), label)


def _entry(query: str, gallery: Gallery) -> Entry | None:
    """The query as a clip of the gallery, if it is one."""
    return next((entry for entry in gallery.entries if entry.clip == query), None)


def _about(entry: Entry | None) -> str:
    return f"({entry.verb}: {entry.text})" if entry else ""
