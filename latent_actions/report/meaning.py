"""Tests of meaning that need the labeler again: time run backwards, nothing moving, the camera moving.

A still frame is shown as a pair that does not move, and as one whose camera pans or zooms over it:
a window of 0.8 of the side that moves by the rest. What a code should hold is the action: it should
change when time runs backwards, be one and the same where nothing moves, and not tell how the
camera moved.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from invact_vla.core.errors import UserError
from invact_vla.stats.bootstrap import resample
from latent_actions.labelers.labeler import Labeler, TrainingPairs
from latent_actions.labelers.pairs import evenly_spaced_indices
from latent_actions.report.pixels import Decoded, decode_rows
from latent_actions.report.probes import DRAWS, MIN_GROUPS, Estimate, one_hot
from latent_actions.report.stores import Labeled
from latent_actions.retrieval.ranking import probe_hits

WINDOW = 0.8  # side of the window that pans, of the frame's
Box = tuple[float, float, float, float]
MOVES = ("left", "right", "up", "down", "zoom in", "zoom out")


@dataclass(frozen=True)
class Meaning:
    """Over pairs of `estimate.n` videos' frames.

    stored: fraction of pairs that get the codes of the store again, which should be all.
    reversed_same: normalized agreement of a pair and its reverse, 0 as two unrelated pairs, 1
    equal. noop: fraction of still pairs with the most frequent code of still pairs; noop_moving:
    fraction of real pairs with that code. appearance: normalized agreement of a pair and its first
    frame standing still. camera_changed: fraction of pans and zooms over a still frame with another
    code than the still frame. camera_read: how often a probe tells from the code which of the MOVES
    it was; None with few videos.
    """

    stored: Estimate
    reversed_same: Estimate
    noop: Estimate
    noop_moving: Estimate
    appearance: Estimate
    camera_changed: Estimate
    camera_read: Estimate | None
    noop_code: tuple[int, ...]


def rebuilt(labeled: Labeled, device: torch.device) -> Labeler | str:
    """The labeler of a store, or why there is none."""
    if labeled.config is None or labeled.folder is None:
        return "its run folder is not known"
    try:
        labeler = labeled.config.labeler.build(labeled.folder, _no_training, device)
    except (UserError, OSError, ValueError) as error:
        return f"the labeler cannot be loaded again: {error}"
    if labeler.n_frames == 0:
        return "it does not look at frames"
    if labeler.hash != labeled.store.identity.labeler_hash:
        return "the labeler has changed since the store was made"
    return labeler


def _no_training() -> Iterator[TrainingPairs]:
    raise UserError("a part that was fitted is missing from its run folder")


def tested_pairs(labeled: Labeled, labeler: Labeler, most: int) -> Decoded:
    """Frames of at most `most` pairs, spread over the store, as the labeler was shown them."""
    assert labeled.config is not None
    asked, config = labeled.config.pairs, labeled.config.labeler
    spec = config.frame_spec().agree(config.name, asked.size, asked.fit)
    rows = np.array(evenly_spaced_indices(len(labeled.store), most), np.int64)
    count = 2 if labeler.n_frames <= 2 else asked.frames
    return decode_rows(labeled, rows, count, spec.size, spec.fit)


def measure_meaning(labeled: Labeled, labeler: Labeler, pairs: Decoded) -> Meaning:
    """All tests on decoded pairs of a store; there is at least one."""
    frames, size = pairs.frames, labeler.codebook_size
    groups = list(np.array(labeled.groups)[pairs.rows])
    own = labeler.codes(frames)
    still = labeler.codes(np.repeat(frames[:, :1], frames.shape[1], axis=1))
    modes, counts = np.unique(still, axis=0, return_counts=True)
    noop = modes[counts.argmax()]
    moved = [labeler.codes(pan_zoom(frames[:, 0], frames.shape[1], move)) for move in MOVES]
    anchored = labeler.codes(pan_zoom(frames[:, 0], frames.shape[1], None))
    changed = np.mean([(codes != anchored).any(axis=1) for codes in moved], axis=0)
    return Meaning(
        stored=_fraction((own == labeled.codes[pairs.rows]).all(axis=1), groups),
        reversed_same=_same(own, labeler.codes(frames[:, ::-1]), size, groups),
        noop=_fraction((still == noop).all(axis=1), groups),
        noop_moving=_fraction((own == noop).all(axis=1), groups),
        appearance=_same(own, still, size, groups),
        camera_changed=_fraction(changed, groups),
        camera_read=_camera_read(moved, size, groups),
        noop_code=tuple(int(code) for code in noop),
    )


def pan_zoom(pictures: np.ndarray, count: int, move: str | None) -> np.ndarray:
    """uint8 (N, S, S, 3) -> (N, count, S, S, 3): a window over each picture that moves as MOVES say, or
    rests in the middle."""
    side = pictures.shape[1]
    rest = (1 - WINDOW) * side
    films = np.empty((len(pictures), count, *pictures.shape[1:]), np.uint8)
    for step, part in enumerate(np.linspace(0, 1, count)):
        box = _box(move, float(part), side, rest)
        for row, picture in enumerate(pictures):
            image = Image.fromarray(picture)
            seen = image.resize((side, side), Image.Resampling.BILINEAR, box=box)
            films[row, step] = np.asarray(seen)
    return films


def _box(move: str | None, part: float, side: float, rest: float) -> Box:
    """The window (left, top, right, bottom) at a part 0..1 of the way."""
    if move in ("zoom in", "zoom out"):
        margin = rest / 2 * (part if move == "zoom in" else 1 - part)
        return margin, margin, side - margin, side - margin
    along = {
        "left": (1 - part, 0.5),
        "right": (part, 0.5),
        "up": (0.5, 1 - part),
        "down": (0.5, part),
    }
    x, y = along.get(move or "", (0.5, 0.5))
    return x * rest, y * rest, x * rest + side - rest, y * rest + side - rest


def _camera_read(moved: Sequence[np.ndarray], size: int, groups: Sequence[str]) -> Estimate | None:
    if len(set(groups)) < MIN_GROUPS:
        return None
    features = one_hot(np.concatenate(moved), size)
    labels = [move for move in MOVES for _ in groups]
    return _fraction(probe_hits(features, labels, [*groups] * len(MOVES)), [*groups] * len(MOVES))


def _same(one: np.ndarray, other: np.ndarray, size: int, groups: Sequence[str]) -> Estimate:
    """Agreement of codes (N, K) of the same pairs, normalized by what their frequencies give."""
    shares = [np.eye(size)[codes].mean(axis=0) for codes in (one, other)]
    chance = float((shares[0] * shares[1]).sum(axis=1).mean())
    if chance > 1 - 1e-9:
        return Estimate.of(np.nan, np.zeros(0), len(one), groups)
    return _fraction(((one == other).mean(axis=1) - chance) / (1 - chance), groups)


def _fraction(values: np.ndarray, groups: Sequence[str]) -> Estimate:
    """The mean of values (N,) with its interval."""
    values = np.asarray(values, np.float64)
    draws = resample(values, np.ones(len(values)), groups, draws=DRAWS)
    return Estimate.of(float(values.mean()), draws, len(values), groups)
