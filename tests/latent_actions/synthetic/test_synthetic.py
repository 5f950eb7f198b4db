"""The generator: same bytes whatever the interruptions, truth that agrees with the pictures."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import draccus
import numpy as np
import pyarrow.parquet as pq
import pytest

from invact_vla.core.files import hash_file
from invact_vla.data.video.frames import decode_all, probe
from latent_actions.synthetic.config import SynthContent, Variety
from latent_actions.synthetic.generate import SynthConfig, main
from latent_actions.synthetic.hand import HandLook
from latent_actions.synthetic.motions import HandPath, Key, backwards, hand_rotation
from latent_actions.synthetic.objects import KINDS
from latent_actions.synthetic.performance import plan_performance, play, set_phase
from latent_actions.synthetic.recording import _looking_away, camera_tracks, record
from latent_actions.synthetic.scenes import make_scene, scene_name
from latent_actions.synthetic.ssv2_labels import labels_json
from latent_actions.synthetic.takes import Segment, favorite_families, plan_clip, plan_take
from latent_actions.synthetic.truth import read_masks
from latent_actions.synthetic.vocabulary import ACTIONS, FAMILIES
from latent_actions.synthetic.world import cached_world
from latent_actions.video.sources import EgoExo4dSource
from latent_actions.video.verbs import verb_of
from tests.latent_actions.conftest import TINY
from tests.paths import REPOSITORY

# what run folders and readers add
RUN_FILES = {
    "provenance.json", "config.yaml", "done.json", "summary.json", ".lock", ".probes.json",
}  # fmt: skip


def hashes(root: Path) -> dict[str, str]:
    """{relative path: hash} of the product, without what the run folder adds."""
    files = [path for path in root.rglob("*") if path.is_file() and path.name not in RUN_FILES]
    return {path.relative_to(root).as_posix(): hash_file(path) for path in files}


def test_resumed_run_has_the_same_bytes(tree, tmp_path):
    """Part of the files deleted, other workers: the missing ones come back, the rest is kept."""
    expected = hashes(tree)
    out = main(replace(TINY, out=tmp_path / "again"))
    assert hashes(out) == expected
    (out / "done.json").unlink()
    removed = [path for k, path in enumerate(sorted(out.rglob("*.mp4"))) if k % 2] + sorted(
        out.rglob("*.webm")
    )[:2]
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    for path in removed:
        path.unlink()
    assert hashes(main(replace(TINY, out=out, workers=2))) == expected
    assert any(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())


def test_killed_run_goes_on(tree, tmp_path):
    """SIGKILL in the middle, then the same command to the end."""
    out = tmp_path / "killed"
    config = tmp_path / "config.yaml"
    config.write_text(draccus.dump(replace(TINY, out=out)))
    command = [
        sys.executable,
        "-m",
        "invact_vla.app.cli",
        "data",
        "synth",
        "--config_path",
        str(config),
    ]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(out.rglob("*.npz")):
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "done.json").exists()
    assert hashes(main(replace(TINY, out=out))) == hashes(tree)


def test_tree_is_read_by_the_real_loader(tree):
    source = EgoExo4dSource(root=tree / "egoexo4d")
    train, dropped = source.index("train")
    actions = pq.read_table(tree / "truth" / "actions.parquet").to_pylist()
    told = [row for row in actions if row["dataset"] == "egoexo4d" and row["split"] == "train"]
    lost = {"about another person", "of rejected annotations", "of further annotators"}
    others = sum(n for reason, n in dropped.counts.items() if reason not in lost)
    assert len(train) == 3 * (len(told) - others) > 0
    by_take = {(row["episode"], row["verb"]) for row in told}
    for clip in train:
        assert (clip.take, clip.verb) in by_take
        near = [
            r for r in told if r["episode"] == clip.take and abs(r["start_s"] - clip.start_s) < 0.1
        ]
        assert len(near) == 1 and near[0]["verb"] == clip.verb and near[0]["scene"] in clip.scene
        assert clip.end_s >= near[0]["end_s"] - 0.1
    scenes = {split: {c.scene for c in source.clips(split)} for split in ("train", "val")}
    assert len(scenes["train"]) == 2 and not scenes["train"] & scenes["val"]


def test_truth_has_a_row_a_frame(tree):
    for path in (tree / "truth" / "egoexo4d").glob("*.npz"):
        arrays = np.load(path)
        video = next((tree / "egoexo4d" / "takes" / path.stem).rglob("aria*.mp4"))
        count = probe(video).n_frames
        assert arrays["pose"].shape == arrays["velocity"].shape == (count, 7)
        assert 0 <= arrays["velocity"][:, 6].min() <= arrays["velocity"][:, 6].max() <= 1
        assert np.abs(np.linalg.norm(arrays["pose"][:, 3:], axis=1) - 1).max() < 1e-4
        assert arrays["cut"][0] and arrays["cut"].sum() >= 2
        hand, thing = read_masks(path, "cam01")
        assert hand.shape == (count, 16, 16) and not (hand & thing).any()
        assert hand.any((1, 2)).mean() > 0.8 and thing.any((1, 2)).mean() > 0.8


def test_velocity_integrates_to_the_pose(tree):
    """Between cuts, the mean of the velocities at both ends predicts the wrist's step."""
    for path in (tree / "truth" / "egoexo4d").glob("*.npz"):
        arrays = np.load(path)
        inside = ~arrays["cut"][1:]
        step = np.diff(arrays["pose"][:, :3], axis=0)[inside]
        velocity = arrays["velocity"][:, :3]
        predicted = ((velocity[1:] + velocity[:-1]) / 2)[inside] / TINY.fps
        assert np.linalg.norm(step, axis=1).max() > 0.02
        assert np.linalg.norm(step - predicted, axis=1).mean() < 0.012


