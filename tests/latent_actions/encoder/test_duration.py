"""Durations beside embeddings: what the vectors say, and where clips are compared by them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from latent_actions.encoder.commit import CommitConfig
from latent_actions.encoder.duration import LONGEST, SHORTEST, WIDTH, duration_code, with_duration
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.retrieval.encoders import duration_alone, evaluated

SECONDS = st.floats(1.5, 6)


@given(SECONDS, SECONDS, st.floats(0.4, 3))
def test_only_the_ratio_of_two_durations_counts(a, b, factor):
    first, second = duration_code(np.array([a, b])), duration_code(np.array([a, b]) * factor)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    assert first[0] @ first[1] == pytest.approx(second[0] @ second[1], abs=1e-5)


def test_clips_are_the_less_alike_the_more_their_durations_differ():
    code = duration_code(np.geomspace(SHORTEST, LONGEST, 300))
    assert (np.diff(code @ code[0]) <= 1e-6).all() and (np.diff(code @ code[-1]) >= -1e-6).all()
    likeness = duration_code(np.array([1.0, 2.0, 5.0, 10.0])) @ duration_code(np.array([1.0]))[0]
    np.testing.assert_allclose(likeness, [1, 0.85, 0.33, -0.13], atol=0.01)
    beyond = duration_code(np.array([LONGEST, 60, 600, SHORTEST, 0.01]))
    np.testing.assert_array_equal(beyond[1:3], beyond[:1].repeat(2, 0))
    np.testing.assert_array_equal(beyond[3], beyond[4])


@given(st.floats(0, 5), st.integers(0, 100))
def test_the_cosine_is_that_of_the_embeddings_and_the_weighted_one_of_the_durations(weight, seed):
    rng = np.random.default_rng(seed)
    vectors, seconds = rng.standard_normal((3, 7)) * 5, rng.uniform(0.5, 30, 3)
    made = with_duration(vectors, seconds, weight)
    assert made.shape == (3, 7 + WIDTH) and made.dtype == np.float32
    unit, code = vectors / np.linalg.norm(vectors, axis=1, keepdims=True), duration_code(seconds)
    expected = (unit @ unit.T + weight**2 * code @ code.T) / (1 + weight**2)
    np.testing.assert_allclose(made @ made.T, expected, atol=1e-5)


@pytest.mark.parametrize("seconds", [[0.0, 1.0], [np.nan, 1.0], [-1.0, 1.0], [1.0], [[1.0, 1.0]]])
def test_durations_that_are_none_are_refused(seconds):
    with pytest.raises(ValueError, match="duration"):
        with_duration(np.ones((2, 3)), np.array(seconds), 1.0)


@pytest.mark.parametrize("weight", [-0.1, 1e200, float("inf"), float("nan")])
def test_a_weight_is_a_number(weight):
    with pytest.raises(ValueError, match="duration_weight"):
        EncoderConfig(duration_weight=weight)


def test_an_encoder_says_durations_where_clips_are_compared_and_only_if_it_was_made_so(tmp_path):
    commit = CommitConfig(start=1)
    config = EncoderConfig(
        frames=4, size=16, width=16, depth=2, heads=2, embedding=8, commit=commit
    )
    clips = np.random.default_rng(0).integers(0, 255, (3, 4, 16, 16, 3), np.uint8)
    seconds = np.array([1.0, 1.0, 30.0])
    plain = InvActEncoder(config)
    timed = InvActEncoder(replace(config, duration_weight=1.0))
    timed.load_state_dict(plain.state_dict())
    timed.save_pretrained(tmp_path / "encoder")
    timed = InvActEncoder.from_pretrained(tmp_path / "encoder")
    assert timed.config.duration_weight == 1.0
    np.testing.assert_array_equal(plain.eval().embed(clips), timed.embed(clips))
    vectors = timed.embed(clips)
    np.testing.assert_array_equal(evaluated(plain, "plain").timed(vectors, seconds), vectors)
    np.testing.assert_array_equal(evaluated(timed, "timed").timed(vectors, None), vectors)
    both = evaluated(timed, "timed").timed(vectors, seconds)
    np.testing.assert_array_equal(both, with_duration(vectors, seconds, 1.0))
    alone = duration_alone(1.0)
    code = alone.timed(alone.embed(clips), seconds)
    assert code[0] @ code[1] > 0.49 > code[0] @ code[2]
