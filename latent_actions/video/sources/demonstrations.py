"""Robot demonstrations as videos: LIBERO HDF5, LeRobot v2 and v3, RLDS, as invact_vla/data/readers has
them.

    <root>    an HDF5 file or a folder of them, or a LeRobot or RLDS folder

So latent actions can be labeled where true actions are known.
"""

from dataclasses import dataclass

from invact_vla.core.errors import UserError
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.readers import open_dataset
from invact_vla.data.video.pictures import STEPS_FPS, with_options
from latent_actions.video.records import ClipRecord, Split
from latent_actions.video.skip_report import SkipReport
from latent_actions.video.source import SourceConfig, check_fraction, check_rate, held_out


@SourceConfig.register_subclass("demonstrations")
@dataclass(frozen=True, kw_only=True)
class DemonstrationsSource(SourceConfig):
    """One camera of each demonstration as a clip, with its instruction as text and its task as verb."""

    camera: str = "agentview"  # which camera: agentview or wrist
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
        self._dataset_config()  # checks its options

    def index(self, split: Split) -> tuple[list[ClipRecord], SkipReport]:
        if not self.root.exists():
            raise UserError(f"no folder or file {self.root}: expected demonstrations")
        dataset = open_dataset(self._dataset_config())
        if self.camera not in dataset.cameras:
            raise UserError(
                f"{self.root} has no camera {self.camera!r}, only {', '.join(dataset.cameras)}: say "
                "another, or where its pictures lie (key)"
            )
        fps = self.fps or dataset.fps or STEPS_FPS
        options = {name: getattr(self, name) for name in ("key", "action", "rotation", "fps")}
        clips = []
        for place in dataset.places:
            container, name = dataset.locate(place)
            video, episode = container / name / self.camera, dataset.all_episodes[place]
            clips.append(
                ClipRecord(
                    clip_id=video.relative_to(self.root).as_posix(),
                    video=with_options(video, options),
                    split=split,
                    end_s=episode.length / fps,
                    text=episode.instruction,
                    verb=episode.task,
                    view="ego" if self.camera == "wrist" else "exo",
                    camera=self.camera,
                )
            )
        val = held_out([clip.clip_id for clip in clips], self.held_out)
        return [clip for clip in clips if (clip.clip_id in val) == (split == "val")], SkipReport()

    def _dataset_config(self) -> DatasetConfig:
        return DatasetConfig(
            path=self.root,
            cameras={self.camera: self.key} if self.key else {},
            action=self.action,
            instruction=self.instruction,
            rotation=self.rotation or "auto",
            max_demos=self.max_demos,
        )
