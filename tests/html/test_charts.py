"""Charts: everything drawn has a legend, text of strangers stays text, equal values give equal bytes."""

import subprocess
import sys

import pytest

from invact_vla.html.charts import Interval, bar_chart, interval_chart, line_chart
from tests.paths import REPOSITORY

LINES = {"none $x$": [(0, 9.0), (1, 4.0), (2, 0.2)], "_b & <i>": [(0, 1.0), (2, 2.0)]}
ROWS = [Interval("a", 40, 35, 44, "40.0", (38.0, 42.0)), Interval("b & <i>", 10, 8, 12, "10.0")]


def intervals() -> str:
    return interval_chart(ROWS, "bars", "P@10 (%)", "mean", reference=5, reference_name="chance 5")


def test_every_line_has_a_legend() -> None:
    lines, bars = line_chart(LINES, "step", "loss"), bar_chart([0.7, 0.3], 0.5, "uniform", "codes")
    assert "none $x$" in lines and "_b &amp; &lt;i&gt;</span>" in lines and "<i>" not in lines
    assert lines.count('<i class="line"') == 2 and "loss (log scale)" in lines
    assert '<i class="dashes"' in bars and "uniform" in bars
    for name in ("mean", "seeds", "chance 5"):
        assert f"{name}</span>" in intervals()


def test_text_and_colors_are_the_page_s_own() -> None:
    chart = intervals()
    assert "b &amp; &lt;i&gt;" in chart and "font-family" not in chart and "http" not in chart
    assert "var(--c0)" in chart and "var(--c1)" in chart and "#1f5fae" not in chart
    assert "<style" not in chart and "<metadata" not in chart


def test_what_is_written_keeps_its_digits() -> None:
    chart = line_chart({"a": [(0, 0.0012345), (1, 0.0018)]}, "0.12345 s", "#1f5fae")
    assert ">0.0014<" in chart and ">0.12345 s<" in chart and ">#1f5fae<" in chart


@pytest.mark.parametrize(
    "name",
    ["\ud800x", "a\x00b", "a\nb", "-->", "</text><script>", "$\\frac{", "", "中文", "x" * 5000],
)
def test_any_name_can_be_drawn(name: str, recwarn: pytest.WarningsRecorder) -> None:
    rows = [Interval(name, 1, 0, 2, name)]
    charts = interval_chart(rows, name, name, name, reference=1, reference_name=name)
    charts += line_chart({name: [(0, 1), (1, 2)]}, name, name)
    assert "<script" not in charts and not recwarn.list
    tick = charts.split("</text>")[0].rsplit(">", 1)[1]
    assert len(tick) <= 30


def test_a_variant_has_one_color_in_all_charts() -> None:
    chart = line_chart({"b": LINES["_b & <i>"]}, "step", "loss", order=("a", "b"))
    assert "var(--c1)" in chart and "var(--c0)" not in chart
    with pytest.raises(ValueError, match="no points"):
        line_chart({"a": [(0, float("nan"))]}, "step", "loss")


def test_equal_values_give_equal_bytes_in_any_process() -> None:
    code = "from tests.html.test_charts import intervals; print(intervals(), end='')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout == intervals() and not done.stderr


def test_the_library_is_loaded_with_the_first_chart() -> None:
    code = "import sys, invact_vla.html.charts; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
