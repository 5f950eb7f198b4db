"""Watch code usage while a quantizing model trains; re-seed dead codes; stop a collapsed run.

The published LAQ code copies used codes over unused ones and stops doing so after step 4500;
several people report that it collapses on Something-Something V2. Here dead codes move to encoder
outputs of the current batch (of all ranks, which so keep equal codebooks), counts cover a sliding
window, and a run that stays collapsed, whose positions stay near copies of one another, or that sees
hardly any motion, ends with a diagnosis.
"""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.training.distributed import gather
from latent_actions.labelers.guard.codebook_usage import (
    MAX_COPIED,
    MIN_PERPLEXITY,
    entropy_nats,
    most_alike,
    near_copies,
)

logger = logging.getLogger(__name__)

STATIC_CHANGE = 0.01  # mean absolute difference, of 1, below which a pair counts as static
MOST_WATCHED = 2048  # positions times codes; beyond it near copies are not looked for
STATIC_ADVICE = "the pairs are nearly static: raise horizon_s, or drop static clips from the source"


@dataclass(frozen=True, kw_only=True)
class CollapseConfig:
    """When a code counts as dead and a run as collapsed."""

    window: int = 25  # steps over which usage is counted, and between two looks for dead codes
    dead_code_threshold: float = 0.02  # chosen by a smaller part of the tokens, a code is dead
    min_perplexity: float = MIN_PERPLEXITY  # a position below this has collapsed
    # part of a position's entropy that another position may tell; beyond it is a near copy
    max_copied: float = MAX_COPIED
    patience: int = 6  # windows in a row beyond a limit before the run is stopped
    reseed_until: float = 0.85  # part of the training after which codes are left alone
    max_static: float = 0.9  # more static pairs than this part, for `patience` windows: stopped

    def __post_init__(self) -> None:
        if self.window < 1 or self.patience < 1:
            raise ValueError("window and patience must be at least 1")
        if not 0 <= self.dead_code_threshold < 1 or not 0 <= self.reseed_until <= 1:
            raise ValueError("dead_code_threshold must be in [0, 1) and reseed_until in [0, 1]")
        if not 0 < self.max_static <= 1:
            raise ValueError(f"max_static must be in (0, 1], got {self.max_static}")
        if not 0 < self.max_copied <= 1:
            raise ValueError(f"max_copied must be in (0, 1], got {self.max_copied}")
        if self.min_perplexity < 1:
            raise ValueError(f"min_perplexity must be at least 1, got {self.min_perplexity}")


class CollapseGuard(nn.Module):
    """Counters live in buffers, so that a resumed run goes on exactly as an unbroken one."""

    counts: Tensor
    together: (
        Tensor  # how often two codes were chosen for one pair, in this window; see pair_counts
    )
    failures: Tensor
    copies: Tensor
    static: Tensor

    def __init__(
        self, config: CollapseConfig, positions: int, codebook_size: int, steps: int, seed: int
    ) -> None:
        super().__init__()
        self.config, self.steps, self.seed = config, steps, seed
        shape = (config.window, positions, codebook_size)
        self.register_buffer("counts", torch.zeros(shape, dtype=torch.int64))
        watched = positions * codebook_size
        watched = watched if positions > 1 and watched <= MOST_WATCHED else 0
        self.register_buffer("together", torch.zeros(watched, watched))
        for name in ("failures", "copies", "static"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, codes: Tensor, step: int) -> None:
        """Count the codes of one batch of all ranks, int (B, K), in the window's slot of this step."""
        one_hot = torch.nn.functional.one_hot(codes, self.counts.shape[-1])
        slot = step % self.config.window
        self.counts[slot] = gather(one_hot.sum(dim=0)[None]).sum(dim=0)
        if len(self.together):
            with torch.autocast(codes.device.type, enabled=False):
                flat = one_hot.flatten(1).float()
                both = gather((flat.t() @ flat)[None]).sum(dim=0)
            self.together.mul_(min(slot, 1)).add_(both)

    @torch.no_grad()
    def act(self, step: int, codebook: Tensor | None, outputs: Tensor, change: Tensor) -> int:
        """At the end of a window: re-seed dead codes in place, or raise UserError on collapse.

        codebook: (C, Q), changed in place; None for quantizers without one. outputs: (M, Q) encoder
        outputs of the current batch. Codes are drawn on the CPU, whose generator gives the same numbers
        for every device. change: (B,) mean absolute difference between the two frames of each pair, in
        [0, 1]. All ranks must call it; each sees the outputs of all. Returns how many codes were
        re-seeded. Step 0 seeds the whole codebook.
        """
        generator = torch.Generator().manual_seed((self.seed << 32) + step)
        ends = (step + 1) % self.config.window == 0
        if step and not ends:
            return 0
        outputs, change = gather(outputs), gather(change)
        if step == 0:
            everything = torch.ones(0 if codebook is None else len(codebook), dtype=torch.bool)
            return self._reseed(codebook, everything, outputs, generator)
        self._judge(step, codebook, outputs, change)
        total = self.counts.sum(dim=(0, 1))
        dead = total < self.config.dead_code_threshold * total.sum()
        if step >= self.config.reseed_until * self.steps or not dead.any():
            return 0
        return self._reseed(codebook, dead, outputs, generator)

    @staticmethod
    def _reseed(
        codebook: Tensor | None, dead: Tensor, outputs: Tensor, generator: torch.Generator
    ) -> int:
        if codebook is None:
            return 0
        moved = codebook.cpu()  # itself, if it is there
        count = reseed(moved, dead.cpu(), outputs.cpu(), generator)
        if moved is not codebook:
            codebook.copy_(moved)
        return count

    def perplexity(self) -> Tensor:
        """exp(entropy) of each position over the window: (K,)."""
        counts = self.counts.sum(dim=0)
        counts = counts.float() if counts.is_mps else counts.double()  # MPS has no float64
        share = counts / counts.sum(dim=-1, keepdim=True).clamp_min(1)
        return torch.special.entr(share).sum(dim=-1).exp()

    def _judge(self, step: int, codebook: Tensor | None, outputs: Tensor, change: Tensor) -> None:
        perplexity = self.perplexity()
        collapsed = float(perplexity.min()) < self.config.min_perplexity
        self.failures.copy_(self.failures + 1 if collapsed else 0 * self.failures)
        values = " ".join(f"{p:.2f}" for p in perplexity.tolist())
        failures = int(self.failures)
        if collapsed:
            logger.warning(
                "step %d: perplexity %s, window %d of %d before the run is stopped",
                step, values, failures, self.config.patience,
            )  # fmt: skip
        if failures >= self.config.patience:
            raise UserError(
                f"the codes collapsed at step {step}: perplexity {values} of {self.counts.shape[2]} "
                f"(expected at least {self.config.min_perplexity} at every position) for "
                f"{self.config.patience} windows of {self.config.window} steps; "
                + diagnose(codebook, outputs, change)
            )
        self._judge_copies(step)
        static = float((change < STATIC_CHANGE).float().mean())
        self.static.copy_(self.static + 1 if static > self.config.max_static else 0 * self.static)
        if int(self.static) >= self.config.patience:
            raise UserError(
                f"{100 * static:.0f} % of the pairs at step {step} hardly change, as in "
                f"{self.config.patience} windows of {self.config.window} steps: {STATIC_ADVICE}"
            )

    def _judge_copies(self, step: int) -> None:
        """UserError where two positions have told nearly the same for `patience` windows."""
        if not len(self.together):
            return
        positions, each = self.counts.shape[1:]
        together = self.together.cpu().numpy()
        alike, copied = most_alike(together, positions)
        self.copies.copy_(self.copies + 1 if copied > self.config.max_copied else 0 * self.copies)
        if int(self.copies) >= self.config.patience:
            both = together.reshape(positions, each, positions, each)[alike[0], :, alike[1]]
            bits = float(entropy_nats(both.ravel()) / np.log(2))
            raise UserError(
                f"the codes collapsed at step {step}, as in {self.config.patience} windows of "
                f"{self.config.window} steps: {near_copies(alike, copied, bits)}"
            )


