"""Repetitions of a labeler with other seeds count once in a report; what differs otherwise does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from invact_vla.core.schema import LatentLabels
from invact_vla.data.label_store import LabelIdentity, LabelStore
from latent_actions.labelers import LapaConfig
from latent_actions.labelers.label import LabelConfig
from latent_actions.report.agreement import Agreement
from latent_actions.report.measure import Measured
from latent_actions.report.probes import Estimate
from latent_actions.report.seeds import over_seeds
from latent_actions.report.stores import Labeled
from latent_actions.report.usage import measure_usage
from latent_actions.report.verdict import verdict

GROUPS = [f"video {n // 4}" for n in range(40)]


def labeled(folder: str, laq: str, codes: np.ndarray, **others: str) -> Labeled:
    count = len(codes)
    identity = LabelIdentity("lapa", f"hash of {laq}", "ssv2/val", "data", 8, codes.shape[1])
    text = tuple("push" for _ in range(count))
    frames = np.arange(count)
    store = LabelStore(
        replace(identity, **others),
        text,
        text,
        text,
        frames,
        frames + 1,
        text,
        LatentLabels(codes, 8),
    )
    config = LabelConfig(labeler=LapaConfig(laq=Path(laq)))
    return Labeled("lapa " + folder, store, folder=Path(folder), config=config)


def measured(folder: str, laq: str, value: float, **others: str) -> Measured:
    rng = np.random.default_rng(int(1000 * value))
    codes = rng.integers(8, size=(40, 4))
    codes[:, int(10 * value) % 4] = 0  # which position is dead differs between seeds
    draws = value + 0.01 * rng.normal(size=1000)
    scene = Agreement(Estimate.of(value, draws, 40, GROUPS), value / 2, 0.1, 0.0)
    usage = measure_usage(codes, 8, GROUPS)
    return Measured(labeled(folder, laq, codes, **others), usage=usage, scene=scene)


def test_seeds_are_one_labeler_with_an_interval_over_them() -> None:
    seeds = [
        measured(f"r/labels_{n}", f"r/laq_{n}", value) for n, value in enumerate((0.1, 0.2, 0.6))
    ]
    (one,) = over_seeds(seeds)
    assert one.name == "lapa (labels), 3 seeds"
    assert isinstance(one.scene, Agreement) and isinstance(one.actions, str)
    found = one.scene.normalized
    assert found.value == pytest.approx(0.3) and one.scene.observed == pytest.approx(0.15)
    assert (found.n, found.clusters) == (40, 10)
    assert 0.05 < found.low < 0.2 and 0.4 < found.high < 0.65  # of the seeds more than of the draws
    assert not isinstance(one.usage, str)
    assert one.usage.perplexity[0].value == pytest.approx(1)  # the dead position, wherever it was
    assert "lapa (labels), 3 seeds" in verdict([one]).sentence


@pytest.mark.parametrize(
    "two",
    [
        measured("r/labels_1", "r/laq_0", 0.2),  # the same network labeled twice
        measured("r/labels_1", "r/other_1", 0.2),
        measured("r/others_1", "r/laq_1", 0.2),
        measured("r/labels", "r/laq_1", 0.2),
        measured("r/labels_1", "r/laq_1", 0.2, dataset_hash="other data"),
    ],
)
def test_what_differs_by_more_than_seeds_stays_apart(two: Measured) -> None:
    one = measured("r/labels_0", "r/laq_0", 0.1)
    assert [m.name for m in over_seeds([one, two])] == [
        one.name,
        two.name,
    ]


def test_another_labeler_setting_is_no_seed() -> None:
    one, two = measured("r/labels_0", "r/laq_0", 0.1), measured("r/labels_1", "r/laq_1", 0.2)
    config = LabelConfig(labeler=LapaConfig(laq=Path("r/laq_1"), dtype="bf16"))
    two = replace(two, labeled=replace(two.labeled, config=config))
    assert [m.name for m in over_seeds([one, two])] == [one.name, two.name]


def test_groups_of_one_name_are_told_apart() -> None:
    runs = [
        ("a/labels_0", "laq_0"),
        ("a/labels_1", "laq_1"),
        ("b/labels_0", "laq_2"),
        ("b/labels_1", "laq_3"),
    ]
    found = over_seeds([measured(folder, laq, 0.1) for folder, laq in runs])
    assert [m.name for m in found] == ["lapa (labels), 2 seeds", "lapa (b/labels_0), 2 seeds"]
    named = [measured(f"c/lapa_{seed}", f"laq_{seed}", 0.1) for seed in (0, 1)]
    assert [m.name for m in over_seeds(named)] == ["lapa, 2 seeds"]


def test_a_seed_without_a_result_is_not_averaged_away() -> None:
    one, two = measured("r/labels_0", "r/laq_0", 0.1), measured("r/labels_1", "r/laq_1", 0.2)
    (mean,) = over_seeds([one, replace(two, scene="no pair has a verb or a text")])
    assert mean.scene == "no pair has a verb or a text"
