"""Temporally opposite actions: what a description is the opposite of, played backwards.

"Learning close by time-reversing open videos" (Retro-Actions, Price and Damen 2019,
arxiv.org/abs/1909.09422) uses such pairs as labels; Chirality in Action (LiFT) as a test.
"""

import re
from dataclasses import dataclass

from latent_actions.video.verbs import strip_subject


@dataclass(frozen=True)
class Opposites:
    """Two temporally opposite actions, each known by a pattern found in a description."""

    name: str
    forth: str
    back: str


def _verb(*stems: str) -> str:
    """Pattern of verbs where a description has one: at its start, or after "and", "then" or a comma.
    Elsewhere the same letters are nouns and adjectives (a screwdriver, a stack, close to)."""
    return rf"(?:^|\b(?:and|then) |, )(?:{'|'.join(stems)})(?:e|es|ed|s|ing|ting)?\b"


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
    Opposites("stack/unstack", _verb("stack"), rf"{_verb('unstack')}|\btaking \S+ off"),
    Opposites(
        "screw/unscrew",
        rf"{_verb('screw')}|(?<!counter)(?<!counter-)(?<!anti)(?<!anti-)\bclockwise\b",
        rf"{_verb('unscrew')}|\b(counter|anti)-?clockwise\b",
    ),
    Opposites("fold/unfold", _verb("fold"), _verb("unfold")),
    Opposites("lift/lower", _verb("lift"), _verb("lower")),
    Opposites("pick/place", _verb("pick"), _verb("plac", "put")),
    Opposites("push/pull", _verb("push"), _verb("pull")),
    Opposites("open/close", _verb("open"), _verb("clos")),
    Opposites("insert/remove", _verb("insert"), _verb("remov")),
    Opposites("attach/detach", _verb("attach"), _verb("detach")),
    Opposites("cover/uncover", _verb("cover"), _verb("uncover")),
    Opposites(
        "approach/recede",
        rf"{_verb('approach')}|\bcloser( to)?\b",
        rf"{_verb('reced')}|\b(moving )?away( from)?\b",
    ),
)


def direction_of(text: str) -> tuple[str, str] | None:
    """(pair, "forth" or "back") of a description; None if it is of no pair, or of both sides."""
    text = strip_subject(text).lower()
    for pair in OPPOSITES:
        forth, back = (re.search(p, text) is not None for p in (pair.forth, pair.back))
        if forth != back:
            return pair.name, "forth" if forth else "back"
        if forth:
            return None
    return None
