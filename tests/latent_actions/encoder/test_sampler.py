"""The group sampler: its pinned stream, the best exo camera."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.clips import ClipTable, pair_views
from latent_actions.encoder.inputs.sampler import GroupSampler, SamplerConfig
from latent_actions.encoder.inputs.sprites import SpriteConfig, sprite_table

COLUMNS = ("moment", "take", "scene", "view", "camera", "verb", "text", "split")
# rows of a batch of 16 before the options were there: the default draws the same random numbers
PINNED = [68, 69, 80, 81, 268, 269, 184, 185, 186, 187, 116, 117, 118, 119, 68, 69]
PINNED_THREE_EXO = [68, 586, 80, 81, 268, 269, 184, 185, 138, 139, 10, 373, 134, 435, 60, 582]


@pytest.fixture(scope="module")
def table() -> ClipTable:
    return sprite_table(
        SpriteConfig(moments=160, val_moments=24, train_scenes=5, val_scenes=3, size=8), 2
    )


@pytest.fixture(scope="module")
def three_exo(table) -> ClipTable:
    """The table with two further exo cameras of every moment; cam02 is the best of even ones."""
    exo = [row for row in range(len(table)) if table.view[row] == "exo"]
    rows = [*range(len(table)), *exo, *exo]
    columns = {name: tuple(getattr(table, name)[row] for row in rows) for name in COLUMNS}
    columns["camera"] = (
        *table.camera, *(("cam02",) * len(exo)), *(("cam03",) * len(exo))
    )  # fmt: skip
    even = [int(moment[1:]) % 2 == 0 for moment in columns["moment"]]
    best = tuple(
        is_even and camera == "cam02"
        for is_even, camera in zip(even, columns["camera"], strict=True)
    )
    return replace(table, frames=table.frames[rows], best=best, **columns)


def sampler(table: ClipTable, seed: int = 0, **options) -> GroupSampler:
    return GroupSampler(table, table.rows_of("train"), SamplerConfig(**options), seed)


def test_the_stream_of_the_default_is_pinned(table, three_exo):
    assert sampler(table).batch(0, 16).tolist() == PINNED
    plain = replace(three_exo, best=())
    assert sampler(plain).batch(0, 16).tolist() == PINNED_THREE_EXO


@pytest.mark.parametrize("kind", ["random", "takes"])
@pytest.mark.parametrize("size", [1, 9])
def test_such_batches_are_of_pairs(table, size, kind):
    with pytest.raises(UserError, match="multiple of 2"):
        sampler(table, kind=kind).batch(0, size)


def test_batches_of_takes_hold_several_moments_of_each(table):
    drawn = sampler(table, kind="takes", per_take=4)
    sizes = Counter(table.take[drawn.ego[moment][0]] for moment in drawn.moments)
    assert max(sizes.values()) > 4, "takes are larger than what is drawn of them"
    seen = set()
    for step in range(40):
        rows = drawn.batch(step, 30)
        moments = [table.moment[row] for row in rows[::2]]
        assert moments == [table.moment[row] for row in rows[1::2]]
        assert {table.view[row] for row in rows[::2]} == {"ego"}
        assert rows.tolist() == drawn.batch(step, 30).tolist()
        start = 0
        while start < len(moments):
            take = table.take[rows[2 * start]]
            count = min(4, sizes[take], len(moments) - start)
            part = moments[start : start + count]
            assert len(set(part)) == count
            assert {table.take[row] for row in rows[2 * start : 2 * (start + count)]} == {take}
            start += count
        seen |= set(moments)
    assert len(seen) > 0.9 * len(drawn.moments)
    with pytest.raises(ValueError, match="per_take must be >= 1"):
        SamplerConfig(kind="takes", per_take=0)


@pytest.mark.parametrize("options", [{}, {"kind": "random"}])
def test_the_best_exo_camera_comes_more_often(three_exo, options):
    drawn = sampler(three_exo, **options)
    rows = np.concatenate([drawn.batch(step, 64) for step in range(50)])
    share = {}
    for even in (True, False):
        cameras = [
            three_exo.camera[row]
            for row in rows
            if three_exo.view[row] == "exo" and (int(three_exo.moment[row][1:]) % 2 == 0) == even
        ]
        share[even] = [cameras.count(camera) / len(cameras) for camera in ("cam02", "cam01")]
    assert share[True] == pytest.approx([2 / 3, 1 / 6], abs=0.07)  # 1/2 + 1/2 * 1/3
    assert share[False] == pytest.approx([1 / 3, 1 / 3], abs=0.07)  # none is named best


def test_tests_see_the_best_exo_camera_or_the_first(three_exo):
    rows = three_exo.rows_of("val")
    for table, expected in (
        (three_exo, {True: "cam02", False: "cam01"}),
        (replace(three_exo, best=()), {True: "cam01", False: "cam01"}),
    ):
        pairs = pair_views(table, rows)
        assert len(pairs.exo) == 24
        for row in pairs.exo:
            assert table.camera[row] == expected[int(table.moment[row][1:]) % 2 == 0]
