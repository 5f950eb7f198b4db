"""Commitment: do the patches of the action token cover the hand and the object it moves?

For clips with ground-truth masks (synthetic human video). The set of patches committed to the
action token is compared with the patches that hand and object cover, by IoU, and a random set of
the same size with the same (its exact expectation). Ratios are of means over clips.

B clips, N = T' H' W' patch tokens.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import hypergeom

from invact_vla.core.errors import UserError
from invact_vla.data.video.frames import probe
from invact_vla.data.video.video_info import clip_frames
from latent_actions.retrieval.benchmark import Benchmark, Context
from latent_actions.retrieval.encoders import EvaluatedEncoder
from latent_actions.retrieval.results import Row
from latent_actions.synthetic.truth import read_masks
from latent_actions.video.records import ClipRecord


@Benchmark.register_subclass("commitment")
@dataclass(frozen=True, kw_only=True)
class CommitmentBenchmark(Benchmark):
    """IoU of the action token's patches with the masks of hand and object."""

    truth: Path | None = None  # folder of <take>.npz masks; default: truth/ beside the videos' root
    coverage: float = 0.1  # share of a patch's pixels that the mask must cover

    def __post_init__(self) -> None:
        if not 0 < self.coverage <= 1:
            raise ValueError(f"coverage must be in (0, 1], got {self.coverage}")

    def rows(self, context: Context, encoder: EvaluatedEncoder) -> Iterator[Row]:
        if encoder.tokens is None:
            raise UserError("the encoder has no commit blocks with registers, so no committed set")
        folder, moments = self._folder(context), context.moments
        records, score = context.records(), self.scorer(context, encoder)
        setting = f"coverage >= {self.coverage:g}"
        views = (("ego", moments.ego, moments.ego_rows), ("exo", moments.exo, moments.exo_rows))
        for view, clips, rows in views:
            committed = encoder.tokens(clips).committed
            grid = tuple(committed.shape[1:])
            chosen = [records[row] for row in rows]
            covered = clip_coverage(folder, chosen, clips.shape[1], context.table.oversample, grid)
            action = committed.reshape(len(clips), -1) == 0
            mask = covered.reshape(len(clips), -1) >= self.coverage
            seen = mask.any(axis=1)
            if not seen.any():
                yield score.skip(f"no {view} clip shows hand or object", setting=setting)
                continue
            action, mask, takes = action[seen], mask[seen], np.array(moments.take)[seen].tolist()
            found = overlap(action, mask)
            chance = chance_overlap(action.shape[1], action.sum(axis=1), mask.sum(axis=1))
            mean, name = float(chance.mean()), f"{view} mask IoU"
            yield score.row(name, setting, found, takes, chance=mean, oracle=1.0)
            times = f"{view} IoU over random set (times)"  # a plain number instead of percent
            if chance.sum():
                yield score.row(times, setting, found, takes, over=chance, unit=1.0, chance=1.0)
            else:
                reason = "no patch is committed to the action"
                yield score.skip(reason, measure=times, setting=setting)
            size, part = action.mean(axis=1), mask.mean(axis=1)
            yield score.row(f"{view} share of patches committed", setting, size, takes)
            yield score.row(f"{view} share of patches in mask", setting, part, takes)

    def _folder(self, context: Context) -> Path:
        root = Path(context.videos("masks").source.root) if self.truth is None else Path()
        folder = self.truth or root.parent / "truth" / root.name
        if not folder.is_dir():
            raise UserError(
                f"no masks: no folder {folder}; only synthetic video has them (invact data synth)"
            )
        return folder


def clip_coverage(
    folder: Path, records: Sequence[ClipRecord], frames: int, oversample: int, grid: tuple[int, ...]
) -> np.ndarray:
    """Coverage of every token of clips by hand and object, float64 (B, T', H', W').

    frames: T that an encoder reads, the middle ones of each `oversample` stored, as ClipTable.read."""
    total = frames * oversample
    picks = ((np.arange(frames) + 0.5) * oversample).astype(np.int64)
    loaded: dict[tuple[str, str], tuple[float, np.ndarray]] = {}
    found = []
    for record in records:
        camera = "ego" if record.view == "ego" else record.camera  # the name in the truth
        source = (record.take, camera)
        if source not in loaded:
            hand, thing = read_masks(folder / f"{record.take}.npz", camera)
            loaded = {source: (probe(record.video).fps, hand | thing)}  # one video at a time
        fps, masks = loaded[source]
        shown = clip_frames(record.start_s, record.end_s, fps, len(masks), total)[picks]
        found.append(token_coverage(masks[shown], (grid[0], grid[1], grid[2])))
    return np.stack(found)


def token_coverage(masks: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """Share of every token's pixels that lie in the mask, over its frames and its square.

    masks: bool (T, H, W), T a multiple of T'; any H, W: pixels are counted in the token that holds
    their middle -> float64 (T', H', W') in [0, 1]."""
    frames, height, width = masks.shape
    if frames % grid[0] or height < grid[1] or width < grid[2]:
        raise ValueError(f"masks {masks.shape} do not cover a grid {grid}")
    row = ((np.arange(height) + 0.5) * grid[1] / height).astype(np.int64)
    column = ((np.arange(width) + 0.5) * grid[2] / width).astype(np.int64)
    time = np.arange(frames) * grid[0] // frames
    place = (time[:, None, None] * grid[1] + row[None, :, None]) * grid[2] + column[None, None]
    size = int(np.prod(grid))
    inside = np.bincount(place.ravel(), weights=masks.ravel(), minlength=size)
    return (inside / np.bincount(place.ravel(), minlength=size)).reshape(grid)


def overlap(action: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """IoU of two token sets a clip, 0 where both are empty: bool (B, N) twice -> float64 (B,)."""
    both = (action & mask).sum(axis=1)
    return both / np.maximum((action | mask).sum(axis=1), 1)


def chance_overlap(tokens: int, chosen: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Expected IoU of a random set of the same size with the mask, exactly.

    tokens: N; chosen, masked: int (B,), sizes of the sets -> float64 (B,). The intersection of a
    random set is hypergeometric: sum_i P(i) i / (chosen + masked - i)."""
    expected = np.zeros(len(chosen))
    for place, (k, m) in enumerate(zip(chosen.tolist(), masked.tolist(), strict=True)):
        both = np.arange(max(0, k + m - tokens), min(k, m) + 1)
        either = np.maximum(k + m - both, 1)
        expected[place] = float((hypergeom.pmf(both, tokens, m, k) * both / either).sum())
    return expected
