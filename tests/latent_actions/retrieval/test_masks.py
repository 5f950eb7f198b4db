"""Mask metrics against draws of random sets, and coverage against a loop over pixels."""

import numpy as np
import pytest

from latent_actions.retrieval.benchmarks.commitment import chance_overlap, overlap, token_coverage


def test_overlap_by_hand():
    action = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    mask = np.array([[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], bool)
    np.testing.assert_allclose(overlap(action, mask), [1 / 3, 0, 1])


@pytest.mark.parametrize("chosen,masked", [(5, 8), (1, 1), (20, 20), (0, 4), (18, 15)])
def test_chance_is_the_mean_over_random_sets(chosen, masked):
    rng = np.random.default_rng(0)
    mask = np.zeros((4000, 20), bool)
    mask[:, :masked] = True
    action = np.argsort(rng.random((4000, 20)), axis=1) < chosen
    expected = chance_overlap(20, np.array([chosen]), np.array([masked]))[0]
    assert overlap(action, mask).mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("size,grid", [(12, (2, 3, 3)), (14, (1, 4, 4)), (8, (4, 8, 2))])
def test_coverage_counts_pixels(size, grid):
    masks = np.random.default_rng(1).random((4, size, size)) < 0.3
    found = token_coverage(masks, grid)
    total, inside = np.zeros(grid), np.zeros(grid)
    for t, y, x in np.ndindex(*masks.shape):
        place = t * grid[0] // 4, int((y + 0.5) * grid[1] / size), int((x + 0.5) * grid[2] / size)
        total[place] += 1
        inside[place] += masks[t, y, x]
    np.testing.assert_allclose(found, inside / total)


def test_a_grid_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="do not cover"):
        token_coverage(np.zeros((3, 8, 8), bool), (2, 4, 4))
