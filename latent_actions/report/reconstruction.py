"""Does the decoder of a labeler use its codes? R2 over the copy of the first frame, with intervals."""

from dataclasses import dataclass

import numpy as np

from invact_vla.stats.bootstrap import resample
from latent_actions.labelers.guard.guarded import pair_errors
from latent_actions.labelers.labeler import Labeler, ends
from latent_actions.labelers.lapa import LapaLabeler
from latent_actions.labelers.lapo import LapoModel
from latent_actions.labelers.laq.evaluate import frame_batches
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
    if isinstance(labeler, LapaLabeler):
        errors = pair_errors(labeler.model, frame_batches(frames, labeler.model.device), seed)[1]
    elif isinstance(labeler, CodeLabeler) and isinstance(labeler.model, LapoModel):
        batches = [{"frames": part} for part in frame_batches(frames, labeler.device)]
        errors = pair_errors(labeler.model, batches, seed)[1]
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
