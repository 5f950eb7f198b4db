"""Robot demonstrations as videos: LIBERO HDF5, LeRobot v2 and v3, RLDS, as invact_vla/data/readers has
them.

    <root>    an HDF5 file or a folder of them, or a LeRobot or RLDS folder

So latent actions can be labeled where true actions are known.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from invact_vla.core.errors import UserError
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.instructions import scene_of
from invact_vla.data.readers import open_dataset
from invact_vla.data.stored_dataset import StoredDataset
from invact_vla.data.video.pictures import STEPS_FPS, with_options
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig, check_fraction, check_rate, held_out

ALL = "all"  # every camera


@SourceConfig.register_subclass("demonstrations")
@dataclass(frozen=True, kw_only=True)
class DemonstrationsSource(SourceConfig):
    """One camera of each demonstration as a clip or, with `clip_s`, as several, or every camera of each,
    with its instruction as text and its task as verb."""

    camera: str = "agentview"  # which: agentview, wrist, or all (clips of one moment, in one split)
    # cut into clips of so many seconds one after another, each a moment of its own (what is left at the
    # end is dropped): atomic actions to train an encoder on; none: a demonstration is one clip
    clip_s: float | None = None
    # where its pictures lie, e.g. observation.images.front; none: the usual key
    key: str | None = None
    action: str | None = None  # key of the actions; none: the format's own
    instruction: str | None = None  # the task in words, where the data do not say it
    # what makes pictures upright, as in `invact data check`; none: known
    rotation: str | None = None
    fps: float | None = None  # steps per second; none: as the data say, or LIBERO's 20
    max_demos: int | None = None  # demonstrations per task; none: all
    held_out: float = 0.1  # fraction of the demonstrations that is val

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("held_out", self.held_out)
        check_rate("fps", self.fps)
        if self.clip_s is not None and not 0 < self.clip_s < math.inf:
            raise ValueError(f"clip_s must be a positive number of seconds, got {self.clip_s}")
        if self.camera == ALL and self.key is not None:
            raise ValueError(f"camera {ALL} takes every camera by its usual key: leave out key")
        self._dataset_config()  # checks its options

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        if not self.root.exists():
            raise UserError(f"no folder or file {self.root}: expected demonstrations")
        dataset = open_dataset(self._dataset_config())
        cameras, fps = self._cameras(dataset.cameras), self._fps(dataset)
        takes = [self._take(dataset, place) for place in dataset.places]
        val = held_out(takes, self.held_out)
        clips = [
            clip
            for place, take in zip(dataset.places, takes, strict=True)
            if (take in val) == (split == "val")
            for camera in cameras
            for clip in self._clips(dataset, place, camera, fps, split)
        ]
        return clips, SkipReport()

    def _take(self, dataset: StoredDataset, place: int) -> str:
        container, name = dataset.locate(place)
        return (container / name).relative_to(self.root).as_posix()

    def _clips(
        self, dataset: StoredDataset, place: int, camera: str, fps: float, split: Split
    ) -> Iterator[ClipRecord]:
        """Those of one camera of a demonstration, in order."""
        container, name = dataset.locate(place)
        video, episode = container / name / camera, dataset.all_episodes[place]
        take = self._take(dataset, place)
        options = {name: getattr(self, name) for name in ("key", "action", "rotation", "fps")}
        for start_s, end_s in self._spans(episode.length / fps):
            part = "" if self.clip_s is None else f"@{start_s:09.3f}"
            yield ClipRecord(
                clip_id=video.relative_to(self.root).as_posix() + part,
                video=with_options(video, options),
                split=split,
                start_s=start_s,
                end_s=end_s,
                text=episode.instruction,
                verb=episode.task,
                moment_id=take + part,
                take=take,
                scene=scene_of(episode.task),
                view="ego" if camera == "wrist" else "exo",
                camera=camera,
            )

    def _fps(self, dataset: StoredDataset) -> float:
        """Steps per second; UserError where a clip would have less than two."""
        fps = self.fps or dataset.fps or STEPS_FPS
        if self.clip_s is not None and self.clip_s * fps < 2:
            raise UserError(
                f"clip_s {self.clip_s} is shorter than two frames of {self.root} ({fps:g} per second): "
                f"give at least {2 / fps:g}"
            )
        return fps

    def _spans(self, length_s: float) -> list[tuple[float, float]]:
        """(start, end) of the clips of a demonstration, seconds; a shorter one is a clip."""
        if self.clip_s is None or length_s <= self.clip_s:
            return [(0.0, length_s)]
        count = int(length_s / self.clip_s + 1e-6)
        return [(n * self.clip_s, (n + 1) * self.clip_s) for n in range(count)]

    def _cameras(self, known: Sequence[str]) -> tuple[str, ...]:
        if self.camera != ALL and self.camera not in known:
            raise UserError(
                f"{self.root} has no camera {self.camera!r}, only {', '.join(known)}: say another, "
                f"{ALL}, or where its pictures lie (key)"
            )
        return tuple(known) if self.camera == ALL else (self.camera,)

    def _dataset_config(self) -> DatasetConfig:
        return DatasetConfig(
            path=self.root,
            cameras={self.camera: self.key} if self.key else {},
            action=self.action,
            instruction=self.instruction,
            rotation=self.rotation or "auto",
            max_demos=self.max_demos,
        )
