"""`invact encoder search`: the clips nearest to a query clip, printed and as a page of pictures.

    <out>/search.html   the page
    <out>/search.txt    what is printed

The gallery of an encoder's vectors is made once and kept; see index.py.
"""

import logging
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, hash_json, hash_tree
from invact_vla.core.run_folder import open_run
from invact_vla.html import media
from invact_vla.html.render import Html, write_page
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.inputs import sprites  # noqa: F401  registers the data source
from latent_actions.encoder.inputs.clips import ClipData, ClipTable, VideoClips
from latent_actions.encoder.inputs.video_input import as_clips
from latent_actions.retrieval.encoders import encoder_folder
from latent_actions.retrieval.index import Backend, Entry, Found, Gallery
from latent_actions.video.records import Split

logger = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent / "templates"
PAGE_FILE = "search.html"
SHOWN_FRAMES = 4  # of each clip, side by side
_VIDEOS = (".mp4", ".webm", ".avi", ".mkv", ".mov")


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """Which clips, and what is looked for."""

    POSITIONAL = "query"

    query: tuple[str, ...]  # clips of the gallery (<moment>/<camera>), or paths of video files
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
    torch.set_num_threads(1)
    encoder = InvActEncoder.from_pretrained(encoder_folder(config.encoder), config.device)
    gallery = open_gallery(config, encoder)
    vectors, shown, leave_out = [], [], []
    for query in config.query:
        vector, frames, out = _query(query, encoder, gallery)
        vectors.append(vector)
        shown.append(frames)
        leave_out.append(out)
    found = gallery.nearest(
        np.stack(vectors), config.top, leave_out=leave_out, backend=config.backend
    )
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
    entries = _entries(table)
    some = table.frames[:: max(1, len(table) // 64)]
    made_by = hash_json([hash_tree(root), [asdict(e) for e in entries], zlib.crc32(some.tobytes())])
    if (folder / "gallery.json").exists():
        gallery = Gallery.load(folder)
        if gallery.made_by == made_by:
            return gallery
    logger.info("embedding %d clips", len(table))
    rows = np.arange(len(table))
    parts = np.array_split(rows, max(1, len(rows) // 256))
    vectors = np.concatenate([encoder.embed(table.read(part)) for part in parts])
    thumbnails = np.concatenate([_few(table.read(part)) for part in parts])
    gallery = Gallery(vectors, entries, thumbnails, made_by)
    gallery.save(folder)
    return gallery


def _entries(table: ClipTable) -> list[Entry]:
    names = ("verb", "text", "scene", "take", "view")
    return [
        Entry(
            clip=f"{table.moment[row]}/{table.camera[row]}",
            **{name: getattr(table, name)[row] for name in names},
        )
        for row in range(len(table))
    ]


def _query(
    query: str, encoder: InvActEncoder, gallery: Gallery
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vector (D,), frames to show (F, S, S, 3) and gallery rows to leave out, of one query: the scene
    of a query that is a clip of the gallery."""
    if _is_video(query):
        if not Path(query).is_file():
            raise UserError(f"no video {query}: correct the path, or name a clip of the gallery")
        clip = as_clips(query, encoder.config.frames, encoder.config.input_size)
        return encoder.embed(clip)[0], _few(clip)[0], np.zeros(0, np.int64)
    row = gallery.row_of(query)
    entry = gallery.entries[row]
    same = [n for n, other in enumerate(gallery.entries) if other.scene == entry.scene]
    return gallery.vectors[row], gallery.thumbnails[row], np.array(same, np.int64)


def _is_video(query: str) -> bool:
    return Path(query).suffix.lower() in _VIDEOS


def _few(clips: np.ndarray) -> np.ndarray:
    """SHOWN_FRAMES frames of each clip, evenly spaced: (N, T, ...) -> (N, F, ...)."""
    picks = np.linspace(0, clips.shape[1] - 1, SHOWN_FRAMES).round().astype(int)
    return clips[:, picks]


def format_found(queries: Sequence[str], gallery: Gallery, found: Found) -> str:
    """One line per found clip: rank, cosine, verb, clip, text."""
    lines = []
    for number, query in enumerate(queries):
        lines.append(f"{query}  {_about(query, gallery)}".rstrip())
        for place, row in enumerate(found.rows[number]):
            if row >= 0:
                entry, value = gallery.entries[row], found.similarity[number, place]
                lines.append(
                    f"{place + 1:>4}  {value:+.3f}  {entry.verb:<14}  {entry.clip}  {entry.text}"
                )
    return "\n".join(lines)


def write_search_page(
    path: Path, queries: Sequence[str], shown: Sequence[np.ndarray], gallery: Gallery, found: Found
) -> Path:
    """The page: a section per query, a strip of frames per clip; a frame marks the query's verb."""
    sections = []
    for number, query in enumerate(queries):
        verb = _verb(query, gallery)
        near = [
            {
                "entry": gallery.entries[row],
                "cosine": found.similarity[number, place],
                "picture": _strip(gallery.thumbnails[row], gallery.entries[row].clip),
                "kind": _kind(gallery.entries[row].verb, verb),
            }
            for place, row in enumerate(found.rows[number])
            if row >= 0
        ]
        about, picture = _about(query, gallery), _strip(shown[number], query)
        sections.append({"name": query, "about": about, "picture": picture, "found": near})
    values = {"title": "Nearest clips", "scope": "", "clips": len(gallery), "queries": sections}
    return write_page(path, "search.html.j2", TEMPLATES, **values)


def _kind(verb: str, wanted: str | None) -> str:
    """How a clip is framed: by whether it has the query's verb, where that is known."""
    return "" if wanted is None else "success" if verb == wanted else "failure"


def _strip(frames: np.ndarray, label: str) -> Html:
    """Frames side by side, uint8 (F, S, S, 3)."""
    return media.frame(np.concatenate(list(frames), axis=1), label)


def _verb(query: str, gallery: Gallery) -> str | None:
    found = [entry.verb for entry in gallery.entries if entry.clip == query]
    return found[0] if found else None


def _about(query: str, gallery: Gallery) -> str:
    found = [entry for entry in gallery.entries if entry.clip == query]
    return f"({found[0].verb}: {found[0].text})" if found else ""
