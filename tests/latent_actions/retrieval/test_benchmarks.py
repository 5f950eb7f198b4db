"""Benchmarks on clips whose vectors are known, against definitions written as loops."""

from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.clips import VideoClips
from latent_actions.encoder.inputs.sprites import SpriteConfig
from latent_actions.retrieval.benchmark import Benchmark, Context, run_benchmark, scene_groups
from latent_actions.retrieval.benchmarks import (
    AtomicBenchmark,
    ChiralityBenchmark,
    CommitmentBenchmark,
    KeystepBenchmark,
    LanguageBenchmark,
    NtuBenchmark,
    PhyWorldBenchmark,
    SceneBiasBenchmark,
    Ssv2Benchmark,
)
from latent_actions.retrieval.benchmarks.chirality import pairs_among, side_auc
from latent_actions.retrieval.benchmarks.language import choices, first_wins
from latent_actions.retrieval.benchmarks.scene_bias import (
    action_before_scene,
    same_scene_wrong_hits,
)
from latent_actions.retrieval.encoders import EvaluatedEncoder, Tokens, pixel_embedding
from latent_actions.retrieval.metric import bounds_of, precision_at, top_indices
from latent_actions.video.sources import NtuSource, PhyWorldSource, Ssv2Source
from latent_actions.video.verbs import direction_of

PIXELS = EvaluatedEncoder(name="pixels", embed=pixel_embedding)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    data = SpriteConfig(moments=4, val_moments=60, val_scenes=4, size=16)
    return Context(data, "val", frames=4, folder=tmp_path_factory.mktemp("frames"), draws=50)


def knows(context, column):
    """An encoder whose vectors are the one-hot codes of a column of the moments."""
    moments = context.moments
    names = sorted(set(getattr(moments, column)))
    codes = np.eye(len(names))[[names.index(value) for value in getattr(moments, column)]]
    known = {moments.ego.tobytes(): codes, moments.exo.tobytes(): codes}
    return EvaluatedEncoder(name=column, embed=lambda clips: known[clips.tobytes()])


def values(rows):
    return {(row.setting, row.measure): row for row in rows if row.value is not None}


def test_a_perfect_encoder_reaches_the_oracle_and_a_blind_one_does_not(context):
    found = values(AtomicBenchmark(scene_keys=("scene",)).rows(context, knows(context, "verb")))
    level = bounds_of(context.moments.verb, context.moments.scene)
    for row in found.values():
        assert row.value == pytest.approx(row.oracle) == pytest.approx(level.oracle)
        assert row.chance == pytest.approx(level.chance) and row.n == 60
        assert row.low <= row.value <= row.high and row.clusters == len(set(context.moments.take))
    blind = values(AtomicBenchmark(scene_keys=("scene",)).rows(context, knows(context, "scene")))
    assert all(row.value < 0.6 * row.oracle for row in blind.values())


def test_directions_are_those_of_the_metric(context):
    ego, exo = context.vectors(PIXELS)
    found = values(AtomicBenchmark(scene_keys=("scene", "none")).rows(context, PIXELS))
    moments = context.moments
    expected = 100 * precision_at(ego, exo, moments.verb, moments.scene).mean()
    assert found["scene", "g-x P@10"].value == pytest.approx(expected)
    expected = 100 * precision_at(exo, ego, moments.verb, moments.moment).mean()
    assert found["none", "x-g P@10"].value == pytest.approx(expected)


def test_every_scene_key_is_reported_or_explained(context):
    rows = list(AtomicBenchmark().rows(context, PIXELS))
    assert {row.setting for row in rows} == set(AtomicBenchmark().scene_keys)
    same = next(row for row in rows if row.setting == "institution")
    assert same.value is None and "same groups as 'scene'" in same.note


def test_scene_keys_of_ego_exo4d_names():
    takes = ["iiith_cooking_42_2", "sfu_covid013_4", "utokyo_pcr_2001_29_2", "sfu_cooking015_2"]
    groups = {
        key: scene_groups(key, takes, takes, takes)
        for key in ("keyword", "keyword_merged", "institution_activity", "institution", "activity")
    }
    assert groups["keyword"] == ["cooking", "covid", "pcr", "cooking"]
    assert groups["keyword_merged"] == ["cooking", "covid", "covid", "cooking"]
    assert groups["institution_activity"][1::2] == ["sfu_covid", "sfu_cooking"]
    assert groups["institution"][1::2] == ["sfu", "sfu"]
    assert groups["activity"] == ["cooking", "covid", "pcr", "cooking"]