def test_motion_is_where_the_masks_are(tree):
    """Exo pictures change more at hand and object than elsewhere."""
    video = next((tree / "egoexo4d").rglob("cam01.mp4"))
    take = video.parents[3].name
    hand, thing = read_masks(tree / "truth" / "egoexo4d" / f"{take}.npz", "cam01")
    change = np.abs(np.diff(decode_all(video, size=16).astype(float), axis=0)).mean(-1)
    acting = (hand | thing)[1:]
    assert change[acting].mean() > 5 * change[~acting].mean()


def test_vocabulary_is_rich_and_has_opposites():
    verbs = {verb_of(f"C {action.third_person} it") for action in ACTIONS.values()}
    assert len(verbs) >= 12 and len(KINDS) >= 8
    for action in ACTIONS.values():
        if action.opposite is not None:
            assert ACTIONS[action.opposite].opposite == action.name
    planned = {name for family in FAMILIES.values() for chain in family.chains for name in chain}
    assert planned == set(ACTIONS)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_planned(family):
    for number in range(6):
        rng = np.random.default_rng([7, number])
        plan = plan_performance(rng, family, ("left", "right")[number % 2], 10.0, (1.2, 1.8))
        assert len(plan.spans) == len(plan.actions)
        for (_, end), (start, _) in zip(plan.spans[:-1], plan.spans[1:], strict=True):
            assert end == start
        times = np.linspace(0, plan.duration_s, 50)
        track = plan.path.sample(times)
        assert np.isfinite(track.wrist).all() and np.abs(track.wrist).max() < 0.9
        assert np.abs(np.linalg.norm(track.quaternion, axis=1) - 1).max() < 1e-6


@pytest.mark.parametrize("family", ["pick_place", "push_pull", "slide", "lift_lower", "stack"])
def test_handled_objects_stay_upright(family):
    """Reaching, dragging and setting down do not knock the object over."""
    for number in range(3):
        side = ("left", "right")[number % 2]
        world = cached_world(seed=0, split="train", number=0, n_exo=2, side=side, size=32)
        rng = np.random.default_rng([11, number])
        plan = plan_performance(rng, family, side, 10.0, (1.2, 1.8), FAMILIES[family].chains[0])
        world.reset(HandLook((0.8, 0.6, 0.5), (0.2, 0.3, 0.6)), {})
        set_phase(world, plan)
        upright = [
            world.data.xmat[world.body[plan.kind]][8]
            for _ in play(world, plan, 10.0, round(plan.duration_s * 10))
        ]
        assert min(upright) > np.cos(np.radians(25))


def played(family, chain, seed=5):
    """World after a performance, and its plan."""
    world = cached_world(seed=0, split="train", number=0, n_exo=2, side="right", size=32)
    plan = plan_performance(np.random.default_rng(seed), family, "right", 10.0, (1.2, 1.8), chain)
    world.reset(HandLook((0.8, 0.6, 0.5), (0.2, 0.3, 0.6)), {})
    set_phase(world, plan)
    for _ in play(world, plan, 10.0, round(plan.duration_s * 10) + 3):
        pass
    return world, plan


def test_a_door_swings_open_and_shut():
    for chain, low, high in ((("open",), 1.2, 1.7), (("close",), -0.1, 0.15)):
        world, _ = played("door", chain)
        assert low < world.data.qpos[world.qpos("cabinet")][0] < high


