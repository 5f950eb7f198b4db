"""Agreement and leakage on codes whose answer is known beforehand; usage with its intervals."""

from dataclasses import replace

import numpy as np
import pytest

from invact_vla.core.schema import LatentLabels
from invact_vla.data.label_store import LabelIdentity, LabelStore
from latent_actions.report.agreement import (
    Agreement,
    Leakage,
    cross_scene,
    cross_scene_motion,
    cross_view,
    directions,
    leakage,
)
from latent_actions.report.measure import Measured
from latent_actions.report.page import cell, overview
from latent_actions.report.stores import Labeled
from latent_actions.report.usage import measure_usage
from latent_actions.video.records import ClipRecord

VERBS, SCENES, TAKES = ("open", "close", "push"), ("kitchen", "garage"), 3
CLIPS = [
    ClipRecord(
        clip_id=f"{verb}/{scene}/{take}/{camera}", video=f"{verb}/{scene}/{take}/{camera}.mp4",  # type: ignore[arg-type]
        split="val", verb=verb, scene=scene, take=f"{scene}/{take}",
        moment_id=f"{verb}/{scene}/{take}", camera=camera, view="ego" if camera == "ego" else "exo",
    )
    for verb in VERBS for scene in SCENES for take in range(TAKES) for camera in ("ego", "cam01")
]  # fmt: skip


def labeled(codes: np.ndarray, clips=CLIPS, frame=None) -> Labeled:
    n = len(clips)
    store = LabelStore(
        identity=LabelIdentity("x", "h", "folder/val", "d", 8, 4),
        video_id=tuple(clip.clip_id for clip in clips), path=tuple(str(c.video) for c in clips),
        video_key=tuple(str(c.video) for c in clips), text=("",) * n,
        frame=np.zeros(n, int) if frame is None else frame,
        frame_end=np.full(n, 10) if frame is None else frame + 10,
        labels=LatentLabels(codes, 8),
    )  # fmt: skip
    return Labeled("x", store, clips={clip.clip_id: clip for clip in clips})


def per(what) -> np.ndarray:
    """The same code at all positions, by what `what` says of a clip."""
    names = [what(clip) for clip in CLIPS]
    return np.repeat([[sorted(set(names)).index(name)] for name in names], 4, axis=1)


def test_codes_of_the_verb_agree_everywhere_and_tell_no_place() -> None:
    found = cross_scene(labeled(per(lambda c: c.verb)))
    assert isinstance(found, Agreement) and found.normalized.value == 1 and found.observed == 1
    assert found.chance == 0 and abs(found.shuffled) < 0.3
    assert found.normalized.n == len(CLIPS) and found.normalized.clusters == 6
    seen = cross_view(labeled(per(lambda c: c.verb)))
    assert isinstance(seen, Agreement) and seen.normalized.value == 1
    told = leakage(labeled(per(lambda c: c.verb)), "scene")
    assert isinstance(told, Leakage) and told.told.value < 0.05 and told.chance == 0.5


def test_codes_of_the_place_tell_it_and_do_not_agree() -> None:
    codes = per(lambda c: c.scene)
    found = cross_scene(labeled(codes))
    assert isinstance(found, Agreement) and found.observed == found.chance == 0
    told = leakage(labeled(codes), "scene")
    assert isinstance(told, Leakage) and told.accuracy == 1 and told.told.value > 0.95
    assert told.shuffled < 0.2 and told.labels == 2


def test_codes_of_the_camera() -> None:
    codes = per(lambda c: c.camera)
    seen = cross_view(labeled(codes))
    assert isinstance(seen, Agreement) and seen.observed == 0 and seen.normalized.value == 0
    told = leakage(labeled(codes), "camera")
    assert isinstance(told, Leakage) and told.accuracy == 1


def test_chance_is_what_other_verbs_agree_by() -> None:
    """Half of the positions hold the verb, half are equal everywhere: observed 1, chance 1/2."""
    codes = per(lambda c: c.verb)
    codes[:, 2:] = 7
    found = cross_scene(labeled(codes))
    assert isinstance(found, Agreement)
    assert (found.observed, found.chance, found.normalized.value) == (1, 0.5, 1)


def test_directions_are_the_largest_number_in_its_own_units() -> None:
    motion = np.array([[9.0, 0.1, 0], [-9, 0, 0], [1, 0.9, 0], [0, -1.1, 0], [0.1, 0.01, 0]])
    assert directions(motion).tolist() == [2, 1, 4, 3, 0]
    assert directions(np.zeros((3, 2))).tolist() == [0, 0, 0]


