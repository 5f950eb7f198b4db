"""The page itself: escaping, tables, sections, style. No script, no external resource."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
:root { color-scheme: light dark;
  --paper: #fbfaf7; --card: #ffffff; --ink: #23252a; --soft: #6a6e76; --rule: #e3e1da;
  --accent: #1f5fae; --warn-paper: #fdf3dc; --warn-rule: #e0b95a;
  --c0: #6b7280; --c1: #c26a17; --c2: #1f5fae; --c3: #2c8a57; --c4: #8b48a8; --c5: #b23a48; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #16181c; --card: #1d2025; --ink: #e6e4de; --soft: #9da1a9; --rule: #33373e;
  --accent: #7fb2f0; --warn-paper: #2e2716; --warn-rule: #8a6d2b;
  --c0: #a3a9b3; --c1: #f0a052; --c2: #7fb2f0; --c3: #68c795; --c4: #c796e0; --c5: #ee8791; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.1rem 5rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.15; letter-spacing: -.02em;
  margin: .4rem 0 .8rem; }
h2 { font-size: 1.35rem; letter-spacing: -.01em; margin: 3.2rem 0 .5rem; padding-top: .6rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 1.8rem 0 .3rem; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--accent); }
nav { font-size: .9rem; display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 1.2rem 0; }
nav a { text-decoration: none; }
.lead { font-size: 1.08rem; }
.soft, .above, figcaption { color: var(--soft); font-size: .88rem; }
.warn { background: var(--warn-paper); border-left: 3px solid var(--warn-rule);
  padding: .7rem 1rem; border-radius: 0 6px 6px 0; max-width: 46rem; margin: 1rem 0; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
.above { margin: 1.3rem 0 -.3rem; }
th, td { text-align: left; padding: .33rem .95rem .33rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: baseline; }
th { font-weight: 600; color: var(--soft); font-size: .84rem; vertical-align: bottom; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr.total td { font-weight: 650; border-top: 2px solid var(--rule); }
code, .mono { font: .86em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  overflow-wrap: anywhere; }
.codes { white-space: nowrap; }
.codes b { display: inline-block; min-width: 1.45em; padding: 0 .25em; margin-right: 2px;
  text-align: center; border-radius: 4px; font-weight: 600; color: #fff; }
.grid-of { display: grid; gap: 1.1rem; margin: .9rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, var(--cell, 170px)), 1fr)); }
.row-of { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; }
.row-of > div { flex: 0 1 auto; min-width: min(100%, 165px); }
.row-of h3 { font-size: .92rem; margin: 1rem 0 0; }
figure { margin: 0; }
figure img, figure video { display: block; width: 100%; height: auto; border-radius: 6px;
  background: var(--card); }
figcaption { padding-top: .3rem; line-height: 1.35; }
.pair { display: grid; grid-template: 1fr 1fr / 1fr 2fr; gap: 4px; }
.pair video { grid-area: 1 / 2 / 3 / 3; }
figure.success { --frame: var(--c3); } figure.failure { --frame: var(--c5); }
figure.error { --frame: var(--c4); }
figure[class] img, figure[class] video { border: 3px solid var(--frame); }
.tag { display: inline-block; font-size: .78rem; font-weight: 650; padding: 0 .45em;
  border-radius: 4px; border: 1px solid currentColor; }
.tag.success { color: var(--c3); } .tag.failure { color: var(--c5); }
.tag.error { color: var(--c4); }
svg.chart { width: 100%; height: auto; max-width: 35rem; display: block; margin: .6rem 0 0; }
svg.wide { max-width: 42rem; } svg.small { max-width: 15rem; }
svg text { fill: var(--soft); font-size: 12px; text-anchor: middle; }
svg.inline { width: 120px; height: 14px; vertical-align: middle; }
svg.matrix { width: 100%; height: auto; display: block; margin: .8rem 0 .2rem; }
svg.matrix text { font-size: 10px; }
.legend i.box { width: .8em; height: .8em; }
svg .end { text-anchor: end; } svg .start { text-anchor: start; }
svg.wide text { fill: var(--ink); font-size: 13px; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.grid { stroke: var(--rule); stroke-width: 1; } .whisker { stroke-width: 2.5; }
.mark { stroke: var(--soft); stroke-width: 1; stroke-dasharray: 3 3; } .bar { fill: var(--c2); }
.legend { font-size: .85rem; display: flex; flex-wrap: wrap; gap: .1rem 1.1rem;
  color: var(--soft); }
.legend i { display: inline-block; width: .9em; height: .28em; margin-right: .4em;
  vertical-align: middle; border-radius: 2px; }
.charts { display: grid; gap: .4rem 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)); }
pre { margin: 0; white-space: pre-wrap; font: .82em/1.45 ui-monospace, Menlo, Consolas, monospace; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
@media (max-width: 34rem) { main { padding-top: 1rem; } th, td { padding-right: .6rem; } }
"""


