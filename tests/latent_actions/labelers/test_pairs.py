"""Which pairs are labeled: horizons with jitter, inside the clip, few no-ops; and the dry run."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from invact_vla.app.cli import prepare
from invact_vla.core.errors import UserError
from invact_vla.data.video.frames import probe
from invact_vla.data.video.video_io import write_video
from latent_actions.labelers.pairs import PairConfig, describe, motions
from latent_actions.video.sources import FolderSource
from tests.latent_actions.sources import moving_square

FRAMES, FPS = 40, 10.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight films that move, four that stand still, one too short for a pair."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(13):
        frames = moving_square(number, 4 if number == 12 else FRAMES)
        if 8 <= number < 12:
            frames = np.repeat(frames[:1], FRAMES, axis=0)
        write_video(folder / f"{number:02d}.mp4", frames, FPS)
    return folder


def config(root: Path, **changes: object) -> PairConfig:
    values = {"horizon_s": 1.0, "pairs_per_clip": 3, **changes}
    source = FolderSource(root=root, held_out=0.0, workers=1)
    return PairConfig(source=source, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize("jitter", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("per_clip", [1, 3, 50])
def test_pairs_lie_inside_their_clip_and_are_a_function_of_the_seed(root, jitter, per_clip):
    made = config(root, horizon_jitter=jitter, pairs_per_clip=per_clip)
    pairs, dropped = made.draw("train")
    assert pairs == made.draw("train")[0]
    if per_clip < 50:  # 50: all pairs there are
        assert pairs != replace(made, seed=1).draw("train")[0]
    lengths = {pair.video: probe(pair.video).n_frames for pair in pairs}
    for pair in pairs:
        assert pair.frame_end <= lengths[pair.video] - 1
        low, high = (round(10 * (1 + sign * jitter) + sign * 0.5) for sign in (-1, 1))
        assert low <= pair.frame_end - pair.frame <= high
    keys = [(pair.video_id, pair.frame, pair.frame_end) for pair in pairs]
    assert len(set(keys)) == len(keys), "no pair twice"
    assert max(Counter(pair.video_id for pair in pairs).values()) <= per_clip
    if jitter < 0.9:
        assert dropped.counts == {"clips shorter than the horizon": 1}


def test_jitter_draws_another_horizon_for_each_pair(root):
    pairs, _ = config(root, horizon_jitter=0.5).draw("train")
    horizons = [pair.frame_end - pair.frame for pair in pairs]
    assert len(set(horizons)) > 5 and abs(np.mean(horizons) - 10) < 2
    starts = [pair.frame for pair in pairs if pair.video_id == "00"]
    assert len(starts) == 3 and starts == sorted(starts) and starts[-1] - starts[0] > 6


def test_a_clip_that_is_shorter_than_most_horizons_gives_the_shorter_ones(tmp_path):
    write_video(tmp_path / "a.mp4", moving_square(0, 9), FPS)  # at most 0.8 s apart
    pairs, _ = config(tmp_path, horizon_jitter=0.5, pairs_per_clip=2).draw("train")
    assert pairs and all(5 <= pair.frame_end - pair.frame <= 8 for pair in pairs)
    assert not config(tmp_path, horizon_jitter=0.1).draw("train")[0]


@pytest.mark.parametrize(("cap", "kept"), [(1.0, 12), (0.5, 12), (0.2, 6), (0.1, 2), (0.0, 0)])
def test_a_cap_on_pairs_without_motion(root, cap, kept):
    made = config(root, max_noop_fraction=cap)
    pairs, dropped = made.draw("train")
    still = [pair for pair in pairs if int(pair.video_id) >= 8]
    assert len(still) == kept and len(pairs) - kept == 24
    assert dropped.counts.get("no-op pairs", 0) == 12 - kept
    assert pairs == made.draw("train")[0], "the same seed keeps the same no-ops"
    other = replace(made, seed=3).draw("train")[0]
    assert [p.frame for p in other] != [p.frame for p in pairs]
    assert kept <= cap * len(pairs) + 1e-9


def test_motion_is_the_mean_difference_of_the_ends(root, tmp_path):
    pairs, _ = config(root).draw("train")
    found = motions(pairs)
    assert np.array_equal(found, motions(pairs, workers=2))
    still = np.array([int(pair.video_id) >= 8 for pair in pairs])
    assert (found[still] < 0.003).all() and (found[~still] > 0.03).all()
    path = tmp_path / "a.mp4"
    write_video(path, np.repeat(np.array([0, 255], np.uint8), 5)[:, None, None, None].repeat(
        32, 1).repeat(32, 2).repeat(3, 3), FPS)  # fmt: skip
    [pair] = config(tmp_path, horizon_s=0.5, pairs_per_clip=1).draw("train")[0][:1]
    assert motions([pair])[0] == pytest.approx(1, abs=0.05)
    path.write_bytes(b"gone")
    assert np.isnan(motions([pair])).all()


def test_nothing_but_no_ops_says_so(root):
    made = config(root, max_noop_fraction=0.0, noop_motion=0.99)
    with pytest.raises(UserError, match=r"no pairs 1\.0 s apart .*36 no-op pairs"):
        made.records("train")


def test_describe_counts_reasons(root):
    lines = describe(config(root, max_noop_fraction=0.2), "train")
    assert lines[0].startswith("folder train: 30 pairs of ")
    assert any("1 clips shorter than the horizon (such as 12)" in line for line in lines)
    assert any("6 no-op pairs (such as" in line for line in lines)
    assert "  horizon 1.00 s on average, 1.00 to 1.00 s" in lines
    assert "  6 of 30 pairs are no-ops (motion below 0.01; max_noop_fraction 0.2)" in lines


def test_a_dry_run_counts_and_writes_nothing(root, tmp_path, capsys):
    out = tmp_path / "labels"
    args = [
        "--out", str(out), "--dry_run", "true", "--splits", "[train]", "--labeler.type", "lapa",
        "--labeler.laq", str(tmp_path / "not trained yet"), "--pairs.source.type", "folder",
        "--pairs.source.root", str(root), "--pairs.source.held_out", "0", "--pairs.horizon_s", "1.0",
    ]  # fmt: skip
    prepare("latent label", args)()
    printed = capsys.readouterr().out
    assert "folder train: 48 pairs of 12 clips" in printed
    assert "1 clips shorter than the horizon" in printed and "16 of 48 pairs are no-ops" in printed
    assert not out.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"horizon_jitter": 1.0},
        {"horizon_jitter": -0.1},
        {"max_noop_fraction": 1.5},
        {"noop_motion": 1.0},
        *({"horizon_s": seconds} for seconds in (0.0, -1.0, float("nan"), float("inf"))),
    ],
)
def test_options_are_checked(root, changes):
    with pytest.raises(ValueError, match="must be"):
        config(root, **changes)
