"""The tasks of a suite: their names in order, their words, their files.

A suite is one of LIBERO's, read from the wheel without importing LIBERO's benchmark package, which
would load torch; or a folder of one's own tasks: BDDL files, and init states where there are any.

    FOLDER/<task>.bddl              or FOLDER/bddl_files/<task>.bddl
    FOLDER/<task>.pruned_init       or .init or .npy, beside it or in FOLDER/init_files/; may be missing

Own tasks are numbered in alphabetical order. Their words are the BDDL's own `:language`, which is what
LIBERO's recorder writes into demonstrations too, or the file's name where there is none; a file that
bears the name of a task of LIBERO keeps that task's words. Without init states, episode i begins in
the random layout of seed i, drawn from the regions of the BDDL.
"""

import ast
import functools
import re
from collections.abc import Sequence
from pathlib import Path

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_file, hash_json
from invact_vla.data.instructions import choose_instruction
from libero_eval.env.libero_home import benchmark_root

SUITES = ("libero_10", "libero_spatial", "libero_object", "libero_goal", "libero_90")
BDDL_FOLDERS, INIT_FOLDERS = (".", "bddl_files"), (".", "bddl_files", "init_files")
INIT_ENDINGS = (".pruned_init", ".init", ".npy")
_LANGUAGE = re.compile(r"\(\s*:language\s+([^()]*)\)")
_PROBLEM = re.compile(r"\(\s*define\s*\(\s*problem\s+([^\s()]+)\s*\)")
_PART = re.compile(r"\(\s*:([\w-]*)")
# LIBERO's parser passes over others, and where it finds no goal it takes it for reached
_PARTS = {
    "domain", "requirements", "objects", "obj_of_interest", "fixtures", "regions", "target", "ranges",
    "yaw_rotation", "rgba", "scene_properties", "floor", "wall", "language", "init", "goal",
}  # fmt: skip
_COMMENT = re.compile(r";[^\n]*")
_ANGLE = r"[-+]?(\d+\.?\d*|\.\d+|pi)(e[-+]?\d+)?([*/]\d+\.?\d*)?"
_ROTATION = re.compile(
    rf":yaw_rotation\s*\((\s*\(\s*{_ANGLE}(\s+{_ANGLE})*\s*\))+\s*\)", re.IGNORECASE
)


@functools.cache
def _task_map() -> dict[str, tuple[str, ...]]:
    """Suite -> task names, from the literal in the wheel's table."""
    path = benchmark_root() / "benchmark" / "libero_suite_task_map.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "libero_task_map":
            return {suite: tuple(names) for suite, names in ast.literal_eval(node.value).items()}
    raise UserError(f"{path} has no libero_task_map: install hf-libero 0.1.4")


def is_own(suite: str) -> bool:
    """Whether a suite is a folder of own tasks."""
    return suite not in SUITES and ("/" in suite or Path(suite).is_dir())


def suite_name(suite: str) -> str:
    """What results call a suite: LIBERO's name, or that of the folder."""
    return Path(suite).resolve().name if is_own(suite) else suite


def suite_hash(suite: str) -> str:
    """Hash of all task and init files of a folder, wherever it lies."""
    files = own_files(suite)
    paths = [path for task in files for path in (files[task], init_file(suite, task)) if path]
    return hash_json({path.name: hash_file(path) for path in paths})


def own_files(suite: str) -> dict[str, Path]:
    """Task -> BDDL file of a folder, in alphabetical order. UserError for a folder without any."""
    folder = Path(suite)
    if not folder.is_dir():
        raise UserError(
            f"no folder {folder}: expected a suite of LIBERO, or a folder of .bddl files"
        )
    for name in BDDL_FOLDERS:
        files = sorted((folder / name).glob("*.bddl"), key=lambda path: path.stem)
        if files:
            return {path.stem: path for path in files}
    raise UserError(f"{folder} is no suite: expected <task>.bddl files in it, or in bddl_files/")


def task_names(suite: str) -> tuple[str, ...]:
    """Task names of a suite in benchmark order (task order 0; spec of LIBERO's benchmark), those of
    a folder in alphabetical order."""
    if is_own(suite):
        return tuple(own_files(suite))
    if suite not in SUITES:
        raise UserError(
            f"unknown suite {suite!r}; known: {', '.join(SUITES)}, or a folder of .bddl files"
        )
    return _task_map()[suite]