@torch.no_grad()
def reseed(codebook: Tensor, dead: Tensor, outputs: Tensor, generator: torch.Generator) -> int:
    """Move dead codes to encoder outputs that are far from all living codes, one after the other.

    Each is drawn with a chance proportional to its squared distance to the nearest living code, as
    in k-means++ (Arthur and Vassilvitskii 2007). codebook: (C, Q); dead: bool (C,); outputs:
    (M, Q). All on the generator's device.
    """
    outputs = outputs.float()
    living = [code for code, is_dead in zip(codebook.clone(), dead, strict=True) if not is_dead]
    for index in dead.nonzero().flatten().tolist():
        if living:
            distance = torch.cdist(outputs, torch.stack(living)).min(dim=1).values.square()
        else:
            distance = torch.ones(len(outputs))
        if not float(distance.sum()) > 0:
            distance = torch.ones(len(outputs))
        choice = int(torch.multinomial(distance, 1, generator=generator))
        codebook[index] = outputs[choice]
        living.append(outputs[choice].clone())
    return int(dead.sum())


def diagnose(codebook: Tensor | None, outputs: Tensor, change: Tensor) -> str:
    """What the collapse looks like, and what to change. codebook: None where there is none."""
    spread = float(outputs.float().std(dim=0).norm())
    spacing = 0.0
    if codebook is not None and len(codebook) > 1:
        spacing = float(torch.pdist(codebook.float()).median())
    static = float((change < STATIC_CHANGE).float().mean())
    seen = (
        f"{100 * static:.0f} % of the pairs hardly change, encoder outputs spread {spread:.2g} "
        f"against a code spacing of {spacing:.2g}; "
    )
    if static > 0.5:
        return seen + STATIC_ADVICE
    if spread < 0.05 * spacing or spread < 1e-4:
        return seen + (
            "the encoder gives nearly the same output for every pair: lower loop.learning_rate, "
            "add loop.warmup_steps, or train on more varied clips"
        )
    return seen + (
        "outputs vary but share few codes: raise guard.dead_code_threshold or guard.reseed_until, so "
        "that dead codes are re-seeded longer, or lower loop.learning_rate"
    )


def refuse_static(frames: np.ndarray, max_static: float) -> None:
    """UserError where more than the part `max_static` of some pairs, evenly spaced over frames uint8
    (N, T, H, W, 3), hardly changes from the first to the last frame."""
    rows = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), 512)).astype(int))
    static = float((pair_change(frames[rows]) < STATIC_CHANGE).mean())
    if static > max_static:
        raise UserError(
            f"{100 * static:.0f} % of {len(rows)} training pairs hardly change: {STATIC_ADVICE}"
        )


def pair_change(frames: np.ndarray) -> np.ndarray:
    """Mean absolute difference of the first and the last frame, of 1: uint8 (N, T, ...) -> (N,)."""
    pairs = frames[:, [0, -1]].astype(np.int16)
    return np.abs(pairs[:, 1] - pairs[:, 0]).reshape(len(frames), -1).mean(axis=1) / 255
