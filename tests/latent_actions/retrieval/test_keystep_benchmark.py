"""Keysteps whose videos are damaged or end too early: what is left out, and what the rows say."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from invact_vla.data.video.video_io import write_video
from latent_actions.encoder.inputs.clips import VideoClips
from latent_actions.retrieval.benchmark import Context, run_benchmark
from latent_actions.retrieval.benchmarks import KeystepBenchmark
from latent_actions.retrieval.encoders import EvaluatedEncoder, pixel_embedding
from latent_actions.retrieval.results import format_rows
from latent_actions.video.records import ClipRecord
from latent_actions.video.source import SourceConfig
from latent_actions.video.sources import SkipReport

FPS, SECONDS, SIZE = 4.0, 8, 32
TAKES = tuple(f"{letter}_1" for letter in "abcdefgh")
CAMERAS = (("ego", "aria01_214-1"), ("exo", "cam01"))
PIXELS = EvaluatedEncoder(name="pixels", embed=pixel_embedding)


@SourceConfig.register_subclass("long_actions")
@dataclass(frozen=True, kw_only=True)
class LongActions(SourceConfig):
    """Two keysteps of 4 s in each take, each of two windows and two atomic actions of 2 s."""

    takes: tuple[str, ...] = TAKES  # which takes

    def index(self, split):
        records = [
            ClipRecord(
                clip_id=f"{take}/k{n}/{camera}", moment_id=f"{take}/k{n}", take=take, scene=take,
                view=view, camera=camera, verb=f"step{n}", text="acts", split=split,
                video=self.root / f"{take}_{camera}.mp4", start_s=4.0 * n, end_s=4.0 * n + 4,
                tags={"leaf": f"step{n}"}, parts=((4.0 * n, 4.0 * n + 2), (4.0 * n + 2, 4.0 * n + 4)),
            )
            for take in self.takes
            for n in (0, 1)
            for view, camera in CAMERAS
        ]  # fmt: skip
        return records, SkipReport()


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    for take in TAKES:
        for _, camera in CAMERAS:
            small = rng.integers(256, size=(int(SECONDS * FPS), 4, 4, 3), dtype=np.uint8)
            frames = small.repeat(8, axis=1).repeat(8, axis=2)
            write_video(tmp_path / f"{take}_{camera}.mp4", frames, FPS)
    return LongActions(root=tmp_path, workers=1, max_skipped=0.5)


def rows_of(source, tmp_path, name):
    context = Context(
        VideoClips(source=source, size=SIZE), "val", frames=2, folder=tmp_path / name, draws=20
    )
    benchmark = KeystepBenchmark(source=source, label_levels=("leaf",), scene_keys=("scene",))
    return run_benchmark(benchmark, context, [PIXELS])


def numbers(rows):
    return [(row.measure, row.value, row.chance, row.n) for row in rows]


def test_nothing_is_noted_where_all_can_be_decoded(source, tmp_path):
    rows = rows_of(source, tmp_path, "frames")
    assert len({row.value for row in rows}) > 1  # the gallery has more than ten keysteps
    assert all(row.value is not None and row.n == 16 and not row.note for row in rows)


def test_keysteps_without_a_window_in_one_view_are_left_out_in_both(source, tmp_path):
    (tmp_path / "c_1_aria01_214-1.mp4").unlink()
    rows = rows_of(source, tmp_path, "frames")
    note = "8 of 128 windows and atomic actions could not be decoded, 2 of 16 keysteps are left out"
    assert {row.note for row in rows} == {note} and note in format_rows(rows)
    without = rows_of(
        replace(source, takes=tuple(take for take in TAKES if take != "c_1")), tmp_path, "others"
    )
    assert numbers(rows) == numbers(without) and {row.n for row in rows} == {14}
    assert not any(row.note for row in without)


def test_a_keystep_keeps_the_windows_that_its_video_has(source, tmp_path):
    short = tmp_path / "d_1_cam01.mp4"
    before = rows_of(source, tmp_path, "frames")
    frames = np.random.default_rng(1).integers(256, size=(20, SIZE, SIZE, 3), dtype=np.uint8)
    write_video(short, frames, FPS)  # 5 s: of the second keystep half a window, cut there
    rows = rows_of(source, tmp_path, "frames")
    assert {row.n for row in rows} == {16}
    assert {row.note.split(" could")[0] for row in rows} == {"2 of 128 windows and atomic actions"}
    assert all("0 of 16 keysteps" in row.note for row in rows)
    assert numbers(rows) != numbers(before)


def test_more_damage_than_the_source_allows_is_a_row_with_the_reason(source, tmp_path):
    (tmp_path / "c_1_aria01_214-1.mp4").unlink()
    rows = rows_of(replace(source, max_skipped=0.01), tmp_path, "frames")
    assert len(rows) == 1 and rows[0].value is None
    assert "1 of 8 videos are damaged or missing" in rows[0].note
