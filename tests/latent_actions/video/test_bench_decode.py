"""The decoding benchmark: every installed library reads the same clips."""

import numpy as np
import pytest
from PIL import Image

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.data.video.video_io import write_video
from latent_actions.video.bench_decode import BenchDecodeConfig, installed, lines, main, measure


def test_installed_libraries_are_compared_on_both_containers(tmp_path, capsys):
    frames = np.repeat(np.arange(24, dtype=np.uint8) * 10, 48 * 64 * 3).reshape(24, 48, 64, 3)
    for suffix, codec in (("webm", "vp9"), ("mp4", "h264")):
        write_video(tmp_path / f"a.{suffix}", frames, 12, codec)
    out = tmp_path / "found.json"
    assert main(BenchDecodeConfig(videos=tmp_path, frames=4, size=16, rounds=2, out=out)) == 0
    found = read_json(out)
    names = list(installed()[0])
    assert names[0] == "PyAV" and set(found["containers"]) == {"webm", "mp4"}
    for part in found["containers"].values():
        assert set(part["decoders"]) == set(names)
        assert part["decoders"]["PyAV"]["difference"] == 0
        assert part["decoders"]["PyAV"]["ratio"]["median"] == 1
        assert all(row["difference"] < 4 for row in part["decoders"].values())
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) == len(lines(found))
    for part in found["containers"].values():
        assert f"{part['decoders']['PyAV']['clips_per_s']:.1f} clips/s" in printed


def test_a_folder_without_videos_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no \.webm or \.mp4 file below"):
        main(BenchDecodeConfig(videos=tmp_path))


def test_folders_of_pictures_are_measured_by_this_project(tmp_path):
    for number in range(6):
        picture = Image.fromarray(np.full((48, 64, 3), 40 * number, np.uint8))
        (tmp_path / "clip").mkdir(exist_ok=True)
        picture.save(tmp_path / "clip" / f"img_{number + 1:05d}.png")
    config = BenchDecodeConfig(videos=tmp_path, frames=3, size=16, rounds=2)
    part = measure(config)["containers"]["pictures"]
    assert list(part["decoders"]) == ["PyAV"] and part["shape"].startswith("64 x 48, 6 frames")
    assert part["decoders"]["PyAV"]["clips_per_s"] > 0
