"""A plain folder of short videos, one action each: the way in for one's own recordings.

    <root>/<split>/<scene>/<verb>/<name>.<camera>.mp4      (or .webm, .avi, .mkv, .mov)

`<camera>` is optional: a camera whose name starts with "ego" gives an ego clip, anything else an
exo clip. Files of one scene and verb that differ in the camera only are views of one moment.
"""

from dataclasses import dataclass
from pathlib import Path

from invact_vla.data.decode import probe
from invact_vla.errors import UserError
from latent_actions.video.clips import episode_rng, horizon_frames, pair_starts
from latent_actions.video.records import ClipRecord, PairRecord, Split
from latent_actions.video.source import Dropped, SourceConfig, check_folder

SUFFIXES = (".mp4", ".webm", ".avi", ".mkv", ".mov")
LAYOUT = "<split>/<scene>/<verb>/<name>[.<camera>].mp4 with split train or val"


@SourceConfig.register_subclass("folder")
@dataclass(frozen=True, kw_only=True)
class FolderSource(SourceConfig):
    """Whole video files as clips, labelled by their folders."""

    def clips(self, split: Split) -> list[ClipRecord]:
        return [self._clip(path, split) for path in self._files(split)]

    def pairs(self, split: Split, h_s: float, pairs_per_clip: int, seed: int) -> list[PairRecord]:
        records, dropped = [], Dropped()
        for path in self._files(split):
            info, episode = probe(path), self._name(path, split)
            horizon = horizon_frames(h_s, info.fps)
            starts = pair_starts(info.n_frames, horizon, pairs_per_clip, episode_rng(seed, episode))
            if not len(starts):
                dropped.add("shorter than the horizon", episode)
            for start in starts.tolist():
                records.append(
                    PairRecord(
                        episode=episode, video=path, text=_words(path.parent.name),
                        frame=start, frame_end=start + horizon, fps=info.fps,
                    )
                )  # fmt: skip
        dropped.log(f"folder {split} pairs", len(records))
        return records

    def _files(self, split: Split) -> list[Path]:
        folder = self.root / split
        check_folder(folder, LAYOUT)
        files = sorted(p for p in folder.glob("*/*/*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise UserError(f"no videos below {folder}: expected {LAYOUT}")
        return files

    def _name(self, path: Path, split: Split) -> str:
        return path.relative_to(self.root / split).with_suffix("").as_posix()

    def _clip(self, path: Path, split: Split) -> ClipRecord:
        info = probe(path)
        name, _, camera = path.stem.partition(".")
        verb, scene = path.parent.name, path.parent.parent.name
        moment = f"{scene}/{verb}/{name}"
        return ClipRecord(
            clip_id=self._name(path, split),
            moment_id=moment,
            take=moment,
            scene=scene,
            view="ego" if camera.startswith("ego") else "exo",
            camera=camera or "cam01",
            verb=_words(verb),
            text=_words(verb),
            split=split,
            video=path,
            start_s=0.0,
            end_s=info.n_frames / info.fps,
        )


def _words(folder_name: str) -> str:
    return folder_name.replace("_", " ")
