"""The labeling benchmark: both sides give the codes of the same weights."""

import numpy as np
import pytest
import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.data.video.video_io import write_video
from latent_actions.labelers.laq.bench import (
    LAPA,
    OURS,
    BenchLabelConfig,
    as_published,
    main,
    pairs_of,
    published_codes,
)
from latent_actions.labelers.laq.blocks import PositionGenerator
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer

SIZES = {
    "dim": 32, "quant_dim": 4, "image_size": 32, "patch_size": 4, "spatial_depth": 1,
    "temporal_depth": 1, "dim_head": 16, "heads": 2,
}  # fmt: skip


@pytest.mark.parametrize("compat", [True, False])
def test_the_published_steps_give_the_same_codes(compat, monkeypatch):
    torch.manual_seed(0)
    model = LatentActionQuantizer(LaqConfig(**SIZES, lapa_compat=compat)).eval()
    with torch.no_grad():
        model.vq.project_in.weight *= 30 if compat else 1  # deltas as long as the codes
    video = torch.rand(6, 3, 2, 32, 32)
    expected = model.codes(video)
    assert len(expected.unique()) > 2
    published = as_published(model)
    monkeypatch.setattr(PositionGenerator, "_tap", None)  # the quick way is not taken
    assert (published_codes(published, video) == expected).all()


def test_both_sides_are_timed_on_the_same_pairs(tmp_path, capsys):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (2, 20, 3, 4, 3), np.uint8).repeat(16, 2).repeat(16, 3)
    for name, clip in zip("ab", frames, strict=True):
        write_video(tmp_path / f"{name}.mp4", clip, 10)
    out = tmp_path / "found.json"
    config = BenchLabelConfig(
        model=LaqConfig(**SIZES, fit="squash"), videos=tmp_path, horizon_s=0.5, rounds=2, out=out
    )
    assert main(config) == 0
    found = read_json(out)
    assert found["clips"] == 2 and found["pairs_per_clip"] == 19
    assert found["equal_codes"] > 0.9  # JPEG files lose a little
    assert set(found["sides"]) == {LAPA, OURS}
    assert f"{found['faster']['median']:.1f} [" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (0, [(start, min(start + 5, 11)) for start in range(11)]),  # min(idx + window, n - 1)
        (1, [(0, 5)]),
        (3, [(0, 5), (3, 8), (6, 11)]),
        (50, [(start, start + 5) for start in range(7)]),
    ],
)
def test_pairs_are_those_of_every_frame_or_of_whole_horizons(tmp_path, asked, expected):
    frames = np.random.default_rng(0).integers(0, 255, (12, 32, 32, 3), np.uint8)
    write_video(tmp_path / "a.mp4", frames, 10)
    config = BenchLabelConfig(videos=tmp_path, horizon_s=0.5, pairs_per_clip=asked)
    assert [(r.frame, r.frame_end) for r in pairs_of(config, tmp_path)] == expected


def test_videos_that_are_too_short_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no video of 2\.4 s or more below"):
        main(BenchLabelConfig(videos=tmp_path))
