"""Linear probes: what is linearly there is found, what is not stays at chance, takes stay apart."""

import numpy as np
import pytest

from invact_vla.core.errors import UserError
from latent_actions.retrieval.ranking import chance_of, folds, probe_hits


def test_a_linear_label_is_found_and_noise_is_not():
    rng = np.random.default_rng(0)
    labels = rng.integers(4, size=300)
    takes = (np.arange(300) // 10).tolist()
    seen = np.eye(4)[labels] @ rng.normal(size=(4, 16)) + 0.1 * rng.normal(size=(300, 16))
    assert probe_hits(seen, labels.tolist(), takes).mean() > 0.98
    blind = probe_hits(rng.normal(size=(300, 16)), labels.tolist(), takes).mean()
    assert blind < chance_of(labels.tolist()) + 0.1


def test_a_take_is_never_in_both_parts():
    """Features that name the take, labels that are its own: other takes cannot tell them."""
    takes = np.repeat(np.arange(20), 5)
    labels = np.random.default_rng(1).integers(2, size=20)[takes]
    hits = probe_hits(np.eye(20)[takes], labels.tolist(), takes.tolist())
    assert hits.mean() <= chance_of(labels.tolist()) + 0.05
    easy = probe_hits(np.eye(20)[takes], labels.tolist(), list(range(100)))
    assert easy.mean() == 1.0


def test_folds_are_even():
    assert sorted(np.bincount(folds(np.arange(12), 0)).tolist()) == [2, 2, 2, 3, 3]
    assert len(set(folds(np.arange(3), 0).tolist())) == 3


def test_one_label_is_refused():
    with pytest.raises(UserError, match="two labels and two takes"):
        probe_hits(np.eye(4), ["a"] * 4, [0, 1, 2, 3])
