"""The verb of an atomic description, by the rule that reproduces InvAct's published labels.

Lemma of the first word, plus the next word if it is one of {up, out, off, away}. The rule gives the
`verb` field of 8,960 of the 8,961 validation clips of the InvAct page, so no tagger is needed.

Also temporally opposite actions: what a description is the opposite of, played backwards.
Retro-Actions (Price and Damen 2019, arxiv.org/abs/1909.09422) uses such pairs as labels; Chirality in
Action (LiFT) as a test.
"""

import re
from typing import NamedTuple

PARTICLES = frozenset({"up", "out", "off", "away"})
# third persons whose lemma the spelling does not tell
IRREGULAR = {
    "is": "be", "has": "have", "does": "do", "goes": "go", "undoes": "undo", "redoes": "redo",
    "ties": "tie", "unties": "untie", "reties": "retie", "lies": "lie", "dies": "die", "vies": "vie",
    "focuses": "focus", "gasses": "gas", "quizzes": "quiz", "gas": "gas", "focus": "focus",
}  # fmt: skip
SUBJECT = re.compile(r"^\s*(?:#\s*[Cc]\s+)?[Cc]\b(?!')[\s:,]+")  # also Ego4D's "#C C picks"
WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")


def strip_subject(text: str) -> str:
    """The description without its leading "C " (the camera wearer)."""
    return SUBJECT.sub("", text).strip()


def lemma(word: str) -> str:
    """Strip the third-person ending: picks -> pick, presses -> press, carries -> carry."""
    word = word.lower()
    if word in IRREGULAR:
        return IRREGULAR[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "xes", "zzes", "ches", "shes", "oes")):
        # aches and axes keep their e; neither opens a description
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def verb_of(text: str) -> str | None:
    """Label of a description (with or without leading "C "); None if it has no word."""
    words = WORD.findall(strip_subject(text))
    if not words:
        return None
    verb = lemma(words[0])
    if len(words) > 1 and words[1].lower() in PARTICLES:
        return f"{verb} {words[1].lower()}"
    return verb


class Opposites(NamedTuple):
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
