"""Labels that are the same from every camera: trained on moments that several synchronized views saw.

    mvp_lam   the code of one view must predict the second frame of the other view as well
              (MVP-LAM, arxiv.org/abs/2602.03668: every pair of an observed view and a view of the code)
    vila      the vectors before the codes of two views of a moment are drawn together and those of other
              moments apart (view alignment as in VILA, arxiv.org/abs/2601.02994; its soft targets from
              true actions are left out, since human video has none)

The network is that of lapo.py; labeling needs one view. Training moments come from `views`, not from the
pairs that are labeled.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.training.device import CPU
from latent_actions.encoder.inputs.clips import ClipData, VideoClips, pair_views
from latent_actions.encoder.losses import multi_positive_infonce
from latent_actions.labelers.guard.collapse import refuse_static
from latent_actions.labelers.guard.guarded import TrainingStep
from latent_actions.labelers.labeler import FrameSpec, Labeler, LabelerConfig, TrainingFrames, ends
from latent_actions.labelers.lapo import LapoModel, LapoModelConfig, to_images
from latent_actions.labelers.trained import (
    CodeLabeler,
    FitConfig,
    fit_guarded,
    load_network,
    save_network,
    trained_part,
)
from latent_actions.labelers.whitening import ill_conditioned

TEMPERATURE = 0.1  # of the contrast between views

Views = Literal["mvp_lam", "vila"]


@dataclass(frozen=True, kw_only=True)
class CrossViewConfig(LabelerConfig):
    """A model of latent actions trained on synchronized views."""

    kind: ClassVar[Views]

    views: ClipData = field(default_factory=VideoClips)  # moments that an ego and an exo camera saw
    span: float = 0.5  # the second frame is this part of the clip after the first
    trained: Path | None = None  # labeling run that trained one, or its model folder; none: train
    model: LapoModelConfig = field(default_factory=LapoModelConfig)  # what to train
    training: FitConfig = field(default_factory=FitConfig)  # how it is trained
    workers: int = 1  # processes that decode the views

    def __post_init__(self) -> None:
        if not 0 < self.span <= 1:
            raise ValueError(f"span must be in (0, 1], got {self.span}")

    def parents(self) -> dict[str, Path]:
        return self.views.parents() if self.trained is None else {"model": self.trained}

    def frame_spec(self) -> FrameSpec:
        return FrameSpec(self.model.size)

    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        def train(place: Path) -> None:
            arrays = self._moments(folder / "training" / "views")
            torch.manual_seed(self.training.seed)
            model = CrossViewModel(self.model, self.kind)
            sizes = (self.model.code_length, self.model.codebook_size)
            fit_guarded(model, *sizes, arrays, self.training, folder, self.kind, device)
            save_network(model, self.model, place)

        place = trained_part(self.trained, folder, train)
        model = load_network(LapoModel, LapoModelConfig, place, device)
        sizes = (model.config.code_length, model.config.codebook_size)
        return CodeLabeler(self.kind, model, sizes, place, torch.from_numpy, device)

    def _moments(self, folder: Path) -> dict[str, np.ndarray]:
        """Two frames of both views of the training moments: `frames` and `other`, uint8
        (M, 2, H, W, 3)."""
        count = 1 + round(4 / self.span)  # frames such that the span is a whole number of them
        table = self.views.table(count, folder, self.workers, ("train",))
        pairs = pair_views(table, table.rows_of("train"))
        if len(pairs.ego) < 2:
            raise UserError(
                f"{self.kind} needs moments that an ego and an exo camera saw, labeler.views has "
                f"{len(pairs.ego)}: give a source with synchronized views, or a trained one"
            )
        found = {"frames": [], "other": []}
        for name, rows in (("frames", pairs.ego), ("other", pairs.exo)):
            clips = table.read(rows)
            for start in range(count - 4):
                found[name].append(ends(clips[:, start : start + 5]))
        arrays = {name: np.concatenate(parts) for name, parts in found.items()}
        refuse_static(arrays["frames"], self.training.guard.max_static)
        moment = np.tile(np.arange(len(pairs.ego)), count - 4)
        return {**arrays, "moment": moment}


@LabelerConfig.register_subclass("mvp_lam")
@dataclass(frozen=True, kw_only=True)
class MvpLamConfig(CrossViewConfig):
    """Codes of one view that predict the other view."""

    kind: ClassVar[Views] = "mvp_lam"


@LabelerConfig.register_subclass("vila")
@dataclass(frozen=True, kw_only=True)
class VilaLabelerConfig(CrossViewConfig):
    """Codes of vectors that are aligned between views."""

    kind: ClassVar[Views] = "vila"


class CrossViewModel(LapoModel):
    """LAPO's network with a loss over two views. A batch: frames and other, uint8 (B, 2, H, W, 3) of the
    same time seen by two cameras, and moment, int64 (B,), which rows show the same action."""

    def __init__(self, config: LapoModelConfig, kind: Views) -> None:
        super().__init__(config)
        self.kind = kind

    def training_step(self, batch: Mapping[str, Tensor]) -> TrainingStep:
        """See guarded.py; the codes of both views count as one batch."""
        views = [to_images(batch[name], self.config.size) for name in ("frames", "other")]
        both = torch.cat(views)
        delta = self._delta(both)
        quantized = self.quantizer(delta)
        codes = quantized.vectors.flatten(1)
        first, second = both[:, :3], both[:, 3:]
        error = F.mse_loss(self.forward_model(first, codes), second)
        copy = F.mse_loss(first, second).clamp_min(1e-9)
        loss = error + self.weight(copy) * (quantized.loss + ill_conditioned(self))
        metrics = {"r2_vs_copy": 1 - error.detach() / copy}
        if self.kind == "mvp_lam":
            swapped = torch.cat(codes.chunk(2)[::-1])
            crossed = F.mse_loss(self.forward_model(first, swapped), second)
            loss = loss + crossed
            metrics["r2_vs_copy_crossed"] = 1 - crossed.detach() / copy
        else:
            one, other = F.normalize(delta.flatten(1), dim=-1).chunk(2)
            same = batch["moment"][:, None] == batch["moment"]
            similar = one @ other.t() / TEMPERATURE
            contrast = (
                multi_positive_infonce(similar, same) + multi_positive_infonce(similar.t(), same)
            ) / 2
            loss = loss + copy.detach() * contrast  # in the units of the error
            metrics["contrast"] = contrast.detach()
        return TrainingStep(loss, quantized, (second - first).abs().mean(dim=(1, 2, 3)), metrics)
