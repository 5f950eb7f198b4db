"""What is wrong with demonstrations: the same rules in training and in `invact data check`.

Axis letters: T steps, A numbers of an action, H W pixels.
"""

import logging
from collections.abc import Sequence

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.data.conventions import FAR_FROM_UNIT, LIBERO_ACTION_DIM
from invact_vla.data.dataset import RobotDataset

logger = logging.getLogger(__name__)
NO_OP_NORM = 1e-4  # of the deltas, as OpenVLA's filter has it


def check_finite(where: str, name: str, values: np.ndarray) -> None:
    """UserError, with the first place, for NaN or infinity in values (T, D)."""
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        step, dimension = bad[0]
        raise UserError(
            f"{where}: {name} {dimension} of step {step} is {values[step, dimension]} "
            f"({len(bad)} such numbers): expected finite numbers; repair or leave out this "
            "demonstration"
        )


def check_action_range(where: str, actions: np.ndarray, action_range: str, gripper: bool) -> None:
    """UserError for actions (T, A) that were clearly not meant for [-1, 1], if they should be.

    action_range: "unit", "any", or "auto", which is "unit" for LIBERO's six deltas and a gripper.
    """
    unit = gripper and actions.shape[1] == LIBERO_ACTION_DIM
    if action_range == "any" or (action_range == "auto" and not unit):
        return
    deltas = np.abs(actions[:, : actions.shape[1] - gripper])
    if deltas.size and deltas.max() > FAR_FROM_UNIT:
        step, dimension = np.unravel_index(deltas.argmax(), deltas.shape)
        raise UserError(
            f"{where}: action {dimension} of step {step} is {actions[step, dimension]:g}, expected "
            "[-1, 1]: divide the actions by their controller's scale, or say --data.action_range any "
            "if the robot is not LIBERO's"
        )


def check_lengths(where: str, lengths: dict[str, int]) -> None:
    """UserError if the parts of a demonstration differ in length, or it has no step."""
    listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
    if len(set(lengths.values())) > 1:
        raise UserError(
            f"{where}: parts of unequal lengths ({listed}): expected one number of steps"
        )
    if 0 in lengths.values():
        raise UserError(f"{where}: no steps ({listed}): leave out this demonstration")


def to_uint8(where: str, frames: np.ndarray) -> np.ndarray:
    """Pictures as stored -> uint8 (T, H, W, 3).

    Floats in 0..1 or in 0..255 are brought to uint8, channels that come first are put last; anything
    else is a UserError. where: demonstration and camera.
    """
    if frames.ndim == 4 and frames.shape[1] == 3 and frames.shape[3] != 3:
        frames = frames.transpose(0, 2, 3, 1)
    if frames.ndim != 4 or frames.shape[3] != 3:
        raise UserError(
            f"{where}: pictures of shape {frames.shape}, expected (steps, height, width, 3)"
        )
    if np.issubdtype(frames.dtype, np.floating):
        low, high = float(frames.min()), float(frames.max())
        if not (low >= 0 and high <= 255):  # NaN is neither
            raise UserError(
                f"{where}: pictures in [{low:g}, {high:g}], expected uint8, or floats in 0..1 or "
                "0..255: convert them"
            )
        frames = np.round(frames * (255 if high <= 1 else 1)).astype(np.uint8)
    if frames.dtype != np.uint8:
        raise UserError(f"{where}: pictures of type {frames.dtype}, expected uint8 or floats")
    return np.ascontiguousarray(frames)


def picture_fault(frames: np.ndarray) -> str | None:
    """What is wrong with upright uint8 frames (T, H, W, 3) as a camera's pictures; None if nothing."""
    if frames.min() == frames.max():
        return f"all pictures are one color ({frames.flat[0]})"
    if len(frames) > 2 and all(np.array_equal(frames[0], f) for f in frames[1:]):
        return "all pictures are the same one"
    return None


def no_ops(actions: np.ndarray) -> np.ndarray:
    """bool (T,): steps whose deltas are zero and whose gripper does not change (OpenVLA's rule, but
    against the step before, kept or not). actions: (T, A), the gripper last."""
    still = np.linalg.norm(actions[:, :-1], axis=1) < NO_OP_NORM
    same = np.append(True, actions[1:, -1] == actions[:-1, -1])
    return still & same


def long_enough(dataset: RobotDataset, chunk: int) -> list[int]:
    """Places of the demonstrations with at least `chunk` steps; logs how many are not.

    Raises UserError if none remains.
    """
    lengths = [episode.length for episode in dataset.episodes]
    kept = [i for i, length in enumerate(lengths) if length >= chunk]
    if not kept:
        raise UserError(
            f"no demonstration has {chunk} steps, the longest of {len(lengths)} has "
            f"{max(lengths, default=0)}: lower --chunk or give longer ones"
        )
    short = [e.name for e in dataset.episodes if e.length < chunk]
    if short:
        logger.warning(
            "left out %d of %d demonstrations, shorter than the chunk of %d steps: %s",
            len(short), len(lengths), chunk, ", ".join(short[:5]) + (" ..." if short[5:] else ""),
        )  # fmt: skip
    return kept


def require(dataset: RobotDataset, cameras: Sequence[str], state: bool) -> None:
    """UserError that names what a data set lacks of what is asked for."""
    missing = [camera for camera in cameras if camera not in dataset.cameras]
    if missing:
        raise UserError(
            f"no {' and no '.join(missing)} pictures in the demonstrations, which have "
            f"{list(dataset.cameras)}: say where they lie, --data.cameras '{{{missing[0]}: KEY}}', "
            "or do without"
        )
    if state and not dataset.state_dim:
        lack = getattr(dataset, "lacking_state", "")
        raise UserError(
            f"no state of the robot in the demonstrations{lack and ' (' + lack + ')'}: name its "
            "keys with --data.state, or train with proprio false"
        )