def test_wrong_hits_and_pairs_by_loops():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(50, 4)).astype(np.float32)
    verbs = tuple(rng.choice(list("abc"), 50))
    scenes, alone = rng.choice(list("xyz"), 50).tolist(), [str(i) for i in range(50)]
    share, chance = same_scene_wrong_hits(rows, verbs, scenes, alone)
    found = top_indices(rows, rows, alone)
    expected, random, wins = [], [], []
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for i in range(50):
        wrong = [j for j in found[i] if verbs[j] != verbs[i]]
        expected.append(np.mean([scenes[j] == scenes[i] for j in wrong]))
        others = [j for j in range(50) if verbs[j] != verbs[i]]
        random.append(np.mean([scenes[j] == scenes[i] for j in others]))
        near = [j for j in range(50) if verbs[j] == verbs[i] and scenes[j] != scenes[i]]
        far = [j for j in others if scenes[j] == scenes[i]]
        pairs = [(unit[i] @ unit[a] > unit[i] @ unit[b]) for a in near for b in far]
        wins.append(np.mean(pairs))
    np.testing.assert_allclose(share, expected)
    assert chance == pytest.approx(np.mean(random))
    np.testing.assert_allclose(action_before_scene(rows, verbs, scenes, alone)[0], wins)


def test_scene_bias_of_encoders_that_know_one_thing(context):
    action = values(SceneBiasBenchmark().rows(context, knows(context, "verb")))
    place = values(SceneBiasBenchmark().rows(context, knows(context, "scene")))
    key = "scene"
    assert action[key, "g-g action before scene"].value == 100
    assert place[key, "g-g action before scene"].value == 0
    assert place[key, "x-x same-scene wrong hits"].value > 80
    folds = "scene, folds by take"
    assert action[folds, "verb from embedding"].value > 95
    assert place[folds, "scene from embedding"].value > 95
    blind = place[folds, "verb from embedding"]
    assert blind.value < blind.chance + 15


def test_probes_read_action_token_and_registers(context):
    moments = context.moments
    scenes = sorted(set(moments.scene))
    codes = np.eye(len(scenes))[[scenes.index(scene) for scene in moments.scene]]
    zeros, blind = np.zeros((60, 1, 2, 2), np.int64), np.zeros((60, 3))

    def split(token):
        tokens = Tokens(action=blind, token=token, registers=codes, committed=zeros)
        return EvaluatedEncoder(name="split", embed=pixel_embedding, tokens=lambda clips: tokens)

    found = values(SceneBiasBenchmark().rows(context, split(codes)))
    folds = "scene, folds by take"
    assert found[folds, "scene from registers"].value > 95
    row = found[folds, "scene from action token"]
    assert row.value <= row.chance + 1e-9
    # a token that was projected is probed as a whole too
    assert found[folds, "scene from action token before its readout"].value > 95
    whole = values(SceneBiasBenchmark().rows(context, split(blind)))
    assert (folds, "scene from action token before its readout") not in whole


def test_language_of_a_perfect_pair(context):
    moments = context.moments
    verbs = sorted(set(moments.verb))

    def texts(sentences):
        return np.array([[float(verb in text) for verb in verbs] for text in sentences])

    embed = knows(context, "verb").embed
    encoder = EvaluatedEncoder(name="both", embed=embed, texts=texts)
    found = values(LanguageBenchmark().rows(context, encoder))
    for name in ("video to text R@1", "text to video mAP", "verb by name top 1"):
        assert found["ego", name].value == found["ego", name].oracle == 100
    with pytest.raises(UserError, match="no text side"):
        list(LanguageBenchmark().rows(context, PIXELS))


def test_choices_are_of_other_verbs_of_the_take():
    texts = [f"{verb}s {thing}" for verb in "abcdef" for thing in ("cup", "lid")]
    verbs, takes = [text[0] for text in texts], ["t1"] * 10 + ["t2"] * 2
    options = choices(texts, verbs, takes, seed=0)
    assert options[10] == options[11] == []  # one verb in that take
    for text, verb, option in zip(texts[:10], verbs, options, strict=False):
        assert option[0] == text and len({text[0] for text in option}) == 5
        assert verb not in {text[0] for text in option[1:]} and set(option) <= set(texts[:10])
    assert first_wins(np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0]])).tolist() == [1, 0, 0.5]


