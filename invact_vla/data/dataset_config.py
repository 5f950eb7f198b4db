"""Which demonstrations to read, and how they are to be understood."""

from dataclasses import dataclass, field
from pathlib import Path

from invact_vla.data.conventions import GRIPPERS, ROTATIONS

FORMATS = ("auto", "hdf5", "lerobot", "rlds")
ACTION_RANGES = ("auto", "unit", "any")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """A data set of demonstrations. All but `path` may stay as it is for LIBERO's own data."""

    path: Path = Path("runs/demos")  # HDF5 file or folder of them, LeRobot folder, or RLDS folder
    format: str = "auto"  # auto, hdf5, lerobot or rlds
    # where the pictures lie, e.g. {agentview: observation.images.front}; none: the format's own
    cameras: dict[str, str] = field(default_factory=dict)
    # keys of the robot's state, put together in this order; none: the format's own
    state: tuple[str, ...] = ()
    action: str | None = None  # key of the actions; null: the format's own
    instruction: str | None = None  # the task in words, where the data do not say it
    # auto: judged over all data; open_is_minus_one (-1 open, +1 closed: LIBERO), open_is_one,
    # open_is_zero (0 open, 1 closed), none (the last number is no gripper)
    gripper: str = "auto"
    # what makes stored pictures upright: none, rotate180, flip or mirror; auto: the format's own
    rotation: str = "auto"
    # unit: actions far outside [-1, 1] are refused; any: not; auto: unit for LIBERO's 7 numbers
    action_range: str = "auto"
    max_demos: int | None = None  # demonstrations read per task; null: all

    def __post_init__(self) -> None:
        for name, value, known in (
            ("format", self.format, FORMATS),
            ("gripper", self.gripper, GRIPPERS),
            ("rotation", self.rotation, ("auto", *ROTATIONS)),
            ("action_range", self.action_range, ACTION_RANGES),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if self.max_demos is not None and self.max_demos < 1:
            raise ValueError(f"max_demos must be at least 1, got {self.max_demos}")
