"""Other words for an instruction: what a policy that understands it should not, or should, mind."""

import re

import numpy as np

from libero_eval.env.tasks import task_instruction, task_names

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


def as_is(suite: str, task_id: int, text: str, rng: np.random.Generator) -> str:
    """The instruction itself."""
    del suite, task_id, rng
    return text


def blank(suite: str, task_id: int, text: str, rng: np.random.Generator) -> str:
    """No words: what is solved now, is solved without reading."""
    del suite, task_id, text, rng
    return ""


def shuffled(suite: str, task_id: int, text: str, rng: np.random.Generator) -> str:
    """The instruction of another task of the suite, drawn at random."""
    others = {task_instruction(suite, i) for i in range(len(task_names(suite)))} - {text}
    del task_id
    return sorted(others)[int(rng.integers(len(others)))]


def reworded(suite: str, task_id: int, text: str, rng: np.random.Generator) -> str:
    """The same meaning: verbs and prepositions replaced by synonyms, perhaps a polite frame."""
    del suite, task_id
    changed = text
    for phrase, choices in SYNONYMS.items():
        if re.search(phrase, text):
            changed = re.sub(phrase, choices[int(rng.integers(len(choices)))], changed, count=1)
    frames = FRAMES if changed != text else FRAMES[1:]
    return frames[int(rng.integers(len(frames)))].format(changed)


def dot(suite: str, task_id: int, text: str, rng: np.random.Generator) -> str:
    """A full stop at the end, which breaks policies that memorised the prompt."""
    del suite, task_id, rng
    return text + "."


WORDINGS = {f.__name__: f for f in (as_is, blank, shuffled, reworded, dot)}
