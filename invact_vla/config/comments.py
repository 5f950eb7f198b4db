"""The comment of a config's field, which `--help` shows, wherever it stands: on the field's line, on a
later line of a definition that is longer than one, or above it."""

import ast
import functools
import inspect
import io
import textwrap
import tokenize


def comment_of(config_class: type, name: str) -> str:
    """The comment of a field, own or inherited; "" if it has none."""
    found = (_comments(kind).get(name) for kind in inspect.getmro(config_class))
    return next((comment for comment in found if comment), "")


@functools.cache
def _comments(kind: type) -> dict[str, str]:
    """Field -> comment, of the fields that the class itself defines."""
    try:
        source = textwrap.dedent(inspect.getsource(kind))
        body = ast.parse(source).body[0]
    except (TypeError, OSError, SyntaxError):
        return {}
    assert isinstance(body, ast.ClassDef)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    at = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    alone = {line for line in at if source.splitlines()[line - 1].lstrip().startswith("#")}
    found = {}
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            inside = [at[line] for line in lines if line in at]
            found[node.target.id] = " ".join(inside or _above(node.lineno, at, alone))
    return found


def _above(line: int, at: dict[int, str], alone: set[int]) -> list[str]:
    """The comment that ends right above a line."""
    words: list[str] = []
    while line - 1 in alone:
        line -= 1
        words.insert(0, at[line])
    return words
