"""The tasks of a suite: their names in order, and their instructions.

A suite is one of LIBERO's, or a folder of own tasks (own_suite.py). LIBERO's are read from the wheel's
own table (`libero_suite_task_map.py`) without importing LIBERO's benchmark package, which would load
torch.
"""

import ast
import functools

from invact_vla.core.errors import UserError
from invact_vla.data.instructions import choose_instruction
from libero_eval.env import own_suite
from libero_eval.env.libero_home import benchmark_root

SUITES = ("libero_10", "libero_spatial", "libero_object", "libero_goal", "libero_90")


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
    return suite not in SUITES and own_suite.is_folder(suite)


def suite_name(suite: str) -> str:
    """What results call a suite: LIBERO's name, or that of the folder."""
    return own_suite.suite_name(suite) if is_own(suite) else suite


def task_names(suite: str) -> tuple[str, ...]:
    """Task names of a suite in benchmark order (task order 0; spec of LIBERO's benchmark), those of
    a folder in alphabetical order."""
    if is_own(suite):
        return tuple(own_suite.task_files(suite))
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


def task_instruction(suite: str, task_id: int) -> str:
    """The task in words: by LIBERO's rule for its own tasks; for others, as for demonstrations, the
    file's name where it says the same as the BDDL's `:language`, else that, else the name."""
    name = task_name(suite, task_id)
    if not is_own(suite) or any(name in names for names in _task_map().values()):
        return instruction(name)
    path = own_suite.bddl_file(suite, name)
    return choose_instruction(path, own_suite.language(path) or None) or instruction(name)


def find_task(suite: str, *names: str) -> int | None:
    """The place of a task by its file's name or its words; None if the suite has none like it."""
    known = task_names(suite)
    plain = {name.removesuffix("_demo").lower() for name in names}
    for place, name in enumerate(known):
        if name.lower() in plain or task_instruction(suite, place).lower() in plain:
            return place
    return None


def instruction(name: str) -> str:
    """The task in words, from its file name as LIBERO does (not from the BDDL `:language` field).

    LIBERO-100 names start with a scene prefix in capitals (`KITCHEN_SCENE3_`), which is dropped.
    """
    words = name.split("_")
    for index, word in enumerate(words):
        if word.startswith("SCENE"):
            words = words[index + 1 :]
            break
    return " ".join(words)
