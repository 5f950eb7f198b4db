"""P@5 across places on a folder of single views, against its definition written as loops."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.data.video.video_io import write_video
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.clips import VideoClips
from latent_actions.encoder.inputs.sprites import SpriteConfig
from latent_actions.retrieval import evaluate
from latent_actions.retrieval.benchmark import Context, run_benchmark
from latent_actions.retrieval.benchmarks import CrossPlaceBenchmark
from latent_actions.retrieval.encoders import (
    EvaluatedEncoder,
    difference_embedding,
    pixel_embedding,
)
from latent_actions.video.sources import FolderSource
from tests.latent_actions.sources import moving_square

# place, verb, view: "wave" is in one place alone, "cut" is seen by ego and exo in different places
CLIPS = [
    ("kitchen", "cut", "ego"), ("kitchen", "cut", "ego"), ("kitchen", "wave", "ego"),
    ("kitchen", "pick", "exo"), ("garage", "cut", "exo"), ("garage", "pick", "exo"),
    ("garage", "pick", "ego"), ("garden", "pick_up", "ego"), ("garden", "cut", "ego"),
    ("garden", "pick", "exo"), ("garden", "pick_up", "exo"), ("garage", "pick_up", "ego"),
]  # fmt: skip
PIXELS = EvaluatedEncoder(name="pixels", embed=pixel_embedding)


def tree(root: Path, clips=CLIPS, frames=20) -> FolderSource:
    """<root>/val/<place>/<verb>/<number>.<view>.mp4, a clip of each, as single views are kept."""
    for number, (place, verb, view) in enumerate(clips):
        path = root / "val" / place / verb / f"{number}.{view}.mp4"
        write_video(path, moving_square(number, frames), 10.0)
    return FolderSource(root=root, workers=1)


def context_of(source, folder, **options):
    data = VideoClips(source=source, size=32)
    return Context(data, "val", frames=4, folder=folder, draws=100, **options)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    return context_of(tree(folder / "clips"), folder / "frames")


def by_loops(vectors, clips, setting, top):
    """Precision and chance of every query that has a positive."""
    unit, scores, chance = vectors / np.linalg.norm(vectors, axis=1, keepdims=True), [], []
    for i, (place, verb, view) in enumerate(clips):
        wanted = {
            "all": "ego exo",
            "same view": view,
            "other view": {"ego": "exo"}.get(view, "ego"),
        }
        gallery = [j for j, c in enumerate(clips) if c[0] != place and c[2] in wanted[setting]]
        if any(clips[j][1] == verb for j in gallery):
            order = sorted(gallery, key=lambda j: -float(unit[i] @ unit[j]))[:top]
            scores.append(sum(clips[j][1] == verb for j in order) / top)
            right = sum(clips[j][1] == verb for j in gallery)
            chance.append(right / max(len(gallery), top))
    return scores, chance


@pytest.mark.parametrize("setting", ["all", "same view", "other view"])
def test_clips_that_one_view_saw_are_scored_by_the_definition(context, setting):
    found = {(r.setting, r.measure): r for r in CrossPlaceBenchmark(top=3).rows(context, PIXELS)}
    table = context.table
    assert len(table) == len(CLIPS) and len(set(table.moment)) == len(CLIPS)
    clips = list(zip(table.scene, table.verb, table.view, strict=True))
    vectors = pixel_embedding(table.read(np.arange(len(table))))
    scores, chance = by_loops(vectors, clips, setting, 3)
    row = found[setting, "P@3"]
    assert row.value == pytest.approx(100 * np.mean(scores)) and row.n == len(scores)
    assert row.chance == pytest.approx(100 * np.mean(chance))
    assert row.low <= row.value <= row.high and row.clusters == row.n < len(CLIPS)
    places = found[setting, "P@3, places drawn"]
    assert places.value == row.value and places.clusters == 3


def test_an_encoder_that_knows_the_verb_reaches_the_oracle_in_other_places_alone(context):
    table = context.table
    verbs, frames = sorted(set(table.verb)), table.read(np.arange(len(table)))
    codes = {
        clip.tobytes(): np.eye(len(verbs))[verbs.index(verb)]
        for clip, verb in zip(frames, table.verb, strict=True)
    }
    knows = EvaluatedEncoder(
        name="verb", embed=lambda clips: np.stack([codes[clip.tobytes()] for clip in clips])
    )
    rows = list(CrossPlaceBenchmark().rows(context, knows))
    assert all(row.value == pytest.approx(row.oracle) for row in rows)
    assert rows[0].chance < rows[0].oracle < 100


def test_a_long_clip_is_the_mean_of_its_windows(tmp_path):
    clips = [("a", "cut", "ego"), ("b", "cut", "ego"), ("b", "pick", "ego")]
    context = context_of(tree(tmp_path / "clips", clips), tmp_path / "frames")
    seen = []

    def embed(frames):
        seen.append(len(frames))
        return frames.mean(axis=(2, 3)).reshape(len(frames), -1)

    encoder = EvaluatedEncoder(name="color", embed=embed)
    whole = CrossPlaceBenchmark(top=1)._vectors(context, encoder)
    halves = CrossPlaceBenchmark(top=1, window_s=1.0)._vectors(context, encoder)  # clips of 2 s
    few = CrossPlaceBenchmark(top=1, window_s=0.2, windows=3)._vectors(context, encoder)
    assert seen == [3, 6, 9]
    assert whole.shape == halves.shape == few.shape
    records = context.records()
    parts = CrossPlaceBenchmark(window_s=0.2, windows=3)._parts(records[0])
    assert [(round(p.start_s, 1), round(p.end_s, 1)) for p in parts] == [
        (0.0, 0.2), (0.8, 1.0), (1.8, 2.0)
    ]  # fmt: skip
    assert CrossPlaceBenchmark(window_s=5.0)._parts(records[0])[0].end_s == records[0].end_s


def test_clips_are_found_by_how_long_they_last_if_the_encoder_says_so(tmp_path):
    """Pixels say nothing here: what is cut lasts 1 s, what is washed 4 s."""
    root = tmp_path / "clips"
    for number, (place, verb) in enumerate([(p, v) for p in "abc" for v in ("cut", "wash")]):
        path = root / "val" / place / verb / f"{number}.ego.mp4"
        write_video(path, moving_square(0, 10 if verb == "cut" else 40), 10.0)
    context = context_of(FolderSource(root=root, workers=1), tmp_path / "frames")
    blind = EvaluatedEncoder(name="blind", embed=lambda clips: np.ones((len(clips), 3)))
    found = {
        weight: next(
            iter(CrossPlaceBenchmark(top=2).rows(context, replace(blind, duration_weight=weight)))
        )
        for weight in (0.0, 1.0)
    }
    assert found[1.0].value == 100 > found[0.0].value
    np.testing.assert_allclose(sorted(context.table.seconds), [1.0] * 3 + [4.0] * 3)
    windows = CrossPlaceBenchmark(top=2, window_s=1.0)
    vectors = windows._vectors(context, replace(blind, duration_weight=1.0))
    assert vectors.shape == (6, 3)  # windows leave the duration out


def test_what_cannot_be_asked_is_said_in_one_line(tmp_path):
    alone = context_of(tree(tmp_path / "a", [("a", "cut", "ego"), ("b", "pick", "ego")]), tmp_path)
    (row,) = run_benchmark(CrossPlaceBenchmark(), alone, [PIXELS])
    assert row.value is None and "stands in two places" in row.note and "\n" not in row.note
    one_view = [("a", "cut", "ego"), ("b", "cut", "ego"), ("b", "pick", "ego")]
    context = context_of(tree(tmp_path / "b", one_view), tmp_path / "frames")
    rows = {row.setting: row for row in CrossPlaceBenchmark().rows(context, PIXELS)}
    assert rows["same view"].value is not None and "other view" in rows["other view"].note
    with pytest.raises(ValueError, match="top and windows"):
        CrossPlaceBenchmark(top=0)
    sprites = Context(SpriteConfig(moments=4, val_moments=24), "val", frames=4, folder=tmp_path)
    with pytest.raises(UserError, match="no video files"):
        list(CrossPlaceBenchmark(window_s=1.0).rows(sprites, PIXELS))


def test_differences_are_those_of_gray_frames_and_blind_to_what_stands_still():
    clips = np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32, 3), dtype=np.uint8)
    gray = clips.astype(float).mean(axis=-1) / 255
    change = np.abs(np.diff(gray, axis=1)).reshape(3, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    found = difference_embedding(clips)
    np.testing.assert_allclose(found, change.reshape(3, -1), atol=1e-5)
    assert not difference_embedding(np.repeat(clips[:, :1], 4, axis=1)).any()


def test_the_command_scores_a_plain_folder(tmp_path, capsys):
    source = tree(tmp_path / "clips")
    shape = EncoderConfig(frames=4, size=16, width=32, depth=3, embedding=16, heads=2)
    InvActEncoder(shape).save_pretrained(tmp_path / "encoder")
    config = parse_config(
        evaluate.EvalConfig,
        ["--config_path", "configs/encoder/eval_folder.yaml", "--out", str(tmp_path / "run"),
         "--encoder", str(tmp_path / "encoder"), "--data.source.root", str(source.root),
         "--draws", "20", "--workers", "1"],
    )  # fmt: skip
    evaluate.main(config)
    printed = capsys.readouterr().out
    for name in ("encoder", "random weights", "pixels", "differences"):
        assert name in printed
    assert "other view" in printed and "P@5, places drawn" in printed
