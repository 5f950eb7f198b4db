"""The verb rule on regular, irregular and particle verbs."""

import json

import pytest

from latent_actions.video.verbs import lemma, strip_subject, verb_of
from tests.paths import GOLDEN, needs_golden

CASES = {
    "C picks the can": "pick",
    "C picks up the can": "pick up",
    "C pulls out a drawer with her right hand": "pull out",
    "C wipes off the table": "wipe off",
    "C pours away the water": "pour away",
    "C places the can up": "place",  # the particle must come next
    "C presses the button": "press",
    "C pushes the box": "push",
    "C closes the lid": "close",
    "C uses a spoon": "use",
    "C squeezes the sponge": "squeeze",
    "C mixes the eggs": "mix",
    "C stretches the dough": "stretch",
    "C carries the box": "carry",
    "C dries the plate": "dry",
    "C ties the rope": "tie",
    "C unties the rope": "untie",
    "C goes to the sink": "go",
    "C does a check": "do",
    "C passes the cup": "pass",
    "C undresses the doll": "undress",
    "C slices bread": "slice",
    "C hand-pedals the wheel": "hand-pedal",
    "Slips the tube in": "slip",
    "C: lifts the pan": "lift",
    "#C C stirs the soup": "stir",
    "cuts the carrot": "cut",
}


@pytest.mark.parametrize(("text", "verb"), CASES.items())
def test_verb_of(text, verb):
    assert verb_of(text) == verb


def test_text_without_words():
    assert verb_of("C ...") is None
    assert verb_of("") is None


def test_subject_is_stripped_only_at_the_start():
    assert strip_subject("C picks a C clamp") == "picks a C clamp"
    assert strip_subject("Cuts a cake") == "Cuts a cake"


@needs_golden
def test_published_verbs_are_lemmas_of_their_third_person():
    """Adding the ending to a published verb and stripping it again gives the verb back."""
    histogram = json.loads((GOLDEN / "retrieval" / "val_histogram.json").read_text())
    groups = histogram["by_institution_activity"].values()
    verbs = {verb.split()[0].lower() for group in groups for verb in group}
    assert len(verbs) > 150
    for verb in verbs:
        assert lemma(third_person(verb)) == verb


def third_person(verb: str) -> str:
    if verb.endswith(("s", "x", "z", "ch", "sh", "o")):
        return verb + "es"
    if verb.endswith("y") and verb[-2] not in "aeiou":
        return verb[:-1] + "ies"
    return verb + "s"
