"""What is performed in each take and in each SSV2 clip: plans, functions of (content, index)
alone.
"""

import uuid
from dataclasses import dataclass

import numpy as np

from latent_actions.synthetic.config import ACTION_S, SSV2_FPS, SynthContent
from latent_actions.synthetic.hand import HandLook, Side
from latent_actions.synthetic.performance import Performance, plan_performance
from latent_actions.synthetic.scenes import scene_name
from latent_actions.synthetic.vocabulary import COLORS, FAMILIES, SKINS, actions_of, families

TAKE_STREAM, CLIP_STREAM, DECK_STREAM = 103, 107, 109  # first numbers of the random streams
LEAD_S = 0.2  # after a cut the hand stands still this long; reaction time of the annotators fits in
SSV2_ACTION_S = (1.7, 2.5)  # repeated actions take 1.4 times as long: clips of 2-4 s
BLOCKS_PER_TAKE = 8  # cards that a scene's next take skips in the deck
SUBSETS = ("train", "validation", "test")


@dataclass(frozen=True)
class Segment:
    """A performance in a take: it starts at `start_frame` with a cut and lasts `frames` frames."""

    start_frame: int
    frames: int
    performance: Performance


@dataclass(frozen=True)
class TakePlan:
    """One take, or one SSV2 clip. number: of the scene in its split. camera: None for all
    cameras.
    """

    name: str
    split: str
    scene: str
    number: int
    side: Side
    look: HandLook
    blocks: tuple[Segment, ...]
    stream: tuple[int, ...]
    camera: str | None = None

    @property
    def frames(self) -> int:
        return self.blocks[-1].start_frame + self.blocks[-1].frames

    @property
    def uid(self) -> str:
        """take_uid: a UUID made from the name."""
        return str(uuid.uuid5(uuid.NAMESPACE_OID, self.name))

    def rng(self, purpose: int) -> np.random.Generator:
        """A random stream of this take for one purpose (camera, annotators ...)."""
        return np.random.default_rng([*self.stream, purpose])


def favorite_families(number: int, count: int = 4, kitchen: bool = False) -> list[str]:
    """The `count` families that the number-th training scene prefers; of four, neighbors share
    one.
    """
    names = families(kitchen)
    return [names[(3 * number + j) % len(names)] for j in range(count)]


def plan_take(content: SynthContent, split: str, index: int) -> TakePlan:
    """The index-th take of a split ("train" or "val")."""
    n_scenes = content.n_train_scenes if split == "train" else content.n_val_scenes
    number, repetition = index % n_scenes, index // n_scenes
    stream = (
        content.seed,
        TAKE_STREAM,
        SUBSETS.index("train" if split == "train" else "validation"),
        index,
    )
    rng = np.random.default_rng(stream)
    side, look = _draw_performer(rng)
    blocks: list[Segment] = []
    actions = frame = 0
    while actions < content.actions_per_take:
        family = _draw_family(
            rng, content, split, number, len(blocks) + repetition * BLOCKS_PER_TAKE
        )
        slower = _slower(content, stream, len(blocks))
        performance = plan_performance(rng, family, side, content.fps, ACTION_S, slower=slower)
        frames = round((LEAD_S + performance.duration_s) * content.fps)
        blocks.append(Segment(frame, frames, performance))
        frame += frames
        actions += len(performance.actions)
    scene = scene_name(split, number)
    return TakePlan(
        f"{scene}{number + 1:02d}_{repetition + 1}", split, scene, number, side, look,
        tuple(blocks), stream,
    )  # fmt: skip


def plan_clip(content: SynthContent, subset: str, index: int) -> TakePlan:
    """The index-th SSV2 clip of "train", "validation" or "test": one action, one camera."""
    stream = (content.seed, CLIP_STREAM, SUBSETS.index(subset), index)
    rng = np.random.default_rng(stream)
    split = "train" if subset == "train" else "val"
    number = int(rng.integers(content.n_train_scenes if split == "train" else content.n_val_scenes))
    side, look = _draw_performer(rng)
    names = actions_of(content.kitchen)
    action = names[rng.integers(len(names))]
    having = [
        name for name in families(content.kitchen)
        if any(action in chain for chain in FAMILIES[name].chains)
    ]  # fmt: skip
    family = having[rng.integers(len(having))] if len(having) > 1 else having[0]
    performance = plan_performance(rng, family, side, SSV2_FPS, SSV2_ACTION_S, (action,))
    frames = round((LEAD_S + performance.duration_s + rng.uniform(0.0, 0.3)) * SSV2_FPS)
    camera = "ego" if rng.random() < 0.5 else f"cam{rng.integers(content.n_exo) + 1:02d}"
    ident = str(100001 + SUBSETS.index(subset) * 100000 + index)
    return TakePlan(
        ident, split, scene_name(split, number), number, side, look,
        (Segment(0, frames, performance),), stream, camera,
    )  # fmt: skip


def _slower(content: SynthContent, stream: tuple[int, ...], block: int) -> float:
    """How many times as long a performance takes: 1 without variety."""
    return 1 + content.variety.slow * float(
        np.random.default_rng([*stream, 11, block]).random() ** 2
    )


def _draw_family(
    rng: np.random.Generator, content: SynthContent, split: str, number: int, position: int
) -> str:
    """A favorite of the scene (training only), else the next card of the scene's shuffled deck.

    The deck makes all families about equally frequent in every scene, which a few hundred
    independent draws would not.
    """
    favorites = favorite_families(number, content.scene_favorites, content.kitchen)
    if split == "train" and rng.random() < content.scene_verb_correlation:
        return favorites[rng.integers(len(favorites))]
    names = families(content.kitchen)
    cycle, card = divmod(position, len(names))
    stream = (
        content.seed,
        DECK_STREAM,
        SUBSETS.index("train" if split == "train" else "validation"),
    )
    deck = np.random.default_rng([*stream, number, cycle]).permutation(len(names))
    return names[deck[card]]


def _draw_performer(rng: np.random.Generator) -> tuple[Side, HandLook]:
    side: Side = "right" if rng.random() < 0.7 else "left"
    skin = np.array(SKINS[rng.integers(len(SKINS))]) * rng.uniform(0.92, 1.06)
    sleeve = np.array(list(COLORS.values())[rng.integers(len(COLORS))]) * rng.uniform(0.6, 1.0)
    r, g, b = (float(v) for v in np.clip(skin, 0, 1))
    sr, sg, sb = (float(v) for v in sleeve)
    return side, HandLook((r, g, b), (sr, sg, sb))
