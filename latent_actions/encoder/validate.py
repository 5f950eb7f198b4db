"""What clips must hold to be trained and evaluated on, said before hours are spent."""

import logging

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.clips import ClipTable
from latent_actions.encoder.losses import ContrastConfig

logger = logging.getLogger(__name__)


def check_clips(table: ClipTable, contrast: ContrastConfig) -> None:
    """UserError if a split is empty or the loss has nothing to tell apart; warnings where training
    works but the scores say less (scenes in both splits, one scene, verbs of one scene,
    unseen verbs)."""
    verbs, scenes = (_by_split(table, name) for name in ("verb", "scene"))
    if not scenes["train"] or not scenes["val"]:
        counts = {split: len(table.rows_of(split)) for split in scenes}
        raise UserError(
            f"clips are needed of both splits, got {counts}: check the source's splits and filters"
        )
    if len(verbs["train"]) == 1 and contrast.kind != "infonce_pair":
        raise UserError(
            f"all {len(table.rows_of('train'))} training clips show one action, "
            f"{min(verbs['train'])!r}: loss.contrast.kind {contrast.kind} has nothing to repel; add "
            "clips of other actions, or use infonce_pair, which needs no labels"
        )
    if len(scenes["train"]) == 1:
        logger.warning("one training scene: the loss cannot attract actions across scenes")
    shared = scenes["train"] & scenes["val"]
    if shared:
        logger.warning(
            "%d of %d validation scenes are also trained on", len(shared), len(scenes["val"])
        )
    if not _crosses_scenes(table):
        logger.warning(
            "no validation verb is shown in two scenes: retrieval across scenes has nothing to find "
            "and its P@10 will be 0, whatever the encoder"
        )
    unseen = unseen_verbs(table)
    if unseen:
        logger.warning(
            "%d of %d validation verbs are unseen in training (%s): they count in retrieval, the "
            "verb classifier cannot name them",
            len(unseen),
            len(verbs["val"]),
            ", ".join(unseen[:5]),
        )


def unseen_verbs(table: ClipTable) -> list[str]:
    """Validation verbs that no training clip shows, sorted."""
    verbs = _by_split(table, "verb")
    return sorted(verbs["val"] - verbs["train"])


def _crosses_scenes(table: ClipTable) -> bool:
    """Whether a verb of the validation clips stands in two of their scenes."""
    seen = {(table.verb[row], table.scene[row]) for row in table.rows_of("val")}
    return len(seen) > len({verb for verb, _ in seen})


def _by_split(table: ClipTable, column: str) -> dict[str, set[str]]:
    values = getattr(table, column)
    return {s: {values[row] for row in table.rows_of(s)} for s in ("train", "val")}
