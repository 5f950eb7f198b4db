"""The task in words: from file names, and from what LIBERO writes into its files."""

import re
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.limits import parse_json

# words of file names that say nothing about a task
MEANINGLESS = {
    "all", "data", "dataset", "demo", "demos", "demonstration", "demonstrations", "dim", "episode",
    "episodes", "ep", "file", "hdf5", "image", "images", "img", "libero", "low", "new", "noops", "no",
    "raw", "rollout", "rollouts", "run", "sample", "scene", "spatial", "object", "goal", "task", "test",
    "tmp", "train", "training", "traj", "trajectory", "val", "x",
}  # fmt: skip
OF_FILES = MEANINGLESS | {"", "copy", "part", "v"}  # and of their numbers and versions
_ENDING = re.compile(r"(_(demo(nstration)?s?(_?\d+)?|v\d+))+$")


def instruction_of(path: Path) -> str:
    """The task in words, from the file name: scene prefix, `_demo` and such dropped, underscores to
    spaces."""
    name = _ENDING.sub("", path.stem)
    return " ".join(name.removeprefix(scene_of(name)).removeprefix("_").split("_"))


def scene_of(task: str) -> str:
    """The scene in a LIBERO task's name, such as LIVING_ROOM_SCENE2; "" where it names none."""
    words = task.split("_")
    last = max((i for i, word in enumerate(words) if word.startswith("SCENE")), default=-1)
    return "_".join(words[: last + 1])


def says_a_task(words: str) -> bool:
    """Whether words of a file name can be an instruction: two that are not of the MEANINGLESS."""
    return sum(len(w) > 1 and w not in MEANINGLESS for w in map(_letters, words.split())) >= 2


def _letters(word: str) -> str:
    return re.sub(r"[\d\W]+", "", word).lower()


def stored_instruction(attributes: Any) -> str | None:
    """The instruction in the attributes of a file's `data`: `problem_info.language_instruction`, or
    the words of its BDDL; None if there is none."""
    for key in ("problem_info", "env_args"):
        words = _language(attributes.get(key))
        if words:
            return words
    for key in ("language_instruction", "language", "instruction"):
        if key in attributes and text(attributes[key]):
            return text(attributes[key])
    content = text(attributes.get("bddl_file_content", ""))
    match = re.search(r"\(:language\s+([^)]+)\)", content)
    return " ".join(match[1].split()) if match else None


def choose_instruction(path: Path, stored: str | None) -> str | None:
    """The words of a file: of its name where that is one of LIBERO's, else those stored in it.

    LIBERO's evaluation takes the words from the name (benchmark/__init__.py), so the name counts where
    it has as good as the stored words, and beside them none that tell files apart, as `part2`; None if
    neither says a task."""
    named = instruction_of(path)
    if stored is None:
        return named if says_a_task(named) else None
    in_name, in_file = set(named.lower().split()), set(stored.lower().split())
    alike = len(in_name & in_file) >= 0.7 * len(in_name | in_file)
    alike = alike and not any(_letters(word) in OF_FILES for word in in_name - in_file)
    return named if alike and says_a_task(named) else stored


def text(value: Any) -> str:
    """A string of an HDF5 attribute or data set, which may be bytes or an array of one."""
    if hasattr(value, "shape") and value.shape in ((), (1,)):
        value = value.item()
    return (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()


def _language(stored: Any) -> str | None:
    """The field `language_instruction` of a problem's description, or of one below it."""
    try:
        info = parse_json(text(stored), "")
    except UserError:
        return None
    while isinstance(info, dict):
        words = info.get("language_instruction")
        if words:  # a list of words as BDDL's parser gives it
            words = " ".join(map(str, words)) if isinstance(words, list) else str(words)
            return words.strip().strip('"')
        info = info.get("problem_info")
    return None