def test_what_is_added_lies_in_the_bowl_and_food_stays_under_the_knife():
    world, plan = played("add", ("add",))
    thing, bowl = (world.data.xpos[world.body[name]] for name in (plan.kind, "bowl"))
    assert np.linalg.norm(thing[:2] - bowl[:2]) < 0.08 and thing[2] < 0.08
    for family in ("cut", "slice"):
        world, plan = played(family, (family,))
        np.testing.assert_allclose(
            world.data.xpos[world.body["cucumber"]], plan.partner_origin, atol=0.003
        )


def test_kitchens_are_asked_for():
    """Without, all is as it was; with, a take has what kitchens add."""

    def seen(kitchen: bool) -> set[str]:
        content = replace(TINY, kitchen=kitchen, scene_verb_correlation=0.0)
        plans = [plan_take(content, "train", index) for index in range(12)]
        clips = [plan_clip(content, "train", index) for index in range(60)]
        kinds.update(b.performance.kind for p in clips for b in p.blocks)
        return {a for p in plans + clips for b in p.blocks for a in b.performance.actions}

    new, kinds = {"cut", "slice", "wash", "hold", "add"}, set()
    assert not seen(False) & new and "cabinet" not in kinds
    assert new < seen(True) and "cabinet" in kinds
    assert len(labels_json(True)) == len(labels_json()) + len(new)


def test_what_is_performed_by_default_stays_what_it_was():
    """Published figures are of these takes and clips."""
    content = SynthContent()
    assert [block.performance.family for block in plan_take(content, "train", 0).blocks] == [
        "lift_lower", "lift_lower", "lift_lower", "push_pull", "lift_lower", "pick_place", "slide",
    ]  # fmt: skip
    take = plan_take(content, "val", 1)
    kinds = ["can", "sponge", "can", "jar", "carton", "spoon", "brick", "brick", "bottle"]
    assert take.frames == 219 and [block.performance.kind for block in take.blocks] == kinds
    clips = [plan_clip(content, "train", index).blocks[0].performance for index in range(10)]
    assert [clip.actions[0] for clip in clips] == [
        "place", "place", "stack", "slide_right", "slide_right", "lower", "twist_right", "pull",
        "place", "tap",
    ]  # fmt: skip


