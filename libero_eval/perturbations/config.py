"""Which perturbations, and how strong; the other words for an instruction."""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from libero_eval.env.tasks import task_instruction, task_names

LAYOUTS = ("init_states", "random")
# phrase -> other ways to say it; the first match of every phrase is replaced
SYNONYMS = {
    r"\bpick up\b": ("grab", "take hold of"),
    r"\bput both\b": ("place both", "set both"),
    r"\bput\b": ("place", "set down"),
    r"\bplace\b": ("put", "set"),
    r"\bturn on\b": ("switch on", "light"),
    r"\bturn off\b": ("switch off",),
    r"\bclose\b": ("shut",),
    r"\bopen\b": ("pull open",),
    r"\bpush\b": ("shove",),
    r"\bon top of\b": ("upon",),
}
FRAMES = ("{}", "please {}", "{} for me", "i would like you to {}")


def _shuffled(suite: str, text: str, rng: np.random.Generator) -> str:
    """The instruction of another task of the suite, drawn at random."""
    others = {task_instruction(suite, i) for i in range(len(task_names(suite)))} - {text}
    return sorted(others)[int(rng.integers(len(others)))]


def _reworded(suite: str, text: str, rng: np.random.Generator) -> str:
    """The same meaning: verbs and prepositions replaced by synonyms, perhaps a polite frame."""
    changed = text
    for phrase, choices in SYNONYMS.items():
        if re.search(phrase, text):
            changed = re.sub(phrase, choices[int(rng.integers(len(choices)))], changed, count=1)
    frames = FRAMES if changed != text else FRAMES[1:]
    return frames[int(rng.integers(len(frames)))].format(changed)


# name -> (suite, instruction, random stream) to what a policy that understands it should, or should
# not, mind
WORDINGS: dict[str, Callable[[str, str, np.random.Generator], str]] = {
    "as_is": lambda suite, text, rng: text,
    "blank": lambda suite, text, rng: "",  # what is solved now, is solved without reading
    "shuffled": _shuffled,
    "reworded": _reworded,
    "dot": lambda suite, text, rng: text + ".",  # breaks policies that memorised the prompt
}


@dataclass(frozen=True, kw_only=True)
class PerturbationsConfig:
    """Perturbations of every episode; what an episode gets follows from (seed, task, init state)."""

    camera: float = 0.0  # the third-person camera moves by up to so many meters, same target
    light: float = 0.0  # 0..1: lamps dim or brighten by up to this share and tilt alike
    textures: float = 0.0  # 0..1: table, floor and walls are tinted and exchange their textures
    distractors: int = 0  # 0..6 extra solid things that stand in free places of the table
    robot_pose: float = 0.0  # spread of the arm's joints at the start, rad (LIBERO's own: 0.02)
    # init_states | random: object poses drawn anew by LIBERO's rules
    layout: str = "init_states"
    wording: str = "as_is"  # as_is, blank, shuffled (another task's), reworded, dot
    seed: int = 0  # of all perturbations

    def __post_init__(self) -> None:
        for name, most in (("camera", 0.5), ("light", 1.0), ("textures", 1.0), ("robot_pose", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be in [0, {most:g}], got {getattr(self, name)}")
        if not 0 <= self.distractors <= 6:
            raise ValueError(f"distractors must be 0..6, got {self.distractors}")
        for name, known in (("layout", LAYOUTS), ("wording", WORDINGS)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}"
                )

    @property
    def label(self) -> str:
        """What is changed, e.g. "camera 0.1, wording blank, perturbation seed 0"; empty if nothing."""
        values = ((f.name, getattr(self, f.name), f.default) for f in fields(self))
        changed = [
            f"{n} {value}" for n, value, default in values if n != "seed" and value != default
        ]
        return ", ".join([*changed, f"perturbation seed {self.seed}"]) if changed else ""
