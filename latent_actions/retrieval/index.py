"""A gallery of clip vectors on disk, and the nearest clips of a query.

    <folder>/vectors.npy     float32 (N, D), rows of unit length
    <folder>/thumbnails.npy  uint8 (N, F, S, S, 3): a few frames of each clip
    <folder>/gallery.json    what made the vectors, and one entry a clip

Search is exact inner product. With FAISS installed its flat index finds the candidates, without it
NumPy does; both candidates are scored again in float64 and ordered by the same rule (nearest first,
lower row first in a tie), so the answer is the same.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder, read_json, write_json
from invact_vla.core.limits import inside, short
from latent_actions.retrieval.metric import normalize

Backend = Literal["auto", "faiss", "numpy"]
FORMAT = "invact-gallery/1"
_ROUNDING = 1e-5  # two float32 products of unit rows differ by less


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What is known of one clip of a gallery."""

    clip: str  # <moment>/<camera>
    verb: str
    text: str
    scene: str
    take: str
    view: str


@dataclass(frozen=True)
class Found:
    """The nearest clips of Q queries: rows int64 (Q, K), -1 where the gallery is too small;
    similarity float64 (Q, K), the cosine, NaN there."""

    rows: np.ndarray
    similarity: np.ndarray


class Gallery:
    """Vectors of clips with what is known of them. made_by: what the vectors come from."""

    def __init__(
        self, vectors: np.ndarray, entries: Sequence[Entry], thumbnails: np.ndarray, made_by: str
    ) -> None:
        sizes = len(vectors), len(entries), len(thumbnails)
        if len(set(sizes)) > 1 or not sizes[0]:
            raise ValueError(f"expected a clip or more, got vectors, entries, thumbnails: {sizes}")
        self.vectors, self.entries = normalize(vectors), tuple(entries)
        self.thumbnails, self.made_by = thumbnails, made_by

    def __len__(self) -> int:
        return len(self.entries)

    def row_of(self, clip: str) -> int:
        """Row of a clip by its name. UserError if there is none."""
        names = [entry.clip for entry in self.entries]
        if clip not in names:
            raise UserError(f"no clip {clip!r} in the gallery; it has, say, {names[0]!r}")
        return names.index(clip)

    def save(self, folder: Path) -> None:
        """Write the gallery, atomically."""
        with atomic_folder(Path(folder)) as temporary:
            np.save(temporary / "vectors.npy", self.vectors)
            np.save(temporary / "thumbnails.npy", self.thumbnails)
            rows = [asdict(entry) for entry in self.entries]
            content = {"format": FORMAT, "made_by": self.made_by, "entries": rows}
            write_json(temporary / "gallery.json", content)

    @classmethod
    def load(cls, folder: Path) -> "Gallery":
        """Read what `save` wrote. UserError on any other content."""
        folder = Path(folder)
        content = read_json(inside(folder, "gallery.json"))
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise UserError(f"{folder} is not a gallery ({FORMAT}): make it again")
        try:
            entries = [_entry(row) for row in content["entries"]]
            vectors, thumbnails = (_rows(inside(folder, f"{n}.npy")) for n in _DIMENSIONS)
            return cls(vectors, entries, thumbnails, str(content["made_by"]))
        except (ValueError, TypeError, LookupError, OSError, EOFError) as error:
            raise UserError(
                f"{folder} is a damaged gallery ({short(error)}): delete it and make it again"
            ) from error

    def nearest(
        self, queries: np.ndarray, top: int, *, leave_out: Sequence[np.ndarray] | None = None,
        backend: Backend = "auto",
    ) -> Found:  # fmt: skip
        """The `top` nearest clips of every query, exactly: float (Q, D) -> Found.

        leave_out: for each query the rows that must not be found."""
        if queries.ndim != 2 or queries.shape[1] != self.vectors.shape[1] or top < 1:
            width = self.vectors.shape[1]
            raise ValueError(f"expected queries (Q, {width}) and top >= 1: {queries.shape}, {top}")
        search = _candidates(self.vectors, backend)
        rows = np.full((len(queries), top), -1, np.int64)
        similarity = np.full((len(queries), top), np.nan)
        for number, query in enumerate(normalize(queries)):
            out = np.zeros(0, np.int64) if leave_out is None else np.asarray(leave_out[number])
            best, values = _exact(self.vectors, query, search, out, top)
            rows[number, : len(best)], similarity[number, : len(best)] = best, values
        return Found(rows, similarity)


def _entry(row: Any) -> Entry:
    entry = Entry(**row)
    if not all(isinstance(value, str) for value in vars(entry).values()):
        raise TypeError("an entry holds more than texts")
    return entry


_DIMENSIONS = {"vectors": (2, np.dtype(np.float32)), "thumbnails": (5, np.dtype(np.uint8))}


def _rows(path: Path) -> np.ndarray:
    """An array of a gallery, mapped. Raises ValueError for any other."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if (array.ndim, array.dtype) != _DIMENSIONS[path.stem]:
        raise ValueError(f"{path.stem} of {array.dtype} {array.shape}")
    return array


def has_faiss() -> bool:
    """Whether FAISS is installed (pip install invact-vla[index])."""
    return importlib.util.find_spec("faiss") is not None


def _exact(
    vectors: np.ndarray, query: np.ndarray, search: Any, out: np.ndarray, top: int
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and float64 similarities, best first: enough candidates that rounding cannot hide one."""
    wanted = top + 16
    while True:
        count = min(len(vectors), wanted + len(out))
        found = np.setdiff1d(search(query, count), out)
        values = vectors[found].astype(np.float64) @ query.astype(np.float64)
        order = np.lexsort((found, -values))
        enough = len(order) > top and values[order[top - 1]] > values.min() + 2 * _ROUNDING
        if enough or count == len(vectors):
            return found[order[:top]], values[order[:top]]
        wanted *= 4


def _candidates(vectors: np.ndarray, backend: Backend) -> Any:
    """A function (query (D,), count) -> rows of the `count` largest products, in any order."""
    if backend == "faiss" and not has_faiss():
        raise UserError("FAISS is not installed: pip install faiss-cpu, or --backend numpy")
    if backend == "numpy" or not has_faiss():
        return lambda query, count: np.argpartition(-(vectors @ query), count - 1)[:count]
    import faiss  # pyright: ignore[reportMissingImports]

    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.ascontiguousarray(vectors))
    return lambda query, count: index.search(np.ascontiguousarray(query[None]), count)[1][0]
