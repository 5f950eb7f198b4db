"""Sampler, augmentation and texts: what a training batch holds."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.augment import AugmentConfig, augment
from latent_actions.encoder.inputs.batches import (
    ActionConfig,
    ClipBatches,
    ClipTextConfig,
    class_verbs,
)
from latent_actions.encoder.inputs.clips import pair_views
from latent_actions.encoder.inputs.language import (
    LanguageHead,
    text_features,
    verb_sentence,
    without_subject,
)
from latent_actions.encoder.inputs.sampler import CLIPS_PER_GROUP, GroupSampler, SamplerConfig
from latent_actions.encoder.inputs.sprites import MOTIONS, SpriteConfig, sprite_table


@pytest.fixture(scope="module")
def table():
    return sprite_table(
        SpriteConfig(moments=160, val_moments=24, train_scenes=5, val_scenes=3, size=16), 4
    )


def test_sprites_are_reproducible_and_split_by_scene(table):
    again = sprite_table(
        SpriteConfig(moments=160, val_moments=24, train_scenes=5, val_scenes=3, size=16), 4
    )
    np.testing.assert_array_equal(table.frames, again.frames)
    assert table.frames.shape == (368, 4, 16, 16, 3) and table.frames.dtype == np.uint8
    scenes = {
        split: {table.scene[row] for row in table.rows_of(split)} for split in ("train", "val")
    }
    assert not scenes["train"] & scenes["val"]
    assert {table.verb[row] for row in table.rows_of("train")} == set(MOTIONS)


def test_training_scenes_favor_two_actions(table):
    rows = [row for row in table.rows_of("train") if table.scene[row] == "scene0"]
    count = sorted((sum(table.verb[r] == v for r in rows) for v in MOTIONS), reverse=True)
    assert sum(count[:2]) / len(rows) > 0.7


def test_groups_hold_what_the_loss_needs(table):
    sampler = GroupSampler(table, table.rows_of("train"), SamplerConfig(), seed=0)
    for step in range(20):
        rows = sampler.batch(step, 32)
        assert len(rows) == 32 and all(table.split[row] == "train" for row in rows)
        for group in rows.reshape(-1, CLIPS_PER_GROUP):
            facts = [(table.verb[r], table.scene[r], table.view[r]) for r in group]
            for verb, scene, view in facts[:4]:
                assert any(v == verb and s != scene for v, s, _ in facts)
                assert any(v == verb and w != view for v, _, w in facts)
                assert any(v != verb and s == scene for v, s, _ in facts)


def test_batches_are_a_function_of_seed_and_step(table):
    rows = table.rows_of("train")
    one, two = (GroupSampler(table, rows, SamplerConfig(), seed=3) for _ in range(2))
    one.batch(0, 16)
    np.testing.assert_array_equal(one.batch(7, 16), two.batch(7, 16))
    assert (
        one.batch(7, 16) != GroupSampler(table, rows, SamplerConfig(), seed=4).batch(7, 16)
    ).any()


def test_random_batches_are_pairs_of_views(table):
    sampler = GroupSampler(table, table.rows_of("train"), SamplerConfig(kind="random"), seed=0)
    rows = sampler.batch(0, 20).reshape(-1, 2)
    assert all(table.moment[a] == table.moment[b] for a, b in rows)
    assert all((table.view[a], table.view[b]) == ("ego", "exo") for a, b in rows)


def test_too_few_scenes_or_views_are_explained(table):
    rows = [row for row in table.rows_of("train") if table.scene[row] == "scene0"]
    with pytest.raises(UserError, match="in two scenes"):
        GroupSampler(table, np.array(rows), SamplerConfig(), seed=0)
    one_verb = replace(table, verb=("left",) * len(table))
    with pytest.raises(UserError, match="show other actions too"):
        GroupSampler(one_verb, table.rows_of("train"), SamplerConfig(), seed=0)
    ego = [row for row in table.rows_of("train") if table.view[row] == "ego"]
    with pytest.raises(UserError, match="ego and an exo"):
        GroupSampler(table, np.array(ego), SamplerConfig(kind="random"), seed=0)
    with pytest.raises(UserError, match="multiple of 8"):
        GroupSampler(table, table.rows_of("train"), SamplerConfig(), seed=0).batch(0, 12)


def test_pairs_of_views(table):
    pairs = pair_views(table, table.rows_of("val"))
    assert len(pairs.ego) == 24
    assert all(
        table.moment[a] == table.moment[b] for a, b in zip(pairs.ego, pairs.exo, strict=True)
    )
    assert {table.view[row] for row in pairs.exo} == {"exo"}


def test_augmentation_is_one_transform_a_clip(table):
    still = np.repeat(table.frames[:3, :1], 4, axis=1)
    pixels = augment(still, 12, AugmentConfig(), np.random.default_rng(0))
    assert pixels.shape == (3, 4, 12, 12, 3) and pixels.min() >= 0 and pixels.max() <= 1
    assert torch.allclose(pixels[:, 0], pixels[:, 3])


def test_no_augmentation_is_the_identity(table):
    plain = AugmentConfig(
        crop_scale=(1.0, 1.0),
        rotation=0.0,
        aspect_jitter=0.0,
        brightness=0.0,
        contrast=0.0,
        color=0.0,
        shuffle_channels=0.0,
    )
    pixels = augment(table.frames[:2], 16, plain, np.random.default_rng(0))
    np.testing.assert_allclose(pixels.numpy() * 255, table.frames[:2], atol=1e-2)


def test_text_features():
    rows = text_features(["pick", "pick up", "place", ""])
    np.testing.assert_allclose(np.linalg.norm(rows[:3], axis=1), 1, atol=1e-6)
    assert rows[0] @ rows[1] > 0.5 > rows[0] @ rows[2] and not rows[3].any()
    assert verb_sentence("pick") == "a person picks something"
    assert without_subject("C picks a cup.") == "picks a cup."


def test_language_head_is_saved_and_read_back(tmp_path):
    head = LanguageHead(["pick", "place"], 8)
    head.save_pretrained(tmp_path / "language")
    again = LanguageHead.from_pretrained(tmp_path / "language")
    assert again.verbs == head.verbs
    assert torch.equal(again(again.verb_features), head(head.verb_features))


def test_batch_contents(table):
    rows = table.rows_of("train")
    batches = ClipBatches(
        table,
        rows,
        size=16,
        sampler=SamplerConfig(),
        augmentation=AugmentConfig(),
        text=ClipTextConfig(min_clips=1),
        seed=0,
    )
    one, two = batches(5, 16), batches(5, 16)
    assert torch.equal(one.pixels, two.pixels) and torch.equal(one.text, two.text)
    assert one.pixels.shape == (16, 4, 16, 16, 3) and one.text.shape[0] == 16
    assert (one.verb_class >= 0).all()
    assert torch.equal(one.items.moment[::2], one.items.moment[1::2])


def test_rare_verbs_are_no_class(table):
    rows = table.rows_of("train")
    assert class_verbs(table, rows, 1) == tuple(sorted(MOTIONS))
    assert class_verbs(table, rows, 10**6) == tuple(sorted(MOTIONS))  # none is frequent: keep all


def test_oversampled_frames(table):
    dense = replace(table, oversample=2)
    still = dense.read(np.array([3, 5]))
    np.testing.assert_array_equal(still, table.frames[[3, 5]][:, 1::2])
    drawn = dense.read(np.array([3] * 50), np.random.default_rng(0))
    assert drawn.shape == (50, 2, 16, 16, 3)
    pairs = table.frames[3].reshape(2, 2, 16, 16, 3)
    for place in range(2):
        seen = [any((clip[place] == frame).all() for clip in drawn) for frame in pairs[place]]
        assert seen == [True, True]
    np.testing.assert_array_equal(table.read(np.array([4])), table.frames[[4]])


def turning(table, **options):
    """Batches of a table whose actions are open and close, in two directions each."""
    texts = [f"C {'opens' if i % 4 < 2 else 'closes'} the box" for i in range(len(table))]
    return ClipBatches(
        replace(table, text=tuple(texts)), table.rows_of("train"), size=16,
        sampler=SamplerConfig(), augmentation=STILL, text=ClipTextConfig(),
        action=ActionConfig(**options), seed=0,
    )  # fmt: skip


STILL = AugmentConfig(
    crop_scale=(1, 1), rotation=0, aspect_jitter=0, min_temporal_crop=1, brightness=0,
    contrast=0, color=0, shuffle_channels=0,
)  # fmt: skip


def test_half_of_a_group_is_its_own_action_shown_backwards(table):
    batch = turning(table, label="direction", time_reversed=1.0)(0, 16)
    turned = batch.items.time_reversed
    assert turned.tolist() == [False] * 4 + [True] * 4 + [False] * 4 + [True] * 4
    assert (batch.verb_class[turned] == -1).all() and (batch.verb_class[~turned] >= 0).all()
    for start in (0, 8):
        forth, back = batch.pixels[start : start + 4], batch.pixels[start + 4 : start + 8]
        torch.testing.assert_close(back, forth.flip(1))
        for name in ("verb", "scene", "view", "moment"):
            column = getattr(batch.items, name)
            assert torch.equal(column[start : start + 4], column[start + 4 : start + 8])


def test_actions_without_an_opposite_are_never_shown_backwards(table):
    stirring = replace(table, text=("C stirs the tea",) * len(table))
    batches = ClipBatches(
        stirring, table.rows_of("train"), size=16, sampler=SamplerConfig(), augmentation=STILL,
        text=ClipTextConfig(), action=ActionConfig(label="direction", time_reversed=1.0), seed=0,
    )  # fmt: skip
    assert not batches(0, 32).items.time_reversed.any()


def test_a_direction_makes_an_action_of_its_own(table):
    plain, split = turning(table), turning(table, label="direction")
    assert (
        len(set(plain.ids["verb"])) < len(set(split.ids["verb"])) <= 2 * len(set(plain.ids["verb"]))
    )
    assert plain.verbs == split.verbs  # classes of the verb term are the verbs in both
    assert torch.equal(plain(0, 16).pixels, split(0, 16).pixels)


def test_a_fraction_of_clips_is_time_reversed():
    with pytest.raises(ValueError, match="time_reversed must be in"):
        ActionConfig(time_reversed=1.5)
    with pytest.raises(ValueError, match="needs label direction"):
        ActionConfig(time_reversed=0.5)


def test_a_still_frame_changes_the_place_and_keeps_the_motion(table):
    mixed = augment(
        table.frames[:6], 16, replace(STILL, static_frame_mixup=0.9), np.random.default_rng(0)
    )
    plain = augment(table.frames[:6], 16, STILL, np.random.default_rng(0))
    for before, after in zip(plain, mixed, strict=True):
        assert (before - after).abs().mean() > 0.005
        change, changed = before.diff(dim=0), after.diff(dim=0)
        kept = (change * changed).sum() / change.square().sum()
        assert 0.09 < kept < 1
        torch.testing.assert_close(changed, kept * change, atol=1e-5, rtol=0)