def test_heads_turn_to_what_is_picked_and_stay_with_what_is_cut():
    def turn(family, chain):
        content = replace(TINY, variety=replace(Variety(), gaze=1))
        plan = plan_take(content, "train", 0)
        performance = plan_performance(
            np.random.default_rng(1), family, "right", 10.0, (1.2, 1.8), chain
        )
        frames = round((performance.duration_s + 0.2) * 10)
        plan = replace(plan, side="right", blocks=(Segment(0, frames, performance),))
        scene = make_scene(content.seed, plan.split, plan.number, content.n_exo)
        forward = -camera_tracks(plan, scene, 10.0, content.variety)["ego"].axes[..., 2]
        return np.degrees(np.arccos(np.clip(forward @ forward[len(forward) // 2], -1, 1)))

    picked, cut = turn("pick_place", ("pick",)), turn("cut", ("cut",))
    assert picked[0] > 10 and picked[-1] > 10 and cut.max() < 6


@pytest.mark.parametrize(
    ("family", "chain", "start", "end"),
    [
        ("pick_place", ("pick", "place"), 1, 0), ("pick_place", ("place", "pick"), 1, 1),
        ("stack", ("stack", "unstack"), 0, 0), ("stack", ("unstack", "stack"), 1, 0),
        ("open_close", ("close",), 0, 1), ("lift_lower", ("lift", "lower"), 0, 0),
    ],
)  # fmt: skip
def test_the_gaze_never_jumps_and_stays_where_it_went(family, chain, start, end):
    plan = plan_performance(np.random.default_rng(1), family, "right", 10.0, (1.2, 1.8), chain)
    share = _looking_away(plan, np.arange(0, plan.duration_s + 0.5, 0.01) - 0.2)
    assert share[0] == share[15] == start and share[-1] == share[-20] == pytest.approx(end)
    assert np.abs(np.diff(share)).max() < 0.03 and 0 <= share.min() <= share.max() <= 1


def test_backwards_is_the_reverse_path():
    rotation = hand_rotation("top", "right")
    keys = [
        Key(0.0, np.zeros(3), rotation, 0.0),
        Key(0.4, np.array([0.1, 0, 0]), rotation, 1.0, event="attach", free=False),
        Key(1.0, np.array([0.1, 0.2, 0]), rotation, 1.0, eased=False),
    ]
    bend = np.array([0.0, 0.0, 0.1])
    there, back = (HandPath(k, "right", bend).sample for k in (keys, backwards(keys)))
    times = np.linspace(0, 1, 21)
    assert np.abs(there(times).wrist - back(1 - times).wrist).max() < 1e-9
    assert HandPath(backwards(keys), "right", bend).events() == [(0.6, "detach")]


def test_scene_names_differ_and_validation_has_its_own():
    train = [scene_name("train", number) for number in range(40)]
    val = [scene_name("val", number) for number in range(25)]
    assert len({*train, *val}) == 65


@pytest.mark.parametrize("count", [4, 2])
def test_correlation_makes_favorites(count):
    def share(correlation: float) -> float:
        content = replace(
            TINY, scene_verb_correlation=correlation, scene_favorites=count, n_train_scenes=4
        )
        plans = [plan_take(content, "train", index) for index in range(24)]
        hits = [
            block.performance.family in favorite_families(plan.number, count)
            for plan in plans
            for block in plan.blocks
        ]
        return float(np.mean(hits))

    assert share(1.0) == 1.0 and share(0.0) < 0.55


def test_annotation_files_have_the_traps_of_the_real_ones(tmp_path):
    """Mixed truth values and subject keys, rejected and second annotators, other people."""
    from latent_actions.synthetic.annotations import descriptions_json

    plans = [plan_take(TINY, "train", index) for index in range(40)]
    content = descriptions_json(plans, TINY.fps, {plan.name: "cam01" for plan in plans})
    annotations = [a for rows in content["annotations"].values() for a in rows]
    rows = [row for a in annotations for row in a["descriptions"]]
    assert {type(row["unsure"]) for row in rows} == {bool, str}
    assert {"subject" in row for row in rows} == {True, False}
    assert {row.get("subject", row.get("narration_subject")) for row in rows} == {"C", "O"}
    assert any(a["rejected"] is True for a in annotations)
    assert any(len(rows) > 1 for rows in content["annotations"].values())
    assert any(row["best_exo"] is None for row in rows)
    assert json.loads(json.dumps(content)) == content


@pytest.mark.parametrize(
    ("field", "value"),
    [("size", 30), ("scene_verb_correlation", 1.5), ("workers", 0), ("fps", 0.0)],
)
def test_config_is_checked(field, value):
    with pytest.raises(ValueError, match=field):
        replace(TINY, **{field: value})


WIDE = Variety(
    shake=5, views=1, lens=0.4, light=0.3, blur=0.6, noise=0.03, hands=0.3, people=1, occlusion=0.5,
    textures=0.8, gaze=1, slow=1,
)  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(Variety)])
def test_every_kind_of_variety_changes_the_pictures_and_none_changes_nothing(name):
    plain = recorded(Variety())
    found = recorded(replace(Variety(), **{name: getattr(WIDE, name)}))
    assert any(
        len(found.frames[c]) != len(plain.frames[c]) or (found.frames[c] != plain.frames[c]).any()
        for c in plain.frames
    )
    if name in ("light", "noise", "occlusion", "textures", "blur"):  # the same motion is filmed
        np.testing.assert_array_equal(found.pose, plain.pose)
        np.testing.assert_array_equal(found.masks["ego"], plain.masks["ego"])
    with pytest.raises(ValueError, match=rf"variety\.{name}"):
        replace(Variety(), **{name: -0.1})


@functools.cache
def recorded(variety):
    content = replace(TINY, size=48, variety=variety)
    return record(content, plan_take(content, "train", 0), content.fps)


def test_masks_of_a_varied_take_are_those_of_hand_and_object():
    found, plain = recorded(WIDE), recorded(Variety())
    for camera, masks in found.masks.items():
        assert set(np.unique(masks)) <= {0, 1, 2} and (masks == 1).any()
        assert len(masks) == len(found.frames[camera]) >= len(plain.frames[camera])
    ego = [(take.masks["ego"] == 1).mean() for take in (found, plain)]
    assert ego[0] < ego[1]  # glasses see more of the room
    recorded.cache_clear()
    again = recorded(WIDE)
    np.testing.assert_array_equal(again.frames["cam01"], found.frames["cam01"])


@pytest.mark.parametrize("name", ["synth_debug", "synth_cpu", "synth_kitchen"])
def test_configs_parse(name):
    path = REPOSITORY / "configs" / "data" / f"{name}.yaml"
    assert isinstance(draccus.parse(SynthConfig, path, args=[]), SynthConfig)