class Html(str):
    """Text that is already HTML. Everything else is escaped when it is put on the page."""


def safe(text: str) -> Html:
    """Html as it is, any other text escaped; a percent sign stays with its number."""
    return text if isinstance(text, Html) else Html(escape(text).replace(" %", "&nbsp;%"))


def join(*parts: Html) -> Html:
    """Pieces of HTML one after the other."""
    return Html("".join(parts))


@dataclass(frozen=True)
class Section:
    """A part of the report."""

    anchor: str
    title: str
    body: Html


def page(title: str, lead: Html, sections: Sequence[Section]) -> str:
    """The whole document. lead: what stands between the title and the table of contents."""
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    bodies = "".join(
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>{s.body}</section>' for s in sections
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><main><h1>{escape(title)}</h1>{lead}"
        f"<nav>{links}</nav>{bodies}</main></body></html>\n"
    )


def paragraph(text: str, kind: str = "") -> Html:
    """A paragraph; kind: "", "soft", "warn" or "lead"."""
    return Html(f'<p class="{kind}">{safe(text)}</p>' if kind else f"<p>{safe(text)}</p>")


def heading(text: str) -> Html:
    """A heading inside a section."""
    return Html(f"<h3>{safe(text)}</h3>")


def missing(what: str, why: str) -> Html:
    """The sentence in place of a part that was not given."""
    return paragraph(f"{what} left out: {why}.", "soft")


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    caption: str = "",
    numeric_from: int = 1,
    has_total: bool = False,
) -> Html:
    """A table. Columns from `numeric_from` on are right-aligned; has_total marks the last row."""
    kinds = ["total" if has_total and n == len(rows) - 1 else "" for n in range(len(rows))]
    body = "".join(
        _row("td", row, numeric_from, kind) for row, kind in zip(rows, kinds, strict=True)
    )
    title = f'<p class="above">{safe(caption)}</p>' if caption else ""
    return Html(
        f'{title}<div class="scroll"><table><thead>{_row("th", head, numeric_from)}</thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def figure(media: Html, caption: str, kind: str = "") -> Html:
    """A picture, video or chart with a caption; kind: "" or an outcome, which frames it."""
    mark = f' class="{escape(kind)}"' if kind else ""
    return Html(f"<figure{mark}>{media}<figcaption>{safe(caption)}</figcaption></figure>")


def grid(items: Sequence[Html], cell_px: int = 170) -> Html:
    """Items side by side, as many as fit."""
    return Html(f'<div class="grid-of" style="--cell:{cell_px}px">{"".join(items)}</div>')


def blocks(items: Sequence[tuple[Html, int]]) -> Html:
    """Blocks side by side, each as wide as it needs (in pixels) if the page is."""
    parts = "".join(f'<div style="flex-basis:{width}px">{body}</div>' for body, width in items)
    return Html(f'<div class="row-of">{parts}</div>')


def details(title: str, body: Html) -> Html:
    """A part that the reader opens."""
    return Html(f"<details><summary>{safe(title)}</summary>{body}</details>")


def code_chips(codes: Sequence[int]) -> Html:
    """Codes as small colored squares; equal codes have equal colors in the whole report."""
    chips = "".join(
        f'<b style="background:hsl({(code * 137) % 360} 45% 42%)">{code}</b>' for code in codes
    )
    return Html(f'<span class="codes mono">{chips}</span>')


def tag(outcome: str) -> Html:
    """An outcome as a small colored word."""
    return Html(f'<span class="tag {escape(outcome)}">{escape(outcome)}</span>')


def _row(element: str, cells: Sequence[str], numeric_from: int, kind: str = "") -> str:
    parts = []
    for column, cell in enumerate(cells):
        mark = ' class="n"' if column >= numeric_from else ""
        parts.append(f"<{element}{mark}>{safe(cell)}</{element}>")
    mark = f' class="{kind}"' if kind else ""
    return f"<tr{mark}>{''.join(parts)}</tr>"
