"""Temporally opposite actions: what a description is the opposite of, played backwards.

"Learning close by time-reversing open videos" (Retro-Actions, Price and Damen 2019,
arxiv.org/abs/1909.09422) uses such pairs as labels; Chirality in Action (LiFT) as a test.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Opposites:
    """Two temporally opposite actions, each known by a pattern found in a description."""

    name: str
    forth: str
    back: str


# the first pair that matches is a description's pair: directions before verbs
OPPOSITES = (
    Opposites(
        "left/right",
        r"(from right )?(\bto |camera )(the )?left\b(?! hand)",
        r"(from left )?(\bto |camera )(the )?right\b(?! hand)",
    ),
    Opposites(
        "up/down",
        r"\b(upwards?|(?<=moving something )up|(?<=camera )up)\b",
        r"\b(downwards?|(?<=moving something )down|(?<=camera )down)\b",
    ),
    Opposites("stack/unstack", r"\bstack\w*", r"\b(unstack\w*|taking \S+ off)"),
    Opposites("screw/unscrew", r"\b(screw\w*|clockwise)\b", r"\b(unscrew\w*|counterclockwise)\b"),
    Opposites("fold/unfold", r"\bfold\w*", r"\bunfold\w*"),
    Opposites("lift/lower", r"\blift\w*", r"\blower\w*"),
    Opposites("pick/place", r"\bpick\w*", r"\b(plac|put)\w*"),
    Opposites("push/pull", r"\bpush\w*", r"\bpull\w*"),
    Opposites("open/close", r"\bopen\w*", r"\bclos\w*"),
    Opposites("insert/remove", r"\binsert\w*", r"\bremov\w*"),
    Opposites("attach/detach", r"\battach\w*", r"\bdetach\w*"),
    Opposites("cover/uncover", r"\bcover\w*", r"\buncover\w*"),
    Opposites("approach/recede", r"\b(approach\w*|closer)\b", r"\b(reced\w*|away)\b"),
)


def direction_of(text: str) -> tuple[str, str] | None:
    """(pair, "forth" or "back") of a description; None if it is of no pair, or of both sides."""
    text = text.lower()
    for pair in OPPOSITES:
        forth, back = (re.search(p, text) is not None for p in (pair.forth, pair.back))
        if forth != back:
            return pair.name, "forth" if forth else "back"
        if forth:
            return None
    return None
