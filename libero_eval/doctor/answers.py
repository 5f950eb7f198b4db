"""What a policy does on frames of demonstrations, as it is configured and otherwise.

Errors are open loop: the predicted chunk against what the expert did. Letters: F frames.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation
from invact_vla.data.conventions import STORED_ROTATION, rotate
from libero_eval.doctor.demonstrations import Demonstrations
from libero_eval.policy_source import PolicySource

Ask = Callable[[Sequence[Observation]], list[ActionChunk]]
Change = Callable[[Observation], Observation]

LEAST_SCALE = 0.05  # of an action: dimensions that hardly move are not blown up
CLEAR_Z = 3.0  # standard errors
CLEAR_SHARE = 0.2  # of the larger error


@dataclass(frozen=True)
class Frame:
    """One observation of a demonstration."""

    observation: Observation
    target: np.ndarray  # float64 (n, 7), what was done from there on


def ask_source(source: PolicySource) -> Ask:
    """The policy as a rollout asks it: an opened policy for each observation, all together."""

    def ask(observations: Sequence[Observation]) -> list[ActionChunk]:
        policies = [source.open(None) for _ in observations]
        for policy in policies:
            policy.reset(0)
        answers = source.act(list(zip(policies, observations, strict=True)))
        for policy in policies:
            source.release(policy)
        return answers

    return ask


def choose_frames(
    demos: Demonstrations, cameras: Sequence[str], count: int, rng: np.random.Generator
) -> list[Frame]:
    """`count` frames, spread evenly over demonstrations and time; frames are turned upright."""
    frames = []
    for demo in demos.demos:
        missing = set(cameras) - set(demo.frames)
        if missing:
            raise UserError(
                f"{demo.name} has no frames of {', '.join(sorted(missing))}, which the policy "
                "reads: give demonstrations with all its cameras (demos --wrist true)"
            )
        upright = {c: rotate(f, STORED_ROTATION["opengl"]) for c, f in demo.frames.items()}
        for i, step in enumerate(demo.times[:-1]):
            observation = Observation(
                agentview=np.ascontiguousarray(upright["agentview"][i]),
                wrist=np.ascontiguousarray(upright["wrist"][i]) if "wrist" in upright else None,
                state=demo.robot[i],
                instruction=demo.instruction,
            )
            frames.append(Frame(observation, demo.actions[step:]))
    chosen = np.sort(rng.permutation(len(frames))[:count])
    return [frames[i] for i in chosen]


@dataclass(frozen=True)
class Errors:
    """Open-loop errors, each (F,)."""

    motion: (
        np.ndarray
    )  # mean over moving dimensions, in standard deviations of demonstrated actions
    gripper: np.ndarray  # share of the chunk's steps with the wrong sign
    moving: int

    @property
    def all(self) -> np.ndarray:
        """(F,) mean over moving dimensions and the gripper."""
        return (self.motion * self.moving + self.gripper) / (self.moving + 1)


@dataclass
class Answers:
    """The policy's answers on chosen frames."""

    demos: Demonstrations
    cameras: tuple[str, ...]
    count: int
    seed: int
    ask: Ask  # the policy as configured

    @cached_property
    def frames(self) -> list[Frame]:
        """The frames that all questions are about."""
        rng = np.random.default_rng(self.seed)
        return choose_frames(self.demos, self.cameras, self.count, rng)

    @cached_property
    def scale(self) -> np.ndarray:
        """(6,) spread of the demonstrated actions."""
        return np.maximum(self.demos.all_actions[:, :6].std(0), LEAST_SCALE)

    @cached_property
    def moving(self) -> int:
        """How many of the six dimensions ever move; all errors are means over these."""
        return max(1, int((self.demos.all_actions[:, :6].std(0) > 1e-6).sum()))

    @cached_property
    def configured(self) -> list[np.ndarray]:
        """Chunks (n, 7) as the policy is configured."""
        return self.under(lambda o: o)

    def under(self, change: Change, ask: Ask | None = None) -> list[np.ndarray]:
        """Chunks under changed observations, or of another way of asking."""
        observations = [change(frame.observation) for frame in self.frames]
        return [chunk.values for chunk in (ask or self.ask)(observations)]

    def errors(self, chunks: list[np.ndarray]) -> Errors:
        """Open-loop errors of chunks."""
        return self._apart(chunks, [frame.target for frame in self.frames])

    def change(self, chunks: list[np.ndarray]) -> float:
        """How far chunks are from the configured ones on average, in the same units."""
        return float(self._apart(chunks, self.configured).all.mean())

    def _apart(self, chunks: list[np.ndarray], others: list[np.ndarray]) -> Errors:
        motion, gripper = [], []
        for one, other in zip(chunks, others, strict=True):
            n = min(len(one), len(other))
            gaps = np.abs(one[:n, :6] - other[:n, :6]) / self.scale
            motion.append(gaps.mean(0).sum() / self.moving)
            gripper.append((np.sign(one[:n, 6]) != np.sign(other[:n, 6])).mean())
        return Errors(np.array(motion), np.array(gripper), self.moving)

    @cached_property
    def idle(self) -> Errors:
        """Errors of always doing the mean of all demonstrated actions."""
        mean = self.demos.all_actions.mean(0)
        return self.errors([np.tile(mean, (len(c), 1)) for c in self.configured])

    @property
    def has_skill(self) -> bool:
        """Whether the policy is clearly better than that."""
        return clearly_better(self.errors(self.configured).all, self.idle.all)


def clearly_better(mine: np.ndarray, other: np.ndarray) -> bool:
    """Whether the errors `mine` (F,) are clearly smaller than `other` (F,), paired over frames: by
    three standard errors, and by a fifth."""
    gain = other - mine
    spread = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else np.inf
    return bool(gain.mean() > max(CLEAR_Z * spread, CLEAR_SHARE * other.mean(), 1e-9))


def with_camera(observation: Observation, camera: str, frame: np.ndarray) -> Observation:
    """The same observation with another frame of one camera."""
    return replace(observation, **{camera: np.ascontiguousarray(frame)})
