"""Training that starts from a trained encoder: from its weights, the readout put back into the head."""

from pathlib import Path

import torch

from invact_vla.core.errors import UserError
from invact_vla.core.limits import some
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.inputs.language import LanguageHead
from latent_actions.encoder.model import InvActModel


def start_from(model: InvActModel, folder: Path) -> None:
    """Give the model the weights of a run of `invact encoder train`, or of an encoder folder alone.

    Streams of the same number of channels take each other's weights. Layers that the trained encoder
    lacks stay as they are; UserError if any of its own does not fit. A displacement head is left off:
    it is fitted when all else is trained.
    """
    inside = folder / "encoder"
    trained = InvActEncoder.from_pretrained(inside if inside.is_dir() else folder)
    trained.displacement_head = None
    state = trained.state_dict()
    if trained.config.action_dim and not model.encoder.config.action_dim:
        narrow = state.pop("action_projection.weight"), state.pop("action_projection.bias")
        state["head.bias"] = state["head.bias"] + state["head.weight"] @ narrow[1]
        state["head.weight"] = state["head.weight"] @ narrow[0]
    own = model.encoder.state_dict()
    wrong = sorted(n for n, v in state.items() if n not in own or own[n].shape != v.shape)
    if wrong:
        raise UserError(
            f"the encoder in {folder} does not fit `model`: {len(wrong)} entries differ, such as "
            f"{some(wrong)}; give the same shape, or train without --start"
        )
    model.encoder.load_state_dict(state, strict=False)
    if (folder / "language").is_dir():
        words = LanguageHead.from_pretrained(folder / "language").project.weight
        if words.shape == model.language.project.weight.shape:
            model.language.project.weight.data.copy_(words)


@torch.no_grad()
def average(model: InvActModel, other: InvActModel, weight: float) -> None:
    """Move encoder and text side to (1 - weight) of their own weights and `weight` of the other's."""
    for name in ("encoder", "language"):
        theirs = getattr(other, name).state_dict()
        for key, value in getattr(model, name).state_dict().items():
            value.lerp_(theirs[key].to(value), weight)
