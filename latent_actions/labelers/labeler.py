"""What a labeler is: pairs of frames in, codes out. The members are the other files of this folder.

A labeler's config says where its trained parts lie; `build` gives the object that labels. All
members give the same number of codes from the same codebook size, so variants of an experiment differ
in nothing but the labeler.
"""

import abc
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import draccus
import numpy as np
import torch

from invact_vla.core.errors import UserError
from invact_vla.data.video.display import Fit
from invact_vla.training.device import CPU
from latent_actions.video.records import PairRecord

logger = logging.getLogger(__name__)

CODE_LENGTH = 4  # codes of a label, as LAPA
CODEBOOK_SIZE = 8  # values of a code, as LAPA

DEFAULT_SIZE = 64  # side of the frames for labelers that do not care, pixels


class TrainingPairs(NamedTuple):
    """Decoded training pairs. frames: uint8 (B, T, H, W, 3); records: which they are."""

    frames: np.ndarray
    records: Sequence[PairRecord]


TrainingFrames = Callable[[], Iterator[TrainingPairs]]


@dataclass(frozen=True)
class FrameSpec:
    """Frames that a labeler was trained on. size: side in pixels; fit: how they came to it;
    required: published weights, which get no other frames than theirs."""

    size: int
    fit: Fit = "crop"
    required: bool = False

    def agree(self, name: str, size: int | None, fit: Fit | None) -> "FrameSpec":
        """The frames to decode: its own where size and fit are None. Others are a UserError if
        required and a warning if not."""
        asked = FrameSpec(size or self.size, fit or self.fit, self.required)
        if asked == self:
            return self
        text = (
            f"{name} was trained on frames of {self.size} px, fit {self.fit}; asked for are "
            f"{asked.size} px, fit {asked.fit}"
        )
        if self.required:
            raise UserError(
                f"{text}: leave pairs.size and pairs.fit out, or set --pairs.size {self.size} "
                f"--pairs.fit {self.fit}"
            )
        logger.warning("%s: its codes may differ from those of its own frames", text)
        return asked


class Labeler(Protocol):
    """Gives codes to pairs.

    name: what the label store calls it. hash: changes with anything that can change a code.
    n_frames: frames of a pair it looks at: 2 = its two ends, more = a window, 0 = none.
    """

    name: str
    hash: str
    n_frames: int
    code_length: int
    codebook_size: int

    def codes(self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None) -> np.ndarray:
        """uint8 (B, T, H, W, 3) -> int64 (B, K) in [0, C).

        Frames run from the first to the last frame of the pair, both included, evenly spaced,
        T >= 2; a member with n_frames 0 ignores them and needs `pairs`, the B records.
        """
        ...


@runtime_checkable
class VectorLabeler(Protocol):
    """A labeler whose codes are cut from continuous vectors."""

    def label(
        self, frames: np.ndarray, pairs: Sequence[PairRecord] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `codes`: (codes, int64 (B, K); the vectors, float32 (B, D))."""
        ...


@dataclass(frozen=True, kw_only=True)
class LabelerConfig(draccus.ChoiceRegistry, abc.ABC):
    """Which labeler, and where its trained parts are."""

    @property
    def name(self) -> str:
        """Name of the member in the registry."""
        return self.get_choice_name(type(self))

    @abc.abstractmethod
    def parents(self) -> dict[str, Path]:
        """Folders whose content decides the codes, by name."""

    def frame_spec(self) -> FrameSpec:
        """The frames that it was trained on, known before it is built."""
        return FrameSpec(DEFAULT_SIZE)

    @abc.abstractmethod
    def build(self, folder: Path, training: TrainingFrames, device: torch.device = CPU) -> Labeler:
        """Make the labeler; its network, if it has one, runs on `device`.

        folder: where a part that must be fitted first is kept (and found again after a kill).
        training: gives the decoded training pairs, for that fit only.
        """


def ends(frames: np.ndarray) -> np.ndarray:
    """First and last frame of windows: uint8 (B, T, H, W, 3) -> (B, 2, H, W, 3)."""
    return frames[:, [0, -1]]


def window(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` evenly spaced frames of windows, ends included: (B, T, ...) -> (B, count, ...)."""
    if frames.shape[1] < count:
        raise UserError(
            f"the encoder looks at {count} frames of a pair, {frames.shape[1]} were decoded: "
            f"set --frames {count}"
        )
    if frames.shape[1] == count:
        return frames
    return frames[:, np.rint(np.linspace(0, frames.shape[1] - 1, count)).astype(int)]


def full_batches(
    frames: np.ndarray, size: int, device: torch.device
) -> Iterator[tuple[np.ndarray, int]]:
    """(batch, count) of consecutive items; only the first `count` of a batch are real.

    A GPU's matrix products are chosen by the shapes, and each rounds in its own way: there every
    batch has `size` items, the last one filled up with its own last item, so that no code depends on
    what else is labeled. On a CPU the last batch is as short as it is.
    """
    for start in range(0, len(frames), size):
        batch = frames[start : start + size]
        rows = np.minimum(np.arange(size), len(batch) - 1)
        yield (batch if device.type == "cpu" else batch[rows]), len(batch)


def subfolder_or_self(folder: Path, name: str) -> Path:
    """Folder `name` of a run folder, or the folder itself if it has no such part."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: run the stage that makes it, or correct the path")
    return folder / name if (folder / name).is_dir() else folder
