"""The report of an invented ladder: every part is there, nothing is loaded, text stays text."""

import re
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from invact_vla.app.report.inputs import ReportInputs, SampleClip, VariantInputs, read_metrics
from invact_vla.app.report.labeler_sections import WHOLE_CLIP, _sample
from invact_vla.app.report.stage import ReportConfig, build_report, main, with_samples
from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from libero_eval.results.rows import EpisodeLog
from tests.app.report.fixture import ladder
from tests.latent_actions.sources import write_clip, write_pictures
from tests.libero_eval.rows import make_row

ANCHORS = ("experiment", "videos", "encoder", "codes", "clips", "curves", "environment", "origin")
VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Checks that elements are closed in order; collects ids, links, resources and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.resources: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.add(tag)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.resources += [values["src"] or ""] if "src" in values else []
        if "href" in values:
            (self.links if tag == "a" else self.resources).append(values["href"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\xa0", " ")


def outline(path: Path) -> Outline:
    found = Outline()
    found.feed(path.read_text())
    assert not found.open
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return ladder(tmp_path_factory.mktemp("ladder"))


@pytest.fixture(scope="module")
def report(inputs: ReportInputs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(inputs, tmp_path_factory.mktemp("report") / "report.html")


def test_every_section_is_there_and_linked(report: Path) -> None:
    found = outline(report)
    own = [name for name in found.ids if not re.fullmatch("[mp][0-9a-f]{10}", name)]  # of charts
    assert tuple(own) == ANCHORS
    assert found.links == [f"#{anchor}" for anchor in ANCHORS]
    assert " left out: " not in found.text


def test_it_says_what_the_numbers_are_not(report: Path) -> None:
    text = outline(report).text
    assert "These are miniature numbers, not the paper's" in text
    assert (
        "none 34 %, lapa 44 %, invact 52 %" in text and "claims of the InvAct project page" in text
    )
    assert "chance" in text and "oracle" in text and "61.0 [55, 66]" in text


def test_nothing_is_loaded_and_nothing_runs(report: Path) -> None:
    found = outline(report)
    kinds = {resource.split(",")[0].split(";")[0] for resource in found.resources}
    assert kinds == {
        "data:",
        "data:image/png",
        "data:image/jpeg",
        "data:video/mp4",
        "data:video/webm",
    }
    assert "script" not in found.tags
    style = re.findall(r"<style>(.*?)</style>", report.read_text(), re.S)[0]
    assert "url(" not in style and "@import" not in style
    assert not re.search(r"https?://", report.read_text())
    assert report.stat().st_size < 2_000_000


def test_text_is_escaped(report: Path) -> None:
    source = report.read_text()
    assert "<b>_mug" not in source and "<i>soap" not in source
    assert (
        "&lt;b&gt; mug" in source and "&lt;i&gt;soap&lt;/i&gt;" in source and "a &lt; b" in source
    )


def test_the_same_inputs_give_the_same_bytes(
    inputs: ReportInputs, report: Path, tmp_path: Path
) -> None:
    assert build_report(inputs, tmp_path / "again.html").read_bytes() == report.read_bytes()


def test_rates_intervals_and_paired_differences(report: Path) -> None:
    text = outline(report).text
    assert re.search(r"\d+/18", text) and "invact − lapa" in text and "McNemar" in text
    assert re.search(r"18 episodes per variant can show: .* probability of 8%", text, re.S)


def test_an_error_takes_the_rate_away(inputs: ReportInputs, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    with EpisodeLog(folder / "episodes.jsonl") as log:
        log.append(make_row(policy_name="bad", outcome="error", reason="Traceback\nGL is <gone>"))
        log.append(make_row(policy_name="bad", init_index=1, outcome="success"))
    variants = {"none": inputs.variants["none"], "bad": VariantInputs(rollouts=folder)}
    text = outline(build_report(replace(inputs, variants=variants), tmp_path / "r.html")).text
    assert "1/2, 1 error" in text and "bad has no rate" in text
    assert "1 of 2 episodes ended as errors" in text and "Traceback\nGL is <gone>" in text


def test_missing_parts_are_named(inputs: ReportInputs, tmp_path: Path) -> None:
    variants = {"none": VariantInputs(rollouts=inputs.variants["none"].rollouts)}
    text = outline(build_report(ReportInputs(variants=variants), tmp_path / "r.html")).text
    for part in ("Retrieval", "Code usage", "Sample clips", "Curves", "Stages"):
        assert f"{part} left out" in text
    with pytest.raises(UserError, match="no episodes at"):
        build_report(
            ReportInputs(variants={"a": VariantInputs(rollouts=tmp_path)}), tmp_path / "x.html"
        )
    assert not (tmp_path / "x.html").exists()


def test_the_command_makes_the_report_from_flags(
    inputs: ReportInputs, report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = inputs.variants["none"].rollouts.parents[1]
    variants = ", ".join(
        f"{name}: {{rollouts: {variant.rollouts}, posttrain: {variant.posttrain}, "
        + (f"pretrain: {variant.pretrain}, " if variant.pretrain else "")
        + f"start: '{variant.start}', reported_success_rate: {variant.reported_success_rate}}}"
        for name, variant in inputs.variants.items()
    )
    config = parse_config(
        ReportConfig,
        [
            "--out", str(tmp_path / "report"), "--variants", f"{{{variants}}}",
            "--hardware", inputs.hardware, "--encoder", str(inputs.encoder),
            "--laq", str(inputs.laq), "--demos", str(inputs.demos),
            "--controls", f"{{expert: {inputs.controls['expert']}}}",
            "--labels", f"{{lapa: {inputs.labels['lapa']}, invact: {inputs.labels['invact']}}}",
            "--sample_videos", str(root / "webm"), "--sample_count", "4",
            "--stages", "{" + ", ".join(f"{n}: {f}" for n, f in inputs.stages.items()) + "}",
        ],
    )  # fmt: skip
    shown = with_samples(config)
    assert all(getattr(shown, f.name) == getattr(inputs, f.name) for f in fields(inputs))
    for _ in range(2):
        assert main(config) == tmp_path / "report"
        assert (tmp_path / "report" / "report.html").read_bytes() == report.read_bytes()
        assert (tmp_path / "report" / "done.json").exists()
        assert capsys.readouterr().out.strip() == str(tmp_path / "report" / "report.html")
    with pytest.raises(UserError, match=r"no .*nowhere"):
        main(replace(config, laq=tmp_path / "nowhere"))


def test_metrics_of_a_resumed_run_count_once(tmp_path: Path) -> None:
    rows = '{"step": 1, "loss": 2, "s": "x"}\n{"step": 2, "loss": 9}\n{"step": 2, "loss": 1}\n{"st'
    (tmp_path / "metrics.jsonl").write_text(rows)
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2}, {"step": 2, "loss": 1}]
    (tmp_path / "metrics.jsonl").write_text("{\n")
    with pytest.raises(UserError, match="jsonl:1"):
        read_metrics(tmp_path)


def test_the_pair_is_shown_where_the_clip_cannot_be(tmp_path: Path) -> None:
    """Browsers play no pictures and no AVI, and nobody wants a long film inside a page."""
    clip = SampleClip(
        text="it",
        video=write_pictures(tmp_path / "7", 0),
        frame=2,
        frame_end=17,
        codes={"a": (1, 2)},
    )
    shown = "".join(map(str, _sample(clip)["media"]))
    assert shown.count("<img") == 2 and shown.count('src="data:video/mp4;base64,') == 1
    long = write_clip(tmp_path / "long.webm", 0)
    whole = str(_sample(replace(clip, video=long))["media"][-1])
    assert 'src="data:video/webm' in whole
    with open(long, "ab") as file:
        file.truncate(WHOLE_CLIP + 1)
    assert 'src="data:video/mp4' in str(_sample(replace(clip, video=long))["media"][-1])
