"""Zero-shot protocols: who asks whom, and data sets end to end in miniature."""

from pathlib import Path

import numpy as np
import pytest

from latent_actions.encoder.inputs.sprites import SpriteConfig
from latent_actions.retrieval.benchmark import Context
from latent_actions.retrieval.benchmarks import NtuBenchmark, PhyWorldBenchmark
from latent_actions.retrieval.benchmarks.zero_shot import (
    Ssv2Benchmark,
    ZeroShotProtocol,
    opposite_classes,
    protocol_rows,
    some_of_each,
)
from latent_actions.retrieval.encoders import EvaluatedEncoder, pixel_embedding
from latent_actions.retrieval.results import Scorer
from latent_actions.video.phyworld import PhyWorldConfig, main
from latent_actions.video.records import ClipRecord
from latent_actions.video.sources import PhyWorldSource


def clip(name, verb, **tags):
    return ClipRecord(
        clip_id=name, moment_id=f"{name[:4]}{name[8:]}", take=name[:4] + name[8:12], scene="s",
        view="exo", camera="c", verb=verb, text=verb, split="val", video=Path("v.avi"),
        start_s=0.0, end_s=1.0, tags=tags,
    )  # fmt: skip


def ntu_records():
    return [
        clip(
            f"S{s:03}C{c:03}P{p:03}R001A{a:03}", f"action {a}", setup=s, camera=c, subject=p,
            one_shot=int(a == 7),
        )
        for s in (1, 2) for c in (1, 2, 3) for p in (3, 6) for a in (7, 8)
    ]  # fmt: skip


def test_ntu_protocols():
    records = ntu_records()
    found = {protocol.name: protocol for protocol in NtuBenchmark().protocols(records)}
    cameras = np.array([record.tags["camera"] for record in records])
    side = found["side view to front"]
    assert set(cameras[side.queries]) == {2, 3} and set(cameras[side.gallery]) == {1}
    assert side.groups[0] == records[0].moment_id  # the same performance is no answer
    assert set(found["across subjects"].groups) == {"3", "6"}
    assert set(found["across setups"].groups) == {"1", "2"}
    shot = found["one-shot, 1 of its 20 classes"]
    assert np.flatnonzero(shot.gallery).tolist() == [0] and shot.queries.sum() == 11


def test_scores_of_a_protocol():
    labels = ["a", "a", "b", "b"]
    every = np.ones(4, bool)
    score = Scorer("ntu", "perfect", 20)
    protocol = ZeroShotProtocol("all", labels, every, every, "wxyz")
    rows = list(protocol_rows(score, np.eye(2)[[0, 0, 1, 1]], protocol, "wxyz"))
    assert {row.measure: row.value for row in rows} == {"P@10": 10, "mAP": 100, "R@1": 100}
    assert rows[2].chance == pytest.approx(100 / 3) and rows[2].n == 4
    empty = ZeroShotProtocol("none", labels, ~every, every, labels)
    assert "0 queries" in next(protocol_rows(score, np.eye(4), empty, labels)).note


def test_ssv2_opposite_classes_differ_in_direction_only():
    names = (
        "Pushing something from left to right", "Pushing something from right to left",
        "Pulling something from left to right", "Opening something", "Closing something",
        "Moving something up", "Moving something down", "Stirring something",
    )  # fmt: skip
    pairs = opposite_classes(names)
    assert pairs[names[0]] == pairs[names[1]] and pairs["Opening something"].startswith("open")
    assert pairs["Moving something up"] == pairs["Moving something down"]
    assert names[2] not in pairs and names[-1] not in pairs
    records = [clip(f"id{i}", name) for i, name in enumerate(names)]
    protocols = list(Ssv2Benchmark().protocols(records))
    assert [int(p.queries.sum()) for p in protocols] == [8, 2, 2, 2]


def test_ssv2_camera_and_place_have_opposites_and_pushing_onto_has_none():
    names = (
        "Moving something closer to something", "Moving something away from something",
        "Approaching something with your camera", "Moving away from something with your camera",
        "Pushing something onto something", "Pulling something onto something",
    )  # fmt: skip
    pairs = opposite_classes(names)
    assert pairs[names[0]] == pairs[names[1]] != pairs[names[2]] == pairs[names[3]]
    assert set(pairs) == set(names[:4])


def test_limit_is_a_class():
    records = [clip(f"id{i}", verb) for i, verb in enumerate("aabab")]
    assert [r.clip_id for r in some_of_each(records, 1)] == ["id0", "id2"]
    assert some_of_each(records, 0) == records
    setups = [clip(f"S{s:03}C001P001R00{r}A001", "a") for s in range(5) for r in range(4)]
    assert {r.clip_id[:4] for r in some_of_each(setups, 5)} == {f"S{s:03}" for s in range(5)}


def test_phyworld_end_to_end(tmp_path):
    root = main(PhyWorldConfig(out=tmp_path / "w", train=0, val=6, shard=6, size=32, workers=1))
    context = Context(SpriteConfig(), "val", frames=4, folder=tmp_path / "f", draws=20)
    benchmark = PhyWorldBenchmark(source=PhyWorldSource(root=root, workers=1))
    encoder = EvaluatedEncoder(name="pixels", embed=pixel_embedding)
    rows = list(benchmark.rows(context, encoder))
    scenario = {r.measure: r for r in rows if r.setting == "scenario"}
    assert scenario["R@1"].n == 18
    assert scenario["R@1"].chance == pytest.approx(100 * 5 / 17)
    assert {"event", "nuisance radius_bin"} <= {row.setting for row in rows}
