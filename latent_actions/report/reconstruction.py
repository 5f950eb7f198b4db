"""Does the decoder of a labeler use its codes? R2 over the copy of the first frame, with intervals."""

from dataclasses import dataclass

import numpy as np
import torch

from invact_vla.stats.bootstrap import resample
from invact_vla.training.device import exact
from latent_actions.labelers.labeler import Labeler, ends
from latent_actions.labelers.lapa import LapaLabeller
from latent_actions.labelers.lapo import LapoModel, to_images
from latent_actions.labelers.laq.evaluate import derangement, pair_errors
from latent_actions.labelers.trained import CodeLabeler
from latent_actions.report.pixels import Decoded
from latent_actions.report.probes import DRAWS, Estimate
from latent_actions.report.stores import Labeled


@dataclass(frozen=True)
class Reconstruction:
    """1 - MSE(prediction) / MSE(first frame) with the codes of the pair, of other pairs, and zero
    vectors; gain: the first minus the better one of the others, which is what the codes are worth."""

    true: Estimate
    shuffled: Estimate
    zero: Estimate
    gain: Estimate


def reconstruct(
    labeled: Labeled, labeler: Labeler, pairs: Decoded, seed: int = 0
) -> Reconstruction | str:
    """Measured on decoded pairs; or why it cannot be."""
    frames = ends(pairs.frames)
    if len(frames) < 2:
        return "fewer than two pairs could be decoded"
    if isinstance(labeler, LapaLabeller):
        errors = pair_errors(labeler.model, frames, seed)[1]
    elif isinstance(labeler, CodeLabeler) and isinstance(labeler.model, LapoModel):
        errors = _lapo_errors(labeler.model, torch.from_numpy(frames).to(labeler.device), seed)
    else:
        return "its labeler has no decoder of frames"
    groups, copy = list(np.array(labeled.groups)[pairs.rows]), errors["copy"]
    if not copy.any():
        return "no pair moves"
    values = {n: 1 - errors[n].sum() / copy.sum() for n in ("true", "shuffled", "zero")}
    draws = {n: 1 - resample(errors[n], copy, groups, draws=DRAWS) for n in values}
    other = max(("shuffled", "zero"), key=values.__getitem__)
    found = {n: Estimate.of(float(values[n]), draws[n], len(frames), groups) for n in values}
    gain = draws["true"] - draws[other]
    value = float(values["true"] - values[other])
    return Reconstruction(**found, gain=Estimate.of(value, np.asarray(gain), len(frames), groups))


@torch.no_grad()
@exact()
def _lapo_errors(model: LapoModel, frames: torch.Tensor, seed: int) -> dict[str, np.ndarray]:
    """As `pair_errors`, of LAPO's network and those that share it. frames: uint8 (N, 2, H, W, 3)."""
    pair = to_images(frames, model.config.size)
    first, second = pair[:, :3], pair[:, 3:]
    true = model(frames)[0].vectors.flatten(1)
    other = derangement(len(frames), np.random.default_rng([seed, 0]))
    vectors = {"true": true, "shuffled": true[other], "zero": torch.zeros_like(true)}
    predicted = {name: model.forward_model(first, values) for name, values in vectors.items()}
    return {
        name: (image - second).square().mean(dim=(1, 2, 3)).double().cpu().numpy()
        for name, image in {**predicted, "copy": first}.items()
    }
