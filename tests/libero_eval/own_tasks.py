"""Own tasks for tests: tasks of LIBERO under other names."""

from pathlib import Path

from libero_eval.env.tasks import bddl_file, task_name

TASK = 9  # a mug and a microwave
NAME = task_name("libero_10", TASK)
WORDS = "carry the mug away"


def write_task(folder: Path, name: str, words: str | None = WORDS, task: str = NAME) -> Path:
    """A task of LIBERO under another name, with other words."""
    text = bddl_file("libero_10", task).read_text()
    before, _, rest = text.partition("(:language")
    language = "" if words is None else f"(:language {words})"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.bddl"
    path.write_text(before + language + rest.partition(")")[2])
    return path