def task_name(suite: str, task_id: int) -> str:
    """The name of one task, which is also the stem of its BDDL and init-state files."""
    names = task_names(suite)
    if not 0 <= task_id < len(names):
        raise UserError(f"{suite} has tasks 0..{len(names) - 1}, got task {task_id}")
    return names[task_id]


def check_tasks(suite: str, tasks: Sequence[int]) -> None:
    """Raise UserError for a task that the suite does not have, for one that is given twice, and for a
    file that is none."""
    for task in tasks:
        name = task_name(suite, task)
        if is_own(suite):
            problem_name(bddl_file(suite, name))
    if len(set(tasks)) < len(tasks):
        raise UserError(f"tasks are listed twice: {', '.join(map(str, tasks))}")


def find_task(suite: str, *names: str) -> int | None:
    """The place of a task by its file's name or its words; None if the suite has none like it."""
    plain = {name.removesuffix("_demo").lower() for name in names}
    for place, name in enumerate(task_names(suite)):
        if name.lower() in plain or task_instruction(suite, place).lower() in plain:
            return place
    return None


# -- words


def instruction(name: str) -> str:
    """The task in words, from its file name as LIBERO does (not from the BDDL `:language` field).

    LIBERO-100 names start with a scene prefix in capitals (`KITCHEN_SCENE3_`), which is dropped.
    """
    words = name.split("_")
    scene = next((index + 1 for index, word in enumerate(words) if word.startswith("SCENE")), 0)
    return " ".join(words[scene:])


def task_instruction(suite: str, task_id: int) -> str:
    """The task in words: by LIBERO's rule for its own tasks; for others, as for demonstrations, the
    file's name where it says the same as the BDDL's `:language`, else that, else the name."""
    name = task_name(suite, task_id)
    if not is_own(suite) or any(name in names for names in _task_map().values()):
        return instruction(name)
    path = own_files(suite)[name]
    found = _LANGUAGE.search(_text(path))
    language = " ".join(found[1].split()).strip("\"'") if found else None
    return choose_instruction(path, language or None) or instruction(name)


def problem_name(path: Path) -> str:
    """The problem class that a BDDL file names. Raises UserError for a file that is no BDDL, or with
    rotations other than angles: LIBERO's parser runs them as Python."""
    text = _text(path)
    found, parts = _PROBLEM.search(text), {name.lower() for name in _PART.findall(text)}
    if found is None:
        what = "no (define (problem NAME)"
    elif parts - _PARTS:
        what = f"unknown part (:{min(parts - _PARTS)} ...)"
    elif "goal" not in parts:
        what = "no (:goal ...)"
    elif text.count("(") != text.count(")"):
        what = "unbalanced parentheses"
    elif text.lower().count("yaw_rotation") != len(_ROTATION.findall(text)):
        what = "a rotation that is not (:yaw_rotation ((0.0 3.14))), in radians"
    else:
        return found[1]
    raise UserError(f"{path} is no BDDL file of LIBERO's kind: {what}")


def _text(path: Path) -> str:
    try:
        return _COMMENT.sub("", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from error


# -- files


def bddl_file(suite: str, task: str) -> Path:
    """The BDDL file of a task, e.g. ("libero_10", "KITCHEN_SCENE3_turn_on_...")."""
    if is_own(suite):
        files = own_files(suite)
        if task not in files:
            raise UserError(f"{suite} has no task {task}: it has {', '.join(files)}")
        return files[task]
    return _existing(benchmark_root() / "bddl_files" / suite / f"{task}.bddl")


def init_file(suite: str, task: str) -> Path | None:
    """The file of a task's init states; None for an own task without."""
    if not is_own(suite):
        return _existing(benchmark_root() / "init_files" / suite / f"{task}.pruned_init")
    places = [Path(suite) / name for name in INIT_FOLDERS]
    named = (place / f"{task}{end}" for place in places for end in INIT_ENDINGS)
    found = next((path for path in named if path.is_file()), None)
    others = (path for place in places for end in INIT_ENDINGS for path in place.glob(f"*{end}"))
    tasks = own_files(suite)
    stranger = next((path for path in others if path.stem not in tasks), None)
    if found is None and stranger is not None:
        raise UserError(
            f"{task} has no init states, and {stranger} belongs to no task: name it as the .bddl file "
            "is named, or remove it to have random layouts"
        )
    return found


def _existing(path: Path) -> Path:
    """The path itself, or a UserError that names the neighbors."""
    if path.is_file():
        return path
    known = sorted(p.stem for p in path.parent.glob(f"*{path.suffix}"))
    raise UserError(f"no file {path}; tasks there: {', '.join(known) or 'none'}")
