"""Index arithmetic: properties over random lengths, and the boundaries."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from invact_vla.data.video.video_info import VideoInfo, clip_frames, pair_frames
from latent_actions.labelers.pairs import clip_rng, horizon_frames, pair_starts, timed_pairs

# a busy machine draws examples slowly; that is no fault of the code
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
FPS = st.sampled_from([8.0, 10.0, 12.0, 24.0, 29.97, 30.0])


@patient
@given(st.integers(1, 400), FPS, st.floats(0, 0.99), st.floats(0.01, 20), st.integers(1, 32))
def test_clip_frames_stay_in_the_video_and_in_the_span(n_frames, fps, share, length_s, count):
    start_s = share * n_frames / fps
    frames = clip_frames(start_s, start_s + length_s, fps, n_frames, count)
    assert frames.shape == (count,)
    assert (np.diff(frames) >= 0).all()
    assert frames.min() >= 0 and frames.max() <= n_frames - 1
    assert (frames + 1)[0] / fps >= start_s - 1e-5
    assert frames[-1] / fps <= start_s + length_s + 1e-5


def test_clip_frames_are_the_midpoints():
    assert clip_frames(0.0, 0.8, 10, 100, 8).tolist() == list(range(8))
    assert clip_frames(1.0, 2.6, 10, 100, 8).tolist() == [11, 13, 15, 17, 19, 21, 23, 25]
    # every frame of a clip shorter than the count is used, some of them twice
    assert clip_frames(0.3, 0.7, 10, 100, 8).tolist() == [3, 3, 4, 4, 5, 5, 6, 6]


def test_clip_frames_end_with_the_video():
    assert clip_frames(0.0, 9.0, 10, 8, 8).tolist() == list(range(8))
    with pytest.raises(ValueError, match=r"starts at 0\.800 s, the video ends at 0\.800 s"):
        clip_frames(0.8, 9.0, 10, 8, 8)


@patient
@given(st.integers(1, 300), st.integers(1, 60), st.integers(1, 40), st.integers(0, 9))
def test_pairs_lie_in_the_video_and_differ(n_frames, horizon, count, seed):
    starts = pair_starts(n_frames, horizon, count, np.random.default_rng(seed))
    assert len(starts) == min(count, max(0, n_frames - horizon))
    assert (np.diff(starts) > 0).all()
    if len(starts):
        assert starts.min() >= 0
        assert starts.max() + horizon <= n_frames - 1


def test_pairs_reach_the_last_frame():
    assert pair_starts(11, 10, 5, np.random.default_rng(0)).tolist() == [0]
    assert pair_starts(10, 10, 5, np.random.default_rng(0)).tolist() == []
    assert pair_starts(13, 10, 9, np.random.default_rng(0)).tolist() == [0, 1, 2]


@patient
@given(st.integers(0, 100), st.integers(1, 100), st.integers(2, 16))
def test_pair_frames_include_both_ends(frame, horizon, count):
    frames = pair_frames(frame, frame + horizon, count)
    assert frames[0] == frame and frames[-1] == frame + horizon and len(frames) == count


def test_horizon_is_in_seconds():
    assert [horizon_frames(1.0, fps) for fps in (10, 12, 29.97, 30)] == [10, 12, 30, 30]
    assert horizon_frames(0.01, 10) == 1
    with pytest.raises(ValueError, match="must be positive"):
        horizon_frames(0.0, 10)


def test_streams_of_clips_do_not_depend_on_other_clips():
    first = clip_rng(0, "ssv2/7").random(3)
    assert (first == clip_rng(0, "ssv2/7").random(3)).all()
    assert (first != clip_rng(0, "ssv2/8").random(3)).all()
    assert (first != clip_rng(1, "ssv2/7").random(3)).all()


def test_pairs_of_a_variable_rate_are_a_horizon_apart():
    rng = np.random.default_rng(0)
    times = np.cumsum(np.r_[0, np.repeat([0.1, 0.04, 0.25], 20)])
    info = VideoInfo(61, 61 / 8, 32, 32, times=tuple(times.tolist()))
    pairs = timed_pairs(info, 0.5, 7.0, 1.0, 8, rng)
    assert len(pairs) == 8
    for frame, frame_end, fps in pairs:
        assert times[frame] >= 0.5 and times[frame_end] < 7.0
        apart_s = times[frame_end] - times[frame]
        assert apart_s == pytest.approx(1.0, abs=0.1)
        assert apart_s == pytest.approx((frame_end - frame) / fps)
    assert timed_pairs(info, 0.5, 1.4, 1.0, 8, rng) == []
    assert timed_pairs(info, 0.0, 8.0, 1.0, 999, rng)[0][0] == 0


def test_pairs_of_a_constant_rate_are_frames_apart():
    steady = VideoInfo(60, 10.0, 32, 32)
    pairs = timed_pairs(steady, 1.0, 4.0, 0.55, 3, np.random.default_rng(5))
    starts = pair_starts(30, 6, 3, np.random.default_rng(5)) + 10
    assert pairs == [(int(start), int(start) + 6, 10.0) for start in starts]
