"""Code usage, and the guard: a collapsed model is caught, a healthy one is left alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from invact_vla.core.errors import UserError
from invact_vla.training.loop import LoopConfig, fit
from latent_actions.labelers.guard.codebook_usage import (
    code_counts,
    codebook_stats,
    entropy_nats,
    most_alike,
    pair_counts,
)
from latent_actions.labelers.guard.collapse import CollapseConfig, CollapseGuard, diagnose, reseed
from latent_actions.labelers.guard.guarded import after_step, guarded_loss
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.task import LaqTask, batches

TINY = LaqConfig(
    dim=16, quant_dim=4, image_size=16, patch_size=2, spatial_depth=1, temporal_depth=1, dim_head=8,
    heads=2, residual=True,
)  # fmt: skip


def moving_squares(count: int, seed: int = 0, still: bool = False) -> np.ndarray:
    """Pairs of 16 px frames, uint8 (N, 2, 16, 16, 3): a bright square that jumps by up to 4 px."""
    frames = np.full((count, 2, 16, 16, 3), 60, np.uint8)
    rng = np.random.default_rng(seed)
    for pair in frames:
        row, column = rng.integers(4, 9, 2)
        step = (0, 0) if still else rng.integers(-4, 5, 2)
        pair[0, row : row + 4, column : column + 4] = 220
        pair[1, row + step[0] : row + step[0] + 4, column + step[1] : column + step[1] + 4] = 220
    return frames


def test_health_of_known_codes() -> None:
    codes = np.array([[0, 0], [0, 1], [0, 2], [0, 3]])
    health = codebook_stats(codes, 4)
    assert health.usage == (1, 4) and not health.all_used
    assert health.perplexity == pytest.approx((1.0, 4.0))
    assert health.joint_entropy_bits == pytest.approx(2.0)
    assert health.top_tuple == (0, 0) and health.top_tuple_fraction == 0.25
    assert "1/4 4/4" in " ".join(health.lines()) and health.to_json()["pairs"] == 4


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 200), st.integers(1, 5), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_health_stays_in_its_bounds(pairs: int, positions: int, size: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, size, (pairs, positions))
    health = codebook_stats(codes, size)
    assert all(1 <= n <= min(size, pairs) for n in health.usage)
    assert all(1 <= p <= n + 1e-9 for p, n in zip(health.perplexity, health.usage, strict=True))
    marginal = sum(np.log2(health.perplexity))
    assert -1e-9 <= health.joint_entropy_bits <= min(np.log2(pairs), marginal) + 1e-9
    assert code_counts(codes, size).sum() == codes.size
    assert 1 / pairs <= health.top_tuple_fraction <= 1


def test_health_refuses_what_is_not_codes() -> None:
    for bad in (np.zeros((0, 4), int), np.zeros(4, int), np.zeros((2, 4)), np.full((2, 4), 8)):
        with pytest.raises(ValueError, match="codes"):
            codebook_stats(bad, 8)
    assert entropy_nats(np.zeros(4)) == 0


def various_codes(pairs: int = 64) -> torch.Tensor:
    """Codes that use everything: int64 (pairs, 4)."""
    return torch.randint(0, 8, (pairs, 4), generator=torch.Generator().manual_seed(0))


def guard(**fields: float) -> CollapseGuard:
    config = CollapseConfig(**{"window": 5, "patience": 2, **fields})  # type: ignore[arg-type]
    return CollapseGuard(config, positions=4, codebook_size=8, steps=1000, seed=0)


def run_guard(watch: CollapseGuard, codes: torch.Tensor, steps: int) -> torch.Tensor:
    codebook, outputs = torch.randn(8, 3), torch.randn(64, 3)
    for step in range(steps):
        watch.observe(codes, step)
        watch.act(step, codebook, outputs, torch.full((16,), 0.2))
    return codebook


def test_collapsed_codes_stop_the_run_with_a_diagnosis() -> None:
    with pytest.raises(
        UserError, match=r"collapsed at step 9: perplexity 1.00.*for 2 windows of 5"
    ):
        run_guard(guard(), torch.full((16, 4), 3), 20)


def test_one_collapsed_position_is_enough() -> None:
    codes = torch.randint(0, 8, (64, 4), generator=torch.Generator().manual_seed(0))
    run_guard(guard(), codes, 40)
    codes[:, 2] = 0
    with pytest.raises(UserError, match="collapsed"):
        run_guard(guard(), codes, 40)


def test_near_copies_of_a_position_stop_the_run_though_all_codes_are_used() -> None:
    codes = various_codes()
    codes[:, 3] = (codes[:, 1] + 3) % 8
    stats = codebook_stats(codes.repeat(4, 1).numpy(), 8)
    assert min(stats.perplexity) > 6 and stats.alike == (1, 3) and stats.copied > 0.99
    assert "positions 1 and 3 are near copies: one tells 100 % of" in stats.problems()[0]
    with pytest.raises(UserError, match=r"collapsed at step 9.*positions 1 and 3 are near copies"):
        run_guard(guard(), codes, 20)
    run_guard(guard(max_copied=1.0), codes, 20)


def test_what_positions_tell_of_each_other_is_their_mutual_information() -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 4, 40_000)
    codes = np.stack(
        [one, rng.integers(0, 4, 40_000), one // 2], axis=1
    )  # the last: half of the first
    alike, copied = most_alike(pair_counts(codes, 4), 3)
    assert alike == (0, 2) and copied == pytest.approx(1.0)  # one bit, and the first tells it
    stats = codebook_stats(codes[:, :2], 4)
    assert stats.copied == pytest.approx(0.0, abs=1e-3) and stats.problems() == []
    assert codebook_stats(codes[:, :1], 4).copied == 0
    assert "perplexity 1.00" in codebook_stats(np.zeros((400, 2), int), 4).problems()[0]


def test_recovery_resets_the_strikes() -> None:
    watch, healthy = guard(), various_codes()
    for step in range(40):
        codes = torch.zeros_like(healthy) if step % 10 < 5 else healthy
        watch.observe(codes, step)
        watch.act(step, torch.randn(8, 3), torch.randn(64, 3), torch.ones(16))


def test_dead_codes_move_to_far_outputs_and_living_ones_stay() -> None:
    codebook = torch.zeros(4, 2)
    codebook[0] = 1.0
    before = codebook.clone()
    outputs = torch.tensor([[1.0, 1.0]] * 50 + [[9.0, 9.0]])
    dead = torch.tensor([False, False, True, False])
    assert reseed(codebook, dead, outputs, torch.Generator().manual_seed(0)) == 1
    assert torch.equal(codebook[[0, 1, 3]], before[[0, 1, 3]])
    assert torch.equal(codebook[2], outputs[-1])


def test_reseeding_ends_before_the_training_does() -> None:
    watch = guard(reseed_until=0.0)
    codes = torch.randint(0, 4, (64, 4), generator=torch.Generator().manual_seed(0))  # 4..7 dead
    codebook = torch.randn(8, 3)
    start = codebook.clone()
    for step in range(1, 10):
        watch.observe(codes, step)
        assert watch.act(step, codebook, torch.randn(64, 3), torch.ones(16)) == 0
    assert torch.equal(codebook, start)


def test_the_diagnosis_names_the_cause() -> None:
    codebook, outputs = torch.randn(8, 4), torch.randn(100, 4)
    assert "raise horizon_s" in diagnose(codebook, outputs, torch.zeros(10))
    same = torch.ones(100, 4)
    assert "same output for every pair" in diagnose(codebook, same, torch.ones(10))
    assert "share few codes" in diagnose(codebook, outputs, torch.ones(10))


def loop(steps: int, **fields: float) -> LoopConfig:
    return LoopConfig(
        steps=steps, batch_size=16, learning_rate=3e-3, weight_decay=0.0, log_every=5,
        checkpoint_every=10, **fields,
    )  # fmt: skip


def test_training_on_still_pairs_is_stopped(tmp_path) -> None:
    torch.manual_seed(0)
    settings_ = CollapseConfig(window=5, patience=2, min_perplexity=3.0, dead_code_threshold=0.0)
    task = LaqTask(TINY, settings_, steps=40, seed=0)
    # a model whose projector sees nothing: all deltas are zero
    torch.nn.init.zeros_(task.laq.vq.project_in.weight)
    task.laq.vq.project_in.weight.requires_grad_(False)
    frames = moving_squares(64, still=True)
    with pytest.raises(UserError, match="nearly static"):
        fit(task, guarded_loss, batches(frames, 16, 0), loop(40), tmp_path, after_step, "collapse")


def test_a_killed_training_ends_with_the_same_weights(tmp_path) -> None:
    frames = moving_squares(128)
    results = []
    for name, stops in (("whole", [15]), ("killed", [12, 15])):
        for stop in stops:
            torch.manual_seed(0)
            task = LaqTask(TINY, CollapseConfig(window=5), steps=15, seed=0)

            def hook(model, step, metrics, stop=stop) -> None:
                if step + 1 == stop and stop < 15:
                    raise KeyboardInterrupt
                after_step(model, step, metrics)

            (tmp_path / name).mkdir(exist_ok=True)
            try:
                fit(task, guarded_loss, batches(frames, 16, 0), loop(15), tmp_path / name, hook)
            except KeyboardInterrupt:
                continue
        results.append(task.state_dict())
    for key, value in results[0].items():
        assert torch.equal(value, results[1][key]), key
