"""PhyWorld: formulas against physics, the published layout, labels, damaged files."""

from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from invact_vla.data.hdf5_file import read_shards, write_shards
from invact_vla.data.video.frames import VideoError, decode_all, decode_frames, probe
from latent_actions.video import phyworld as motion
from latent_actions.video.phyworld import (
    PhyWorldConfig,
    draw,
    event_of,
    main,
    sample_at,
    tags_of,
)
from latent_actions.video.sources import PhyWorldSource
from latent_actions.video.store import FrameStore

SIZE = 64


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phyworld") / "run"
    return main(PhyWorldConfig(out=out, train=3, val=5, shard=2, size=SIZE, workers=1))


def integrate(position, velocity, gravity):
    """Semi-implicit Euler at 0.01 s, a frame every 10 steps: what the published generator does."""
    position, velocity, frames = np.array(position), np.array(velocity), []
    for step in range(320):
        velocity = velocity - [0, gravity * 0.01]
        position = position + velocity * 0.01
        if step % 10 == 0:
            frames.append(position)
    return np.array(frames)


def test_formulas_agree_with_integration():
    thrown = motion.parabola(np.array([2.0, 8.0]), "left", 0.8, 2.5)
    np.testing.assert_allclose(
        thrown.positions[:, 0], integrate([2.0, 8.0], [-2.5, 0.0], motion.GRAVITY), atol=1e-9
    )
    moved = motion.uniform_motion(np.array([2.0, 8.0]), "down", 0.8, 1.5)
    np.testing.assert_allclose(
        moved.positions[:, 0], integrate([2.0, 8.0], [0.0, -1.5], 0.0), atol=1e-9
    )


def test_collision_keeps_momentum_and_energy():
    rng = np.random.default_rng(0)
    for _ in range(50):
        radii, speeds = rng.uniform(0.5, 1.5, 2), rng.uniform(1, 4, 2)
        mass, before = radii**2, speeds * [1, -1]
        after = np.array(motion.speeds_after(tuple(radii), tuple(speeds)))
        assert mass @ after == pytest.approx(mass @ before)
        assert mass @ after**2 == pytest.approx(mass @ before**2)
        sample = motion.collision((2.0, 7.0), 5.0, tuple(radii), tuple(speeds))
        gap = sample.positions[:, 1, 0] - sample.positions[:, 0, 0]
        assert (gap >= radii.sum() - 1e-9).all()  # they never overlap
        last = np.diff(sample.positions[-2:], axis=0)[0, :, 0] / motion.FRAME_S
        np.testing.assert_allclose(last, after, atol=1e-9)


def test_events_are_read_from_ground_truth():
    def event(sample, scenario):
        return event_of(scenario, sample.positions, np.array(sample.init))

    for direction in motion.DIRECTIONS:
        sample = motion.uniform_motion(np.array([5.0, 5.0]), direction, 1.0, 2.0)
        assert event(sample, "uniform_motion") == f"move {direction}"
    still = motion.uniform_motion(np.array([5.0, 5.0]), "left", 1.0, 0.0)
    assert event(still, "uniform_motion") == "rest"
    assert event(motion.parabola(np.zeros(2), "left", 1.0, 2.0), "parabola") == "fall left"
    assert event(motion.parabola(np.zeros(2), "left", 1.0, 0.0), "parabola") == "fall straight"
    equal = motion.collision((2, 8), 5.0, (1.0, 1.0), (3.0, 1.0))  # equal masses swap speeds
    assert event(equal, "collision") == "collide: red goes back, blue goes back, red faster"
    heavy = motion.collision((2, 8), 5.0, (1.5, 0.5), (3.0, 1.0))
    assert event(heavy, "collision") == "collide: red goes on, blue goes back, red faster"
    far = motion.collision((1, 9), 5.0, (0.5, 0.5), (0.5, 0.5))
    assert event(far, "collision") == "approach"


def test_layout_is_the_published_one(run):
    import h5py

    with h5py.File(run / "id_ood_data" / "collision_eval.hdf5") as file:
        assert set(file) == {"position_streams", "init_streams", "video_streams"}
        assert list(file["video_streams"]) == ["00000", "00001", "00002"]
        assert file["position_streams/00000"].shape == (2, 32, 2, 2)
        assert file["init_streams/00002"].shape == (1, 4)
        assert file["video_streams/00000"].dtype == h5py.vlen_dtype(np.uint8)
        assert bytes(file["video_streams/00000"][0])[4:8] == b"ftyp"  # an MP4 file
    with h5py.File(run / "id_ood_data" / "parabola_30K.hdf5") as file:
        assert file["position_streams/00000"].shape == (2, 32, 2)  # one ball has no axis
        assert file["init_streams/00001"].shape == (1, 2)


