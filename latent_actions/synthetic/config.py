"""What the synthetic videos contain: every number that can change a byte of them."""

from dataclasses import dataclass

import numpy as np

SSV2_FPS = 12.0  # SSV2 videos, frames per second
ACTION_S = (1.2, 1.8)  # duration of an action of a take, seconds; above the loader's 1.0 s


@dataclass(frozen=True, kw_only=True)
class Variety:
    """What real video has and a tidy room seen by still cameras has not; 0: nothing of it, to the byte.

    Every take draws its own strengths, from none up to these.
    """

    shake: float = 0.0  # turns of all cameras, degrees from the middle
    views: float = 0.0  # cameras nearer, higher and wider: 1 is up to 80 degrees, glasses up to 90
    lens: float = 0.0  # barrel distortion at the corner of the picture, as a share of its half side
    light: float = 0.0  # changes of the exposure within a take, as a share
    blur: float = 0.0  # exposure, as a share of the time between frames, while the camera turns
    noise: float = 0.0  # standard deviation of the sensor's noise, of full scale
    # hands thicker and thinner by this share, of more skin tones, with bare arms as often as this
    hands: float = 0.0
    # probability of each: a body, a second hand, somebody who walks behind; above 0 the second
    # hand always helps where an action takes two
    people: float = 0.0
    occlusion: float = 0.0  # probability that something near hides a side of the picture
    textures: float = 0.0  # contrast of fine structure on all surfaces
    # how far from the hands a head looks before it turns to what they reach for, and after it goes away
    # with what they carry off, m; at most, drawn anew after every cut
    gaze: float = 0.0
    slow: float = 0.0  # actions last up to 1 + this times as long, and repeat as many times more

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            largest = 1.0 if name not in ("shake", "noise", "slow") else np.inf
            if not 0 <= value <= largest:
                raise ValueError(f"variety.{name} must be in [0, {largest:g}], got {value}")

    def __bool__(self) -> bool:
        return any(vars(self).values())


TIDY = Variety()  # a tidy room


@dataclass(frozen=True, kw_only=True)
class SynthContent:
    """Synthetic human video: how much of it, how varied, how fine."""

    seed: int = 0  # all content is a function of the seed and the indices
    n_train_takes: int = 48  # Ego-Exo4D takes of the training split
    n_val_takes: int = 12  # Ego-Exo4D takes of the validation split
    actions_per_take: int = 12  # atomic actions in a take, at least
    n_train_scenes: int = 8  # places of the training split
    n_val_scenes: int = 4  # places of the validation split, none of them a training place
    n_exo: int = 2  # fixed cameras around the table, besides the ego camera
    ssv2_train: int = 400  # SSV2 clips: training
    ssv2_val: int = 60  # SSV2 clips: validation, in the places of the validation split
    ssv2_test: int = 8  # SSV2 clips: test, without labels as in the real release
    scene_verb_correlation: float = 0.6  # training: share of a scene's favorite actions, 0..1
    scene_favorites: int = 4  # training: families of actions that a scene prefers
    kitchen: bool = False  # also cut, slice, wash, hold, add, and doors
    size: int = 112  # side of the square frames, px, even
    fps: float = 10.0  # Ego-Exo4D videos, frames per second
    crf: int = 23  # quality of H.264 and VP9: higher is smaller and worse
    variety: Variety = TIDY  # what real video has besides

    def __post_init__(self) -> None:
        counts = (
            "n_train_takes", "n_val_takes", "actions_per_take", "n_train_scenes", "n_val_scenes",
            "n_exo", "scene_favorites",
        )  # fmt: skip
        for name in counts:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("ssv2_train", "ssv2_val", "ssv2_test", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.size < 32 or self.size % 16:
            raise ValueError(f"size must be a multiple of 16, at least 32, got {self.size}")
        if not 0 <= self.scene_verb_correlation <= 1:
            raise ValueError(
                f"scene_verb_correlation must be in [0, 1], got {self.scene_verb_correlation}"
            )
        if self.fps <= 0:
            raise ValueError(f"fps must be positive, got {self.fps}")

    @property
    def mask_size(self) -> int:
        """Side of the ground-truth masks, px."""
        return self.size // 2
