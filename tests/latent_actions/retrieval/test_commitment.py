"""Committed patches against masks: frames of clips and of masks must be the same frames."""

from dataclasses import dataclass

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.data.video.video_io import write_video
from latent_actions.encoder.inputs.clips import VideoClips
from latent_actions.retrieval.benchmark import Context
from latent_actions.retrieval.benchmarks import CommitmentBenchmark
from latent_actions.retrieval.encoders import EvaluatedEncoder, Tokens, pixel_embedding
from latent_actions.synthetic.truth import write_truth
from latent_actions.video.records import ClipRecord
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources import SkipReport

FPS, FRAMES, SIZE, GRID = 8.0, 48, 32, (2, 4, 4)


@SourceConfig.register_subclass("moving_square")
@dataclass(frozen=True, kw_only=True)
class MovingSquare(SourceConfig):
    """Two takes of a white square that moves by a patch now and then, two clips each."""

    def index(self, split):
        records = [
            ClipRecord(
                clip_id=f"{take}/{n}/{camera}", moment_id=f"{take}/{n}", take=take, scene=take,
                view=view, camera=camera, verb=f"verb{n}", text="moves", split=split,
                video=self.root / f"{take}_{camera}.mp4", start_s=1.3 + 2.0 * n, end_s=2.9 + 2.0 * n,
            )
            for take in ("t1", "t2")
            for n in (0, 1)
            for view, camera in (("ego", "aria01_214-1"), ("exo", "cam01"))
        ]  # fmt: skip
        return records, SkipReport()


def square(rng):
    """Mask of a square that jumps to a random patch every third frame, bool (T, S, S)."""
    mask = np.zeros((FRAMES, SIZE, SIZE), bool)
    for frame in range(FRAMES):
        if frame % 3 == 0:
            y, x = rng.integers(4, size=2) * 8
        mask[frame, y : y + 8, x : x + 8] = True
    return mask


@pytest.fixture
def context(tmp_path):
    rng = np.random.default_rng(0)
    nothing = np.zeros((FRAMES, 7), np.float32)
    for take in ("t1", "t2"):
        masks = {camera: square(rng) for camera in ("ego", "cam01")}
        classes = {camera: mask.astype(np.uint8) for camera, mask in masks.items()}
        path = tmp_path / "truth" / f"{take}.npz"
        write_truth(path, nothing, nothing, np.zeros(FRAMES, bool), classes, {})
        for camera, name in (("ego", "aria01_214-1"), ("cam01", "cam01")):
            frames = np.repeat(masks[camera][..., None] * np.uint8(255), 3, axis=3)
            write_video(tmp_path / f"{take}_{name}.mp4", frames.astype(np.uint8), FPS, crf=5)
    data = VideoClips(source=MovingSquare(root=tmp_path, workers=1), size=SIZE, oversample=2)
    return Context(data, "val", frames=4, folder=tmp_path / "frames", draws=50)


def sees(threshold):
    """Commits the patches whose pixels are at least this bright on average."""

    def tokens(clips):
        light = clips.mean(axis=-1).reshape(len(clips), 2, 2, 4, 8, 4, 8).mean(axis=(2, 4, 6)) / 255
        empty = np.zeros((len(clips), 1))
        return Tokens(empty, empty, empty, (light < threshold).astype(np.int64))

    return EvaluatedEncoder(name="sees", embed=pixel_embedding, tokens=tokens)


def test_the_frames_of_masks_are_those_of_clips(context, tmp_path):
    benchmark = CommitmentBenchmark(truth=tmp_path / "truth", coverage=0.3)
    rows = {row.measure: row for row in benchmark.rows(context, sees(0.3))}
    for view in ("ego", "exo"):
        row = rows[f"{view} mask IoU"]
        assert row.value == 100 and row.n == 4 and row.clusters == 2
        assert 0 < row.chance < 15
        times = rows[f"{view} IoU over random set (times)"]
        assert times.value == pytest.approx(row.value / row.chance)


def test_a_set_of_all_patches_is_no_better_than_a_random_one(context, tmp_path):
    benchmark = CommitmentBenchmark(truth=tmp_path / "truth")
    rows = {row.measure: row for row in benchmark.rows(context, sees(-1.0))}
    assert rows["ego IoU over random set (times)"].value == pytest.approx(1)
    assert rows["ego share of patches committed"].value == 100


def test_without_masks_it_says_so(context):
    with pytest.raises(UserError, match="only synthetic video has them"):
        list(CommitmentBenchmark().rows(context, sees(0.5)))
