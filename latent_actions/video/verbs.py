"""The verb of an atomic description, by the rule that reproduces InvAct's published labels.

Lemma of the first word, plus the next word if it is one of {up, out, off, away}. The rule gives the
`verb` field of 8,960 of the 8,961 validation clips of the InvAct page, so no tagger is needed.
"""

import re

PARTICLES = frozenset({"up", "out", "off", "away"})
# third persons whose lemma the spelling does not tell
IRREGULAR = {
    "is": "be",
    "has": "have",
    "does": "do",
    "goes": "go",
    "undoes": "undo",
    "redoes": "redo",
    "ties": "tie",
    "unties": "untie",
    "reties": "retie",
    "lies": "lie",
    "dies": "die",
    "vies": "vie",
    "focuses": "focus",
    "gasses": "gas",
    "quizzes": "quiz",
    "gas": "gas",
    "focus": "focus",
}
SUBJECT = re.compile(r"^\s*(?:#\s*[Cc]\s+)?[Cc]\b(?!')[\s:,]+")  # also Ego4D's "#C C picks"
WORD = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")


def strip_subject(text: str) -> str:
    """The description without its leading "C " (the camera wearer): "C picks a can" -> "picks a
    can".
    """
    return SUBJECT.sub("", text).strip()


def lemma(word: str) -> str:
    """Strip the third-person ending: picks -> pick, presses -> press, closes -> close, carries ->
    carry.
    """
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
