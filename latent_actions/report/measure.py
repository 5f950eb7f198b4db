"""Everything that is measured of a label store, one after another; what cannot be is a sentence."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from latent_actions.labelers.labeler import Labeler
from latent_actions.report.action_probes import Actions, human_to_robot, measure_actions
from latent_actions.report.agreement import (
    Agreement,
    Leakage,
    cross_scene,
    cross_scene_motion,
    cross_view,
    leakage,
)
from latent_actions.report.gallery import CodeClips, gallery
from latent_actions.report.meaning import Meaning, measure_meaning, rebuilt, tested_pairs
from latent_actions.report.pixels import Decoded, first_frames
from latent_actions.report.probes import Estimate
from latent_actions.report.reconstruction import Reconstruction, reconstruct
from latent_actions.report.stores import Labeled
from latent_actions.report.truth import ROBOT, WEARER, Motion, true_motion, truth_folder
from latent_actions.report.usage import Usage, measure_usage

EMPTY = "the store is empty"
NO_VIDEOS = "its videos are not at hand"


@dataclass(frozen=True, kw_only=True)
class MeasureConfig:
    """What is measured, and on how much."""

    truth: str = (
        "auto"  # true actions: auto (beside the videos, or of robot demonstrations), none, a folder
    )
    truth_array: str = "velocity"  # name of the true actions in their .npz files
    rebuild: bool = True  # load each labeler again for the tests of meaning and reconstruction
    tested_pairs: int = 128  # pairs of each store for these tests
    codes_shown: int = 6  # most frequent codes whose clips are shown
    clips_shown: int = 6  # clips of each of them

    def __post_init__(self) -> None:
        if self.tested_pairs < 1 or self.codes_shown < 0 or self.clips_shown < 1:
            raise ValueError("tested_pairs and clips_shown must be >= 1, codes_shown >= 0")


@dataclass(frozen=True)
class Measured:
    """All results of a store; a sentence where there is none. clips: of its most frequent codes;
    broken: what could not be decoded."""

    labeled: Labeled
    usage: Usage | str = EMPTY
    actions: Actions | str = EMPTY
    scene: Agreement | str = EMPTY
    moving: Agreement | str = EMPTY
    view: Agreement | str = EMPTY
    place: Leakage | str = EMPTY
    camera: Leakage | str = EMPTY
    meaning: Meaning | str = EMPTY
    reconstruction: Reconstruction | str = EMPTY
    clips: tuple[CodeClips, ...] = ()
    broken: tuple[str, ...] = ()
    motion: Motion | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.labeled.name

    @property
    def elsewhere(self) -> Agreement | str:
        """Agreement of one action across places: of one verb, or of one true motion where no verb is
        done in two places."""
        return self.moving if isinstance(self.scene, str) else self.scene

    def cannot(self) -> dict[str, str]:
        """What could not be measured -> why."""
        words = {
            "usage": "usage",
            "actions": "true actions",
            "scene": "agreement across places",
            "moving": "agreement of motions across places",
            "view": "agreement across views",
            "place": "leakage of the place",
            "camera": "leakage of the camera",
            "meaning": "tests of meaning",
            "reconstruction": "reconstruction",
        }
        found = {label: getattr(self, name) for name, label in words.items()}
        return {label: value for label, value in found.items() if isinstance(value, str)}


@dataclass(frozen=True)
class Transfer:
    """Correlations of a robot's translations with those read off its codes by a probe of a hand's."""

    human: str
    robot: str
    frame: str
    correlation: tuple[Estimate, ...]


class Measurer:
    """Measures stores; first frames of the same pairs are decoded once."""

    def __init__(self, config: MeasureConfig, device: torch.device, seed: int) -> None:
        self.config, self.device, self.seed = config, device, seed
        self._first: dict[object, tuple[np.ndarray, Decoded]] = {}

    def measure(self, stores: Sequence[Labeled]) -> list[Measured]:
        """Results in the order of the stores."""
        with tqdm(total=5 * len(stores), desc="latent report", unit="part", mininterval=1) as bar:
            return [self._measure(labeled, bar) for labeled in stores]

    def _measure(self, labeled: Labeled, bar: Any) -> Measured:
        if not len(labeled.store):
            bar.update(5)
            return Measured(labeled)
        seed, broken = self.seed, []
        bar.set_postfix_str(labeled.name)
        usage = measure_usage(labeled.codes, labeled.codebook_size, labeled.groups)
        bar.update()
        motion, actions = self._actions(labeled, broken)
        bar.update()
        moving = _moving(labeled, motion, actions, seed)
        agreed = cross_scene(labeled, seed), moving, cross_view(labeled, seed)
        leaked = leakage(labeled, "scene", seed), leakage(labeled, "camera", seed)
        bar.update()
        meaning, reconstruction = self._tests(labeled, broken)
        bar.update()
        clips: list[CodeClips] = []
        if labeled.videos is not None and self.config.codes_shown:
            clips, bad = gallery(labeled, self.config.codes_shown, self.config.clips_shown, seed)
            broken += bad
        bar.update()
        return Measured(
            labeled, usage, actions, *agreed, *leaked, meaning, reconstruction, tuple(clips),
            tuple(dict.fromkeys(broken)), motion,
        )  # fmt: skip

    def _actions(self, labeled: Labeled, broken: list[str]) -> tuple[Motion, Actions | str]:
        """Probes of the pairs that have true actions, and first frames where there are videos."""
        config, views = self.config, {}
        for path, row in zip(labeled.store.path, labeled.rows, strict=True):
            views[path] = row.view
        folder = truth_folder(config.truth, labeled.videos)
        root = None if config.truth == "none" else labeled.videos
        motion = true_motion(labeled.store, root, folder, array=config.truth_array, views=views)
        first = None
        if labeled.videos is not None and len(motion.rows):
            features, decoded = self._first_frames(labeled, labeled.videos)
            broken += decoded.broken
            readable = np.isin(motion.rows, decoded.rows)
            motion = replace(
                motion,
                rows=motion.rows[readable],
                frames={name: values[readable] for name, values in motion.frames.items()},
            )
            first = features[np.searchsorted(decoded.rows, motion.rows)]
        if not len(motion.rows):
            motion = replace(motion, frames={})
        return motion, measure_actions(labeled, motion, first, self.seed)

    def _first_frames(self, labeled: Labeled, videos: Path) -> tuple[np.ndarray, Decoded]:
        store = labeled.store
        key = (videos, store.path, store.frame.tobytes(), store.frame_end.tobytes())
        if key not in self._first:
            self._first[key] = first_frames(labeled)
        return self._first[key]

    def _tests(
        self, labeled: Labeled, broken: list[str]
    ) -> tuple[Meaning | str, Reconstruction | str]:
        labeler = self._rebuilt(labeled)
        if isinstance(labeler, str):
            return labeler, labeler
        pairs = tested_pairs(labeled, labeler, self.config.tested_pairs)
        broken += pairs.broken
        if not len(pairs.rows):
            return (why := "none of its videos can be decoded"), why
        meaning = measure_meaning(labeled, labeler, pairs)
        return meaning, reconstruct(labeled, labeler, pairs, self.seed)

    def _rebuilt(self, labeled: Labeled) -> Labeler | str:
        """The labeler again, where it and the videos are at hand, or why not."""
        if not self.config.rebuild:
            return "left out (rebuild false)"
        return NO_VIDEOS if labeled.videos is None else rebuilt(labeled, self.device)


def _moving(labeled: Labeled, motion: Motion, actions: Actions | str, seed: int) -> Agreement | str:
    """In the frame that the codes tell most in."""
    if isinstance(actions, str):
        return actions
    translations = motion.frames[actions.best][:, list(motion.translations)]
    return cross_scene_motion(labeled, motion.rows, translations, seed)


def transfers(measured: Sequence[Measured]) -> list[Transfer]:
    """From every hand's store to every robot's that the same labeler made."""
    found = []
    for human, robot in product(measured, measured):
        if human.motion is None or robot.motion is None:
            continue
        same = (
            human.labeled.store.identity.labeler_hash == robot.labeled.store.identity.labeler_hash
        )
        if same and WEARER in human.motion.frames and ROBOT in robot.motion.frames:
            result = human_to_robot(
                human.labeled, human.motion, WEARER, robot.labeled, robot.motion.frames[ROBOT],
                robot.motion.rows,
            )  # fmt: skip
            found.append(Transfer(human.name, robot.name, WEARER, result))
    return found


def plain(value: Any) -> Any:
    """Results as JSON: NaN as null, pictures and frames left out."""
    if isinstance(value, Estimate):
        return plain(value.to_json())
    if isinstance(value, CodeClips):
        return {"code": list(value.code), "count": value.count, "fraction": value.fraction}
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: plain(getattr(value, f.name))
            for f in fields(value)
            if f.name not in ("labeled", "motion", "rows")
        }
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(inner) for inner in value]
    number = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(number, float) and np.isnan(number) else number