def test_equal_motions_agree_where_verbs_do_not_cross_places() -> None:
    """Robots' tasks have a place each; codes of the motion agree all the same, those of the task not."""
    clips = [replace(clip, verb=clip.scene) for clip in CLIPS]
    axis = {verb: number for number, verb in enumerate(VERBS)}
    motion = np.eye(3)[[axis[clip.verb] for clip in CLIPS]]
    everyone = np.arange(len(clips))
    assert "no pair has a verb in two places" in str(
        cross_scene(labeled(per(lambda c: c.verb), clips))
    )
    found = cross_scene_motion(labeled(per(lambda c: c.verb), clips), everyone, motion)
    assert isinstance(found, Agreement) and found.normalized.value == 1 and found.chance == 0
    blind = cross_scene_motion(labeled(per(lambda c: c.scene), clips), everyone, motion)
    assert isinstance(blind, Agreement) and blind.normalized.value == 0
    few = cross_scene_motion(labeled(per(lambda c: c.verb), clips), everyone[::2], motion[::2])
    assert isinstance(few, Agreement) and few.normalized.n == len(clips) // 2
    none = cross_scene(labeled(per(lambda c: c.verb), clips))
    robots = Measured(labeled(per(lambda c: c.verb), clips), scene=none, moving=found)
    assert robots.elsewhere is found and overview([robots])["rows"][0][2] == cell(found.normalized)
    assert replace(robots, scene=few).elsewhere is few


def test_views_are_compared_at_the_same_time_only() -> None:
    codes = per(lambda c: c.verb)
    late = np.array([0 if clip.camera == "ego" else 6 for clip in CLIPS])
    assert isinstance(cross_view(labeled(codes, frame=late // 3)), Agreement)
    assert "no pair has two views" in str(cross_view(labeled(codes, frame=late)))


def test_other_times_of_a_demonstration_are_its_other_moments() -> None:
    """Two cameras of six demonstrations, four pairs each: codes of the time agree across them."""
    clips = [
        ClipRecord(
            clip_id=f"{demo}/{camera}", video=f"{demo}/{camera}", split="val", take=demo,  # type: ignore[arg-type]
            moment_id=demo, camera=camera, view="ego" if camera == "wrist" else "exo",
        )
        for demo in "abcdef" for camera in ("agentview", "wrist") for _ in range(4)
    ]  # fmt: skip
    part = np.tile(np.arange(4), 12)
    found = cross_view(labeled(np.repeat(part[:, None], 4, axis=1), clips, frame=20 * part))
    assert isinstance(found, Agreement) and found.normalized.n == 48
    assert (found.observed, found.chance, found.normalized.value) == (1, 0, 1)
    camera = np.array([[c.camera == "wrist"] * 4 for c in clips]).astype(int)
    blind = cross_view(labeled(camera, clips, frame=20 * part))
    assert isinstance(blind, Agreement) and blind.observed == blind.normalized.value == 0


@pytest.mark.parametrize("measure", [cross_scene, cross_view])
def test_equal_codes_and_unknown_places_are_sentences(measure) -> None:
    assert measure(labeled(np.zeros((len(CLIPS), 4), int))) == "all labels are equal"
    bare = [ClipRecord(clip_id=str(i), video=f"{i}.mp4", split="val") for i in range(6)]  # type: ignore[arg-type]
    films = labeled(np.random.default_rng(0).integers(8, size=(6, 4)), bare)
    assert isinstance(measure(films), str)
    assert "fewer than two scenes" in str(leakage(films, "scene"))
    assert "fewer than two cameras" in str(leakage(films, "camera"))


def test_usage_and_its_intervals() -> None:
    rng = np.random.default_rng(0)
    groups = [str(i // 4) for i in range(400)]
    codes = rng.integers(8, size=(400, 4))
    usage = measure_usage(codes, 8, groups)
    assert all(7.5 < p.value <= p.high <= 8 and p.low > 7 for p in usage.perplexity)
    assert abs(usage.entropy.value - usage.random_entropy) < 0.2 and usage.entropy.clusters == 100
    one = measure_usage(np.zeros((400, 4), int), 8, groups)
    assert one.entropy.value == 0 and one.perplexity[0].value == 1 and one.top.value == 1
    assert one.counts[0, 0] == 400 and one.stats.distinct_tuples == 1
    halves = measure_usage(np.repeat([[0] * 4, [1] * 4], 200, axis=0), 8, groups)
    assert halves.entropy.value == pytest.approx(1) and halves.top.value == 0.5
    single = measure_usage(codes[:1], 8, groups[:1])
    assert single.entropy.value == single.entropy.low == 0
