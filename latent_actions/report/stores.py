"""What is known of a label store: its labels, its vectors, and what its run folder and its source say.

A run folder of `invact latent label` says which labeler and which source made the store; the source
says the verb, the place and the camera of each clip. Of a file alone only the labels are known.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.core.limits import short
from invact_vla.data.label_store import LabelStore, read_labels, read_vectors
from invact_vla.data.source_files import read_columns
from invact_vla.data.video.frames import file_stamp
from latent_actions.labelers.label import LabelConfig
from latent_actions.report.probes import one_hot
from latent_actions.report.truth import AUTO, truth_folder
from latent_actions.video.records import ClipRecord

logger = logging.getLogger(__name__)
CONTROLS = ("random", "shuffled")  # labelers that cannot mean anything
UPPER = ("true_actions", "vpt")  # labelers that were given true actions
T = TypeVar("T")


class Row(NamedTuple):
    """What is known of one pair beside its codes; "" where it is not."""

    verb: str
    scene: str
    take: str
    moment: str
    camera: str
    view: str


@dataclass(frozen=True)
class Labeled:
    """A store under report. name: of its own in the report; vectors: float32 (N, D) or None; config:
    of the run that made it; videos: the root of its videos, where they are at hand; clips: clip id
    -> record; places: name of a video -> (scene, camera) that the truth knows; notes: what could
    not be read."""

    name: str
    store: LabelStore
    vectors: np.ndarray | None = None
    folder: Path | None = None
    config: LabelConfig | None = None
    videos: Path | None = None
    clips: dict[str, ClipRecord] = field(default_factory=dict)
    places: dict[str, tuple[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def codes(self) -> np.ndarray:
        """int64 (N, K)."""
        return self.store.labels.codes

    @property
    def codebook_size(self) -> int:
        return self.store.identity.codebook_size

    @property
    def is_control(self) -> bool:
        """Whether the labeler cannot be told to be used: codes without meaning, or with the truth."""
        return self.store.identity.labeler in (*CONTROLS, *UPPER)

    @property
    def one_hot(self) -> np.ndarray:
        """float64 (N, K * C)."""
        return one_hot(self.codes, self.codebook_size)

    @cached_property
    def rows(self) -> list[Row]:
        """What is known of each pair."""
        return [
            self._row(*row)
            for row in zip(self.store.video_id, self.store.path, self.store.text, strict=True)
        ]

    @cached_property
    def groups(self) -> list[str]:
        """What shares a fold and is drawn whole: the take, or the video."""
        return [row.take for row in self.rows]

    def _row(self, video_id: str, path: str, text: str) -> Row:
        clip = self.clips.get(video_id)
        scene, camera = self.places.get(Path(path).stem, ("", ""))
        if clip is None:
            return Row(text, scene, path, path, camera, "")
        own = clip.scene if clip.scene != clip.clip_id else ""
        camera = camera or (clip.camera if clip.camera != "video" else "")
        return Row(clip.verb or text, own or scene, clip.take, clip.moment_id, camera, clip.view)

    def select(self, rows: np.ndarray) -> "Labeled":
        """Some of the pairs: int64 (n,)."""
        vectors = None if self.vectors is None else self.vectors[rows]
        return replace(self, store=self.store.select(rows), vectors=vectors)


def open_stores(
    paths: Sequence[Path], roots: Sequence[Path], most: int, truth: str = AUTO
) -> list[Labeled]:
    """Stores by their files or run folders, of at most `most` pairs each, whole videos of them, the
    same ones of stores of the same pairs. roots: where videos may lie, besides what run folders
    say; truth: see truth.py."""
    files = [_store_file(Path(path)) for path in paths]
    if len(set(files)) < len(files):
        raise UserError("a label store is named twice: give each once")
    stores = [read_labels(file) for file in files]
    names = _names(files, [store.identity.labeler for store in stores])
    found = []
    for name, file, store in zip(names, files, stores, strict=True):
        labeled = _open(name, file, store, roots)
        labeled = labeled.select(_whole_videos(store, most))
        found.append(replace(labeled, places=_places(truth_folder(truth, labeled.videos))))
    return found


def _store_file(path: Path) -> Path:
    """The label store that a path means: of a run folder the labels of "val", or its only ones."""
    if not path.is_dir():
        return path
    inside = sorted(path.glob("labels_*.parquet"))
    held_out = [file for file in inside if file.stem == "labels_val"]
    if not inside or (len(inside) > 1 and not held_out):
        raise UserError(
            f"{path} has no labels_val.parquet: give a run folder of `invact latent label`, or a file"
        )
    return (held_out or inside)[0]


def _names(files: Sequence[Path], labelers: Sequence[str]) -> list[str]:
    """The labeler's name where it is the only one of its kind, else with the name of its folder, of its
    file, or all of its path: what sets the stores apart."""
    words = [[f.parent.name for f in files], [f.name for f in files], [str(f) for f in files]]
    alone = [labelers.count(name) == 1 for name in labelers]
    names = list(labelers)
    for more in words:
        if len(set(names)) == len(names):
            break
        names = [
            name if own else f"{name} ({word})"
            for name, own, word in zip(labelers, alone, more, strict=True)
        ]
    return names


def _whole_videos(store: LabelStore, most: int) -> np.ndarray:
    """Rows of at most `most` pairs: all, or whole videos in an order that their keys decide."""
    if len(store) <= most:
        return np.arange(len(store))
    keys = np.array(store.video_key)
    count: dict[str, int] = dict(zip(*np.unique(keys, return_counts=True), strict=True))
    kept, total = set(), 0
    for key in sorted(count):  # keys are hashes: their order is as good as drawn
        if total + count[key] <= most or not kept:
            kept.add(key)
            total += count[key]
    return np.flatnonzero(np.isin(keys, list(kept)))


def _open(name: str, file: Path, store: LabelStore, roots: Sequence[Path]) -> Labeled:
    """A store with what its run folder says; what cannot be read is a note."""
    folder, notes = file.parent, []
    config = _config(folder, notes)
    vectors = None
    if (
        vector_file := folder / file.name.replace("labels_", "vectors_")
    ).is_file() and vector_file != file:
        try:
            vectors = read_vectors(vector_file, store)
        except UserError as error:
            notes.append(f"vectors left out: {error}")
    videos, clips = _videos(store, [*roots, *([config.pairs.source.root] if config else [])]), {}
    if videos is None and len(store):
        notes.append(
            f"no videos at hand: {store.path[0]} lies in none of the roots; give --videos ROOT"
        )
    if config is not None and videos is not None:
        clips = _clips(replace(config.pairs.source, root=videos), store, notes)
    return Labeled(name, store, vectors, folder, config, videos, clips, notes=tuple(notes))


def _config(folder: Path, notes: list[str]) -> LabelConfig | None:
    """The config of a labeling run, its paths found again where the run folder was moved or is looked
    at from elsewhere."""
    file = folder / "config.yaml"
    if not file.is_file():
        notes.append(
            f"{folder} is no run folder: the labeler and the places of its clips are not known"
        )
        return None
    try:
        return relocated(parse_config(LabelConfig, ["--config_path", str(file)]), folder)
    except UserError as error:
        notes.append(f"the config of {folder} cannot be read ({short(error)})")
        return None


def relocated(config: T, folder: Path) -> T:
    """A config whose relative paths that lead nowhere from here are taken from `folder` or the nearest
    folder above it from which they lead somewhere."""
    changed: dict[str, Any] = {}
    for entry in fields(config):  # type: ignore[arg-type]
        value = getattr(config, entry.name)
        if is_dataclass(value) and not isinstance(value, type):
            changed[entry.name] = relocated(value, folder)
        elif isinstance(value, Path) and not value.is_absolute() and not value.exists():
            above = (parent / value for parent in (folder.resolve(), *folder.resolve().parents))
            changed[entry.name] = next((place for place in above if place.exists()), value)
    return replace(config, **changed)  # type: ignore[type-var]


def _videos(store: LabelStore, roots: Sequence[Path]) -> Path | None:
    """The first root below which the store's first video lies."""
    for root in roots if len(store) else ():
        try:
            if file_stamp(Path(root) / store.path[0]) is not None:
                return Path(root)
        except (UserError, OSError):
            continue
    return None


def _clips(source: Any, store: LabelStore, notes: list[str]) -> dict[str, ClipRecord]:
    """The clips of the split that was labeled, by id."""
    split = store.identity.dataset.rpartition("/")[2]
    try:
        return {clip.clip_id: clip for clip in source.for_labels().index(split)[0]}
    except (UserError, OSError, ValueError) as error:
        notes.append(f"verbs and places are not known: {short(error)}")
        return {}


def _places(truth: Path | None) -> dict[str, tuple[str, str]]:
    """Name of a video -> (scene, camera), of a table `actions.parquet` above the true actions that has
    columns episode, scene and camera; empty without one."""
    file = None if truth is None else truth.parent / "actions.parquet"
    if file is None or not file.is_file():
        return {}
    try:
        rows = read_columns(file, ["episode", "scene", "camera"]).to_pylist()
    except UserError as error:
        logger.warning("%s is not read: %s", file, short(error))
        return {}
    return {str(r["episode"]): (str(r["scene"] or ""), str(r["camera"] or "")) for r in rows}