@pytest.mark.parametrize(
    "text,expected",
    [
        ("C slides the red can to the left", ("left/right", "forth")),
        ("Pushing something from left to right", ("left/right", "back")),
        ("moves the cup to the left hand", None),
        ("C unscrews the lid counterclockwise", ("screw/unscrew", "back")),
        ("Moving something down", ("up/down", "back")),
        ("unstacks the bowl", ("stack/unstack", "back")),
        ("closes the drawer", ("open/close", "back")),
        ("opens and closes the drawer", None),
        ("stirs the soup", None),
        ("C picks a screwdriver", ("pick/place", "forth")),
        ("C places the screw on the floor", ("pick/place", "back")),
        ("C picks up a stack of plates", ("pick/place", "forth")),
        ("C picks a hammer and screwdriver", ("pick/place", "forth")),
        ("C picks the lid and screws it on", ("screw/unscrew", "forth")),
        ("C drops the screwdriver close to the closet", None),
        ("C turns the knob counter-clockwise", ("screw/unscrew", "back")),
        ("C turns the knob anticlockwise", ("screw/unscrew", "back")),
        ("Moving something closer to something", ("approach/recede", "forth")),
        ("C stacks and unstacks the cups", None),
    ],
)
def test_directions_of_descriptions(text, expected):
    assert direction_of(text) == expected


def test_pairs_need_clips_of_both_directions():
    texts = ["opens it", "closes it", "opens a box", "closes a box", "lifts it", "lifts that"]
    assert pairs_among(texts, 2) == {"open/close": {0: "forth", 1: "back", 2: "forth", 3: "back"}}


def test_side_auc_is_half_without_information():
    rng = np.random.default_rng(0)
    sides, groups = rng.choice(["a", "b"], 400, p=[0.8, 0.2]), rng.choice(list("xyz"), 400)
    rows = rng.normal(size=(400, 8))
    assert side_auc(rows, sides, groups).mean() == pytest.approx(0.5, abs=0.02)
    assert side_auc(np.eye(2)[(sides == "a").astype(int)], sides, groups).min() == 1


def test_an_order_blind_encoder_cannot_tell_a_clip_from_its_reverse():
    clips = np.random.default_rng(0).integers(256, size=(3, 4, 16, 16, 3)).astype(np.uint8)
    blind = PIXELS.of_frames(clips), PIXELS.of_frames(clips[:, ::-1])
    np.testing.assert_allclose(*blind, atol=1e-6)
    assert not np.allclose(pixel_embedding(clips), pixel_embedding(clips[:, ::-1]))


@pytest.mark.parametrize(
    "benchmark,reason",
    [
        (KeystepBenchmark(), "no video files"),
        (CommitmentBenchmark(), "no commit blocks"),
        (LanguageBenchmark(), "no text side"),
        (ChiralityBenchmark(), "no pair of temporally opposite"),
        (NtuBenchmark(source=NtuSource(root=Path("/absent"))), "no folder"),
        (Ssv2Benchmark(source=Ssv2Source(root=Path("/absent"))), "no folder"),
        (PhyWorldBenchmark(source=PhyWorldSource(root=Path("/absent"))), "no folder"),
    ],
)
def test_missing_data_leaves_a_row_with_the_reason(context, benchmark, reason):
    rows = run_benchmark(benchmark, context, [PIXELS])
    assert len(rows) == 1 and rows[0].value is None and reason in rows[0].note


def test_missing_clips_are_explained(tmp_path):
    empty = Context(VideoClips(), "val", frames=4, folder=tmp_path)
    rows = run_benchmark(AtomicBenchmark(), empty, [PIXELS])
    assert [row.encoder for row in rows] == ["all"] and "no folder data" in rows[0].note


def test_the_registry_names_each_benchmark():
    names = {"atomic", "keystep", "scene_bias", "language", "chirality", "commitment"}
    assert names | {"cross_place", "ntu", "ssv2", "phyworld"} <= set(Benchmark.get_known_choices())