def test_frames_show_the_balls_where_positions_say(run):
    for scenario in motion.SCENARIOS:
        shard = read_shards(run / "id_ood_data" / f"{scenario}_eval.hdf5")[0]
        frames = decode_all(shard.videos[0]).astype(float)
        assert frames.shape == (32, SIZE, SIZE, 3)
        red = (frames[..., 0] > 127) & (frames[..., 1] < 127) & (frames[..., 2] < 127)
        for frame in range(0, 16, 5):
            rows, columns = np.nonzero(red[frame])
            x = (columns.mean() + 0.5) / SIZE * 10
            y = 10 - (rows.mean() + 0.5) / SIZE * 10
            assert np.hypot(*(np.array([x, y]) - shard.positions[0, frame, 0])) < 0.15
            radius = np.sqrt(red[frame].sum() / np.pi) / SIZE * 10
            assert radius == pytest.approx(shard.init[0, 0], abs=0.15)


def test_samples_are_a_function_of_the_seed(run, tmp_path):
    config = PhyWorldConfig(out=tmp_path / "a", train=3, val=5, shard=2, size=SIZE, workers=2)
    again = main(config)
    for file in sorted((run / "id_ood_data").iterdir()):
        for one, two in zip(
            read_shards(file), read_shards(again / "id_ood_data" / file.name), strict=True
        ):
            assert (one.positions == two.positions).all() and (one.init == two.init).all()
            assert (decode_all(one.videos[0]) == decode_all(two.videos[0])).all()
    other = sample_at(PhyWorldConfig(out=tmp_path, seed=1), "collision", 0, 0)
    assert other.init != sample_at(config, "collision", 0, 0).init


def test_drawn_samples_are_in_distribution_and_visible():
    config = PhyWorldConfig(out=Path("unused"))
    for scenario in motion.SCENARIOS:
        for index in range(60):
            sample = sample_at(config, scenario, 0, index)
            tags = tags_of(scenario, sample.positions, np.array(sample.init))
            assert tags["in_distribution"] == 1 and tags["event"] not in ("rest", "approach")
            early = sample.positions[:4, 0]
            assert (early > -0.1).all() and (early < 10.1).all()
    assert draw(sample, 32).shape == (32, 32, 32, 3)


def test_source_lists_truth_and_nuisances(run):
    source = PhyWorldSource(root=run)
    clips = source.clips("val")
    assert len(clips) == 15 and len(source.clips("train")) == 9
    assert {clip.tags["scenario"] for clip in clips} == set(motion.SCENARIOS)
    assert all(clip.verb == clip.tags["event"] and clip.scene.startswith("r") for clip in clips)
    collision = next(clip for clip in clips if clip.tags["scenario"] == "collision")
    assert {"r1", "r2", "v1", "v2", "height_bin"} <= set(collision.tags)
    scenario = PhyWorldSource(root=run, label="scenario", scene="sample").clips("val")
    assert {clip.verb for clip in scenario} == set(motion.SCENARIOS)
    assert len({clip.scene for clip in scenario}) == 15
    with pytest.raises(UserError, match=r"no \*_3M\.hdf5"):
        PhyWorldSource(root=run, train="3M").clips("train")


def test_videos_inside_the_file_go_into_a_store(run, tmp_path):
    clips = PhyWorldSource(root=run).clips("val")[:3]
    store = FrameStore.build(clips, tmp_path / "s", frames=4, size=16, workers=1)
    assert store.frames.shape == (3, 4, 16, 16, 3)
    lazy = FrameStore.build(clips, tmp_path / "l", frames=4, size=16, workers=1, on_the_fly=True)
    assert (lazy.batch([2, 0]) == store.batch([2, 0])).all()


def test_damage_inside_the_file(run, tmp_path):
    file = tmp_path / "collision_eval.hdf5"
    shard = read_shards(run / "id_ood_data" / "collision_eval.hdf5")[0]
    good = _bytes_of(shard.videos[0])
    positions = np.repeat(shard.positions[:1], 3, axis=0)
    positions[2, 0] = np.nan
    init = np.repeat(shard.init[:1], 3, axis=0)
    write_shards(file, [(positions, init, [good, b"no video", good])])
    source = PhyWorldSource(root=tmp_path, max_skipped=0.5)
    clips, dropped = source.index("val")
    assert len(clips) == 2 and dropped.counts == {"positions that are no numbers": 1}
    store = FrameStore.build(clips, tmp_path / "s", 2, 16, workers=1, max_skipped=0.5)
    assert [record.clip_id for record in store.records] == [clips[0].clip_id]
    with pytest.raises(VideoError, match="cannot decode"):
        decode_frames(clips[1].video, [0])
    with pytest.raises(VideoError, match="no video video_streams/00000/7"):
        probe(file / "video_streams" / "00000" / "7")
    file.write_bytes(b"not HDF5")
    with pytest.raises(UserError, match="as PhyWorld data"):
        source.clips("val")


def _bytes_of(video: Path) -> bytes:
    from invact_vla.data.hdf5_file import read_embedded

    found = read_embedded(video)
    assert found is not None
    return found


def test_config_is_checked(tmp_path):
    with pytest.raises(ValueError, match="right or left"):
        PhyWorldConfig(out=tmp_path, directions=("up",))
    with pytest.raises(ValueError, match="even"):
        PhyWorldConfig(out=tmp_path, size=33)
