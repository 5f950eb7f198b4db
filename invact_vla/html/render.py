"""Pages of one file from Jinja2 templates: everything that is not `Html` is escaped. No script, no
external resource.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup as Html

from invact_vla.core.files import atomic_file

TEMPLATES = Path(__file__).parent / "templates"
__all__ = ["Html", "part", "render", "write_page"]


def render(template: str, *folders: Path, **values: Any) -> str:
    """The whole document of a template that extends page.html.j2.

    folders: where the template and what it includes lie, besides this package's own. values: what
    the template names. A number stays on the line of its percent sign.
    """
    text = _environment(*folders).get_template(template).render(**values)
    links = re.findall(r'<section id="(\w+)"><h2>(.*?)</h2>', text, re.S)
    items = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title in links)
    return re.sub(r"(\d) %", r"\1&nbsp;%", text.replace("<nav></nav>", f"<nav>{items}</nav>", 1))


def write_page(path: Path, template: str, *folders: Path, **values: Any) -> Path:
    """`render` into a file, all or nothing; returns `path`."""
    document = render(template, *folders, **values)
    with atomic_file(path) as temporary:
        temporary.write_text(document, encoding="utf-8", errors="replace")
    return path


def part(name: str, **values: Any) -> Html:
    """A macro of parts.html.j2, called."""
    return getattr(_environment().get_template("parts.html.j2").module, name)(**values)


@cache
def _environment(*folders: Path) -> Environment:
    return Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
