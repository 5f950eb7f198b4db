"""Pages: values are escaped unless they are HTML, sections are linked."""

from pathlib import Path

from invact_vla.html.render import Html, part, render, write_page

PAGE = """{% extends "page.html.j2" %}{% import "parts.html.j2" as p %}
{% block body %}{% call p.section("one", name) %}{{ p.table(["a", "b"], rows, name, total=true) }}
{% endcall %}{% endblock %}"""


def test_a_page_of_strangers_values(tmp_path: Path) -> None:
    (tmp_path / "x.html.j2").write_text(PAGE)
    given = {
        "title": "<b>",
        "scope": "2 of 10 tasks",
        "name": '<script>"',
        "rows": [["<i>", Html("<b>1</b>")]],
    }
    path = write_page(tmp_path / "x.html", "x.html.j2", tmp_path, **given)
    text = path.read_text()
    assert "<title>&lt;b&gt;</title>" in text and '<p class="scope">2 of 10 tasks</p>' in text
    assert "<script" not in text and "&lt;i&gt;" in text and "<b>1</b>" in text
    assert '<nav><a href="#one">&lt;script&gt;&#34;</a></nav>' in text
    assert '<tr class="total">' in text and "scroll sideways" in text
    assert '<p class="scope">' not in render("x.html.j2", tmp_path, **{**given, "scope": ""})


def test_a_number_stays_with_its_percent_sign(tmp_path: Path) -> None:
    (tmp_path / "x.html.j2").write_text(PAGE)
    text = render(
        "x.html.j2", tmp_path, title="12.5 % of x", scope="", name="n", rows=[["a % b", "c"]]
    )
    assert "12.5&nbsp;% of x" in text and "a % b" in text


def test_text_that_no_encoding_has_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "x.html.j2").write_text(PAGE)
    values = {"title": "a\ud800b", "scope": "", "name": "n", "rows": []}
    path = write_page(tmp_path / "x.html", "x.html.j2", tmp_path, **values)
    assert "<title>a?b</title>" in path.read_text()


def test_parts_escape_what_they_are_given() -> None:
    table = part("table", head=["<a>"], rows=[["x" * 40], ["short"]], caption="<c>")
    assert "&lt;a&gt;" in table and "&lt;c&gt;" in table
    assert table.count('<td class="long">') == 1  # a column of words is never one word wide
    assert 'title="&lt;r&gt;, 0: &lt;k&gt;"' in part(
        "matrix", rows=[("<r>", ["<k>"])], colors={"<k>": "red"}
    )
