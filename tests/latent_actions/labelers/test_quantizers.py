"""Every quantizer of the registry: range, determinism, round trips, save and load; and k-means."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from invact_vla.core.errors import UserError
from latent_actions.labelers.guard.codebook_usage import codebook_stats
from latent_actions.labelers.quantizers import (
    FiniteScalarQuantizerConfig,
    PCAQuantileQuantizerConfig,
    ProductQuantizerConfig,
    QuantizerConfig,
    ResidualQuantizerConfig,
    SplitQuantizerConfig,
    TreeQuantizerConfig,
    allocate,
    load_quantizer,
    principal_axes,
    save_quantizer,
)
from latent_actions.labelers.quantizers.kmeans import (
    balanced_kmeans,
    kmeans,
    nearest,
    squared_distances,
)

MEMBERS = sorted(QuantizerConfig.get_known_choices())


def embeddings(count: int = 600, width: int = 24, seed: int = 0) -> np.ndarray:
    """Unit vectors with a falling spectrum, as an encoder gives."""
    values = np.random.default_rng(seed).normal(size=(count, width)) * np.linspace(3, 0.1, width)
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def config_of(name: str, **fields: int) -> QuantizerConfig:
    return QuantizerConfig.get_choice_class(name)(**fields)


def test_the_registry_is_known() -> None:
    assert MEMBERS == ["fsq", "kmeans", "pca_quantile", "pq", "rvq", "sinkhorn", "split"]


@pytest.mark.parametrize("name", MEMBERS)
def test_contract(name: str, tmp_path: Path) -> None:
    train, held_out = embeddings(), embeddings(300, seed=1)
    quantizer = config_of(name).fit(train)
    codes = quantizer.encode(held_out)
    assert codes.shape == (300, 4) and codes.dtype == np.int64
    assert quantizer.code_length == 4 and quantizer.codebook_size == 8 and quantizer.width == 24
    assert np.array_equal(codes, quantizer.encode(held_out))
    assert codebook_stats(codes, 8).all_used or name in ("kmeans", "split")  # few points a cell
    decoded = quantizer.decode(codes)
    assert decoded.shape == held_out.shape and decoded.dtype == np.float32
    assert quantizer.explained_variance(held_out) > 0.1
    assert config_of(name).fit(train).hash == quantizer.hash
    save_quantizer(quantizer, tmp_path / "q")
    loaded = load_quantizer(tmp_path / "q")
    assert loaded.config == quantizer.config and loaded.hash == quantizer.hash
    assert np.array_equal(loaded.encode(held_out), codes)


@pytest.mark.parametrize("name", ["pq", "fsq", "kmeans", "pca_quantile"])
def test_codes_of_decoded_codes_are_the_codes(name: str) -> None:
    quantizer = config_of(name).fit(embeddings())
    codes = quantizer.encode(embeddings(200, seed=2))
    assert np.array_equal(quantizer.encode(quantizer.decode(codes)), codes)


@pytest.mark.parametrize("name", MEMBERS)
def test_rows_are_independent(name: str) -> None:
    quantizer, values = config_of(name).fit(embeddings()), embeddings(50, seed=3)
    one_by_one = np.concatenate([quantizer.encode(values[i : i + 1]) for i in range(50)])
    assert np.array_equal(one_by_one, quantizer.encode(values))


@settings(max_examples=15, deadline=None)
@given(
    name=st.sampled_from(MEMBERS),
    positions=st.integers(1, 5),
    codes=st.integers(2, 9),
    width=st.integers(5, 12),
    seed=st.integers(0, 1000),
)
def test_any_size_stays_in_range(
    name: str, positions: int, codes: int, width: int, seed: int
) -> None:
    # split: two parts, and an axis for each code of the first
    assume(name != "split" or (positions > 1 and width - 3 >= positions - 2))
    quantizer = config_of(name, positions=positions, codes=codes).fit(embeddings(80, width, seed))
    far = 100 * np.random.default_rng(seed).normal(size=(20, width))
    found = quantizer.encode(far)
    assert found.shape == (20, positions) and found.min() >= 0 and found.max() < codes


def test_residual_positions_refine() -> None:
    values = embeddings()
    fitted = [ResidualQuantizerConfig(positions=k).fit(values) for k in (1, 2, 4)]
    shares = [quantizer.explained_variance(values) for quantizer in fitted]
    assert shares == sorted(shares) and shares[-1] > shares[0] + 0.05


@pytest.mark.parametrize("name", MEMBERS)
def test_collapsed_embeddings_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="at least 8 different embeddings"):
        config_of(name).fit(np.tile(embeddings(1), (100, 1)))


def test_wrong_width_and_bad_files_are_refused(tmp_path: Path) -> None:
    quantizer = ProductQuantizerConfig().fit(embeddings())
    with pytest.raises(UserError, match="fitted on 24 dimensions, got 12"):
        quantizer.encode(embeddings(width=12))
    with pytest.raises(UserError, match="no file"):
        load_quantizer(tmp_path / "absent")
    save_quantizer(quantizer, tmp_path / "q")
    (tmp_path / "q" / "quantizer.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="not a whole weights file"):
        load_quantizer(tmp_path / "q")
    (tmp_path / "q" / "quantizer.json").write_text('{"type": "none"}')
    with pytest.raises(UserError, match="not a quantizer config"):
        load_quantizer(tmp_path / "q")


def test_impossible_configs_are_refused() -> None:
    with pytest.raises(ValueError, match="positions"):
        ProductQuantizerConfig(positions=0)
    with pytest.raises(ValueError, match="codes"):
        ResidualQuantizerConfig(codes=1)
    with pytest.raises(ValueError, match="dims"):
        ProductQuantizerConfig(dims=2)
    with pytest.raises(UserError, match="4 axes needed"):
        PCAQuantileQuantizerConfig().fit(embeddings(width=3))


def test_split_deals_codes_to_the_last_columns() -> None:
    values = np.concatenate([embeddings(), 1e-3 * embeddings(width=3, seed=5)], axis=1)
    quantizer = SplitQuantizerConfig().fit(values)
    codes, decoded = quantizer.encode(values), quantizer.decode(quantizer.encode(values))
    other = values.copy()
    other[:, :-3] = values[::-1, :-3]
    assert np.array_equal(quantizer.encode(other)[:, 2:], codes[:, 2:])
    assert not np.array_equal(quantizer.encode(other)[:, :2], codes[:, :2])
    rest = values[:, -3:] - decoded[:, -3:]
    assert rest.var() < 0.2 * values[:, -3:].var()  # small as they are
    with pytest.raises(ValueError, match="positions at least 2"):
        SplitQuantizerConfig(positions=1)
    with pytest.raises(UserError, match=r"labeler\.vector both"):
        SplitQuantizerConfig().fit(embeddings(width=3))


def test_allocation_balances_the_variance() -> None:
    variance = 0.7 ** np.arange(16)
    groups = allocate(variance, 4)
    assert sorted(axis for group in groups for axis in group) == list(range(16)) and {
        len(g) for g in groups
    } == {4}
    in_turn = [variance[i * 4 : i * 4 + 4].sum() for i in range(4)]
    assert np.ptp([variance[g].sum() for g in groups]) < 0.5 * np.ptp(in_turn)


def test_principal_axes_are_orthonormal_and_ordered() -> None:
    _, axes, variance = principal_axes(embeddings().astype(float))
    np.testing.assert_allclose(axes @ axes.T, np.eye(24), atol=1e-10)
    assert np.all(np.diff(variance) <= 0)


def test_kmeans_finds_separate_clusters_and_uses_all_centers() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(8, 3)) * 20
    points = (truth[:, None] + rng.normal(size=(8, 30, 3))).reshape(-1, 3)
    centers = kmeans(points, 8, np.random.default_rng(1))
    assert squared_distances(truth, centers).min(axis=1).max() < 1.0
    assert np.array_equal(centers[:, 0], np.sort(centers[:, 0]))
    repeated = np.repeat(np.arange(8.0)[:, None], [93] + [1] * 7, axis=0)
    found = kmeans(repeated, 8, np.random.default_rng(2))
    assert len(np.unique(nearest(repeated, found))) == 8


def test_kmeans_needs_enough_points() -> None:
    with pytest.raises(ValueError, match="at least as many points"):
        kmeans(np.zeros((3, 2)), 8, np.random.default_rng(0))


def test_balanced_codes_are_used_evenly() -> None:
    """A cluster with most of the points takes most of plain k-means' labels, not of balanced ones."""
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(0, 1, (900, 2)), rng.normal(12, 4, (100, 2))])
    plain = kmeans(points, 8, np.random.default_rng(1))
    centers, offsets = balanced_kmeans(points, 8, np.random.default_rng(1))
    codes = (squared_distances(points, centers) + offsets).argmin(axis=1)
    counts = [np.bincount(found, minlength=8) for found in (nearest(points, plain), codes)]
    assert counts[1].min() > 80 > counts[0].min() and counts[1].max() < 180 < counts[0].max()


def test_a_tree_refines_from_code_to_code_and_stops_at_few_points() -> None:
    values = embeddings()
    fitted = [TreeQuantizerConfig(positions=k).fit(values) for k in (1, 2, 3)]
    shares = [quantizer.explained_variance(values) for quantizer in fitted]
    assert shares == sorted(shares)
    few = TreeQuantizerConfig(positions=3, codes=3).fit(embeddings(5))
    assert few.explained_variance(embeddings(5)) == pytest.approx(1)
    with pytest.raises(ValueError, match="at most"):
        TreeQuantizerConfig(positions=8)


def test_finite_scalar_levels_are_equally_wide() -> None:
    quantizer = FiniteScalarQuantizerConfig(positions=1, codes=4).fit(embeddings())
    line = quantizer.arrays["mean"] + np.linspace(-3, 3, 601)[:, None] * (
        quantizer.arrays["axes"] * quantizer.arrays["scale"][:, None]
    )
    codes = quantizer.encode(line)[:, 0]
    edges = np.linspace(-3, 3, 601)[np.flatnonzero(np.diff(codes)) + 1]
    np.testing.assert_allclose(np.tanh(edges), [-0.5, 0, 0.5], atol=0.02)
