"""A folder of one's own tasks as a suite: BDDL files, and init states where there are any.

    FOLDER/<task>.bddl              or FOLDER/bddl_files/<task>.bddl
    FOLDER/<task>.pruned_init       or .npy, beside it or in FOLDER/init_files/; may be missing

Tasks are numbered in alphabetical order. The words are the BDDL's own `:language`, which is what
LIBERO's recorder writes into demonstrations too, or the file's name where there is none; a file that
bears the name of a task of LIBERO keeps that task's words. Without init states, episode i begins in
the random layout of seed i, drawn from the regions of the BDDL.
"""

import re
from pathlib import Path

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_file, hash_json

BDDL_FOLDERS, INIT_FOLDERS = (".", "bddl_files"), (".", "bddl_files", "init_files")
INIT_ENDINGS = (".pruned_init", ".npy")
_LANGUAGE = re.compile(r"\(\s*:language\s+([^()]*)\)")
_PROBLEM = re.compile(r"\(\s*define\s*\(\s*problem\s+([^\s()]+)\s*\)")
_COMMENT = re.compile(r";[^\n]*")


def is_folder(suite: str) -> bool:
    """Whether a suite's name means a folder."""
    return "/" in suite or Path(suite).is_dir()


def task_files(suite: str) -> dict[str, Path]:
    """Task -> BDDL file, in alphabetical order. Raises UserError for a folder without any."""
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


def bddl_file(suite: str, task: str) -> Path:
    """The BDDL file of a task."""
    files = task_files(suite)
    if task not in files:
        raise UserError(f"{suite} has no task {task}: it has {', '.join(files)}")
    return files[task]


def init_file(suite: str, task: str) -> Path | None:
    """The file of a task's init states; None where there is none."""
    places = (Path(suite) / name / f"{task}{end}" for name in INIT_FOLDERS for end in INIT_ENDINGS)
    return next((path for path in places if path.is_file()), None)


def language(path: Path) -> str:
    """The `:language` of a BDDL file in one line; "" if it has none."""
    found = _LANGUAGE.search(_text(path))
    return " ".join(found[1].split()).strip("\"'") if found else ""


def problem_name(path: Path) -> str:
    """The problem class that a BDDL file names. Raises UserError for a file that is no BDDL."""
    text = _text(path)
    found = _PROBLEM.search(text)
    if found is None or text.count("(") != text.count(")"):
        what = "no (define (problem NAME)" if found is None else "unbalanced parentheses"
        raise UserError(f"{path} is no BDDL file of LIBERO's kind: {what}")
    return found[1]


def suite_name(suite: str) -> str:
    """What results call it: the name of the folder."""
    return Path(suite).resolve().name


def suite_hash(suite: str) -> str:
    """Hash of all task and init files, wherever the folder lies."""
    files = task_files(suite)
    paths = [path for task in files for path in (files[task], init_file(suite, task)) if path]
    return hash_json({path.name: hash_file(path) for path in paths})


def _text(path: Path) -> str:
    try:
        return _COMMENT.sub("", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from error
