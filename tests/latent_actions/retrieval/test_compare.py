"""`invact encoder compare`: point estimates, paired intervals, what it refuses, and its page."""

import json
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.core.files import write_json
from invact_vla.core.run_folder import open_run
from invact_vla.stats.bootstrap import percentile_interval, resample
from invact_vla.training.loop import LoopConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.sprites import SpriteConfig
from latent_actions.encoder.train import EncoderTrainConfig
from latent_actions.labelers.laq.checkpoint import save_pretrained
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.retrieval import compare
from latent_actions.retrieval.compare_stats import CompareRow, Estimate, against, estimates_of
from latent_actions.retrieval.compare_tables import has_headroom, tables, write_compare_page
from latent_actions.retrieval.compare_variants import Member, Variant
from latent_actions.retrieval.encoders import EvaluatedEncoder, trained
from latent_actions.retrieval.evaluate import evaluate
from latent_actions.retrieval.metric import in_words
from latent_actions.retrieval.results import Row
from tests.paths import REPOSITORY

SPRITES = SpriteConfig(moments=8, val_moments=40, val_scenes=3, size=16)
SHAPE = EncoderConfig(frames=4, size=16, width=32, depth=3, embedding=16, heads=2)
TAKES = [f"t{i % 6}" for i in range(60)]


def run_of(folder: Path, seed: int, shape: EncoderConfig = SHAPE, steps: int = 3) -> Path:
    """A finished run of `encoder train` with random weights of its seed."""
    loop = LoopConfig(steps=steps, batch_size=16)
    config = EncoderTrainConfig(out=folder, data=SPRITES, model=shape, loop=loop, seed=seed)
    run = open_run(folder, config, seed=seed)
    torch.manual_seed(seed)
    InvActEncoder(shape).save_pretrained(folder / "encoder")
    run.finish({})
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two variants of two seeds, and a LAQ."""
    root = tmp_path_factory.mktemp("runs")
    for number, name in enumerate(("ours_0", "ours_1", "other_0", "other_1")):
        run_of(root / name, number)
    torch.manual_seed(0)
    shape = LaqConfig(dim=16, quant_dim=4, image_size=16, patch_size=2, spatial_depth=1,
                      temporal_depth=1, dim_head=8, heads=2)  # fmt: skip
    save_pretrained(LatentActionQuantizer(shape), root / "laq" / "model")
    return root


def config_of(runs: Path, out: Path, *args: str, **variants: str) -> compare.CompareEncodersConfig:
    """variants: names of runs with a space between."""
    variants = variants or {"ours": "ours_0 ours_1", "other": "other_0 other_1"}
    given = {name: [str(runs / run) for run in words.split()] for name, words in variants.items()}
    words = ["--out", str(out), "--variants", json.dumps(given), "--reference", "ours", "--draws", "50",
             "--data.type", "sprites", "--data.moments", "8", "--data.val_moments", "40",
             "--data.val_scenes", "3", "--data.size", "16"]  # fmt: skip
    return parse_config(compare.CompareEncodersConfig, [*words, *args])


def p_at_10(folder: Path) -> dict[tuple[str, str], dict]:
    rows = json.loads((folder / "compare.json").read_text())["rows"]
    return {(r["variant"], r["measure"]): r for r in rows if r["benchmark"] == "atomic"}


class Tags(HTMLParser):
    """Counts elements, and checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.count = [], {}

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1


def test_a_measure_that_only_some_runs_have_is_no_mean():
    def part(value):
        names = {"encoder": "a", "benchmark": "scene_bias", "setting": "scene"}
        row = Row(**names, measure="gain kept", value=value, note="" if value else "no gain")
        return {"rows": [asdict(row)]}

    variant = Variant(name="a", members=(Member(load=EvaluatedEncoder),))
    parts = {"a": [part(80.0), part(None), part(None)]}
    assert compare._measure_rows([variant], parts) == []
    assert any("1 of 3 runs" in note for note in compare._absent(parts, []))
    [row] = compare._measure_rows([variant], {"a": [part(80.0), part(60.0)]})
    assert row.value == 70


def test_one_table_of_all_variants(runs, tmp_path, capsys, monkeypatch):
    laqs = json.dumps({"lapa": [{"type": "lapa", "laq": str(runs / "laq"), "frames": 4}]})
    config = config_of(runs, tmp_path / "compare", "--baselines", laqs)
    folder = compare.main(config)
    rows = p_at_10(folder)
    assert {variant for variant, _ in rows} == {"ours", "other", "lapa", "random_weights", "pixels"}
    table = SPRITES.table(4, tmp_path, 1)
    for variant in ("ours", "other"):
        encoders = [trained(runs / f"{variant}_{n}", str(n)) for n in (0, 1)]
        each = evaluate(encoders, table, "val", draws=2)
        for measure in ("cross_scene", "cross_view", "g-g", "x-g"):
            row = rows[variant, measure]
            expected = [each["encoders"][n][measure]["p_at_10"] for n in "01"]
            assert row["seeds"] == pytest.approx(expected)
            assert row["value"] == pytest.approx(np.mean(expected))
            assert row["low"] <= row["value"] <= row["high"]
            assert row["chance"] == pytest.approx(each["levels"]["scene"]["chance"])
            assert row["n"] == 40 and row["steps"] == 3
    ours, other = rows["ours", "cross_view"], rows["other", "cross_view"]
    assert other["ratio"] == pytest.approx(ours["value"] / other["value"])
    assert other["difference"] == pytest.approx(ours["value"] - other["value"])
    assert ours["ratio"] is None and ours["apart"] is None
    assert len(rows["random_weights", "g-g"]["seeds"]) == 2
    assert len(rows["pixels", "g-g"]["seeds"]) == len(rows["lapa", "g-g"]["seeds"]) == 1
    assert rows["lapa", "g-g"]["parameters"] > 0 and rows["lapa", "g-g"]["steps"] is None
    check_files(folder, capsys.readouterr().out)

    def never(*args):
        raise AssertionError("a finished comparison measures nothing")

    monkeypatch.setattr(compare, "_measure", never)
    compare.main(config)
    (folder / "done.json").unlink()  # a killed one goes on with what was measured
    compare.main(config)


def check_files(folder: Path, printed: str) -> None:
    assert printed == (folder / "table.txt").read_text()
    rows = pq.read_table(folder / "compare.parquet").to_pylist()
    kept = json.loads((folder / "compare.json").read_text())
    assert rows == kept["rows"] and kept["reference"] == "ours"
    assert {row["benchmark"] for row in rows} == {"atomic", "scene_bias"}
    probes = [row for row in rows if row["measure"] == "scene from embedding"]
    assert probes[0]["value"] == pytest.approx(np.mean(probes[0]["seeds"]))
    assert probes[0]["low"] is None and len(probes[0]["seeds"]) == 2
    assert any(note.startswith("commitment is left out") for note in kept["notes"])
    markdown = (folder / "table.md").read_text().splitlines()
    for block in "\n".join(markdown).split("\n\n"):
        widths = {line.count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(widths) <= 1
    assert sum(line.startswith("| other | cross-") for line in markdown) == 2
    tags, page = Tags(), (folder / "index.html").read_text()
    tags.feed(page)
    assert tags.open == [] and tags.count["svg"] == 2 and tags.count["table"] == 4
    assert "script" not in tags.count and "http" not in page


def test_the_committed_patches_are_shown(runs, tmp_path):
    from PIL import Image

    source = run_of(tmp_path / "ours_9", 9)
    Image.new("RGB", (8, 8)).save(source / "committed.png")
    none = ["--measures", "[]", "--random", "false", "--pixels", "false"]
    folder = compare.main(config_of(tmp_path, tmp_path / "out", *none, ours="ours_9"))
    assert "data:image/png" in (folder / "index.html").read_text()


def test_what_can_not_be_compared_is_refused(runs, tmp_path):
    def error(**variants: str) -> str:
        with pytest.raises(UserError) as caught:
            compare.read_variants(config_of(tmp_path, tmp_path / "out", **variants))
        return str(caught.value)

    run_of(tmp_path / "a", 0)
    run_of(tmp_path / "longer", 1, steps=4)
    run_of(tmp_path / "wider", 1, replace(SHAPE, mlp_ratio=6.0))
    run_of(tmp_path / "timed", 1, replace(SHAPE, duration_weight=1.0))
    run_of(tmp_path / "slower", 1, replace(SHAPE, frames=8))
    run_of(tmp_path / "killed", 1)
    (tmp_path / "killed" / "done.json").unlink()
    (tmp_path / "bare").mkdir()
    write_json(tmp_path / "bare" / "config.json", {})
    assert "steps: b 4, ours 3" in error(ours="a", b="longer")
    assert "parameters: b " in error(ours="a", b="wider")
    assert "duration_weight: b 1, ours 0" in error(ours="a", b="timed")
    assert "frames of a clip (ours 4, b 8)" in error(ours="a", b="slower")
    assert "variant b" in error(ours="a", b="killed") and "unfinished" in error(
        ours="a", b="killed"
    )
    assert "missing input" in error(ours="a", b="absent")
    assert "no run of `invact encoder train`" in error(ours="a", b="bare")
    assert "seeds [0, 0]" in error(ours="a a")
    given = config_of(
        tmp_path, tmp_path / "o", "--matched", "false", ours="a", b="longer", c="wider"
    )
    notes = compare.read_variants(given)[1]
    assert len(notes) == 2 and "steps: b 4" in notes[0] and "parameters: c" in notes[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--reference", "nobody"], "reference"),
        (["--draws", "0"], "draws"),
        (["--variants", '{"ours": []}'], "at least one run"),
        (["--variants", '{"ours": ["x"], "a b": ["y"]}'], "letters"),
        (["--variants", '{"ours": ["x"], "pixels": ["y"]}'], "must differ"),
    ],
)
def test_bad_configs_are_refused(tmp_path, args, message):
    with pytest.raises(UserError, match=message):
        config_of(tmp_path, tmp_path / "out", *args)


def test_one_scene_is_not_enough(runs, tmp_path):
    with pytest.raises(UserError, match="two or more"):
        compare.main(config_of(runs, tmp_path / "out", "--data.val_scenes", "1"))


def scores_of(seed: int, seeds: int, rate: float) -> np.ndarray:
    """P@10 of queries that depend on their take, as clips of a take do."""
    rng = np.random.default_rng(seed)
    easy = np.random.default_rng(9).uniform(-0.25, 0.25, 6)[[int(t[1:]) for t in TAKES]]
    return np.clip(rng.normal(rate + easy, 0.05, (seeds, len(TAKES))), 0, 1)


def test_takes_cancel_between_arms_and_seeds_do_not():
    single = scores_of(0, 1, 0.5)
    found = estimates_of({"a": single, "b": single}, TAKES, 200, 0)
    same = against(found["a"], found["b"])
    assert same["difference_low"] == same["difference_high"] == 0 and same["ratio_low"] == 1
    assert found["a"].interval[1] - found["a"].interval[0] > 5  # each alone is uncertain
    several = np.concatenate([scores_of(0, 1, 0.4), scores_of(1, 1, 0.5), scores_of(2, 1, 0.6)])
    found = estimates_of({"a": several, "b": several}, TAKES, 400, 0)
    same = against(found["a"], found["b"])
    assert same["difference"] == 0 and same["ratio"] == 1 and same["apart"] is False
    assert same["difference_low"] < -2 < 2 < same["difference_high"]
    assert same["ratio_low"] < 1 < same["ratio_high"]


def test_a_paired_difference_is_narrower_than_the_variants():
    found = estimates_of({"a": scores_of(0, 1, 0.55), "b": scores_of(1, 1, 0.45)}, TAKES, 400, 0)
    gap = against(found["a"], found["b"])
    assert gap["apart"] is False and gap["difference_low"] > 5 and gap["ratio_low"] > 1
    assert gap["difference_high"] - gap["difference_low"] < 6


def test_one_seed_has_the_interval_of_takes_alone():
    scores = scores_of(0, 1, 0.5)
    own = estimates_of({"a": scores}, TAKES, 4000, 3)["a"]
    assert own.value == pytest.approx(100 * scores.mean())
    alone = percentile_interval(resample(scores[0], np.ones(len(TAKES)), TAKES, draws=4000))
    assert own.interval == pytest.approx([100 * end for end in alone], abs=0.7)
    spread = scores + np.array([[-0.1], [0.0], [0.1]])
    wide = estimates_of({"a": spread}, TAKES, 4000, 3)["a"]
    assert np.diff(wide.interval) > np.diff(own.interval) + 1


def test_a_variant_at_nothing_has_no_ratio():
    draws = np.array([10.0, 20.0])
    found = against(Estimate(15.0, draws), Estimate(5.0, np.array([0.0, 15.0])))
    assert "ratio" not in found and found["difference"] == 10 and found["apart"] is False
    assert against(Estimate(15.0, draws), Estimate(3.0, draws / 5))["apart"] is True
    assert against(Estimate(3.0, draws / 5), Estimate(15.0, draws))["apart"] is True


def test_the_page_of_clips_that_cannot_tell_encoders_apart(tmp_path):
    def row(oracle: float) -> CompareRow:
        return CompareRow(
            variant="ours", benchmark="atomic", measure="cross_scene", setting="", value=2.5,
            seeds=(2.5,), low=2.0, high=3.0, chance=2.5, oracle=oracle, n=8, takes=4,
        )  # fmt: skip

    assert has_headroom([row(9.0)]) and not has_headroom([row(2.5)])
    assert tables([row(2.5)], "ours") == []
    note = compare._no_headroom([row(2.5)])
    assert "a random order and a perfect one both have P@10 2.50 %" in note
    page = write_compare_page(
        tmp_path / "p.html", [row(2.5)], "ours", [], [note], tmp_path / "no.png"
    )
    text = page.read_text()
    assert (
        "a random order and a perfect one" in text and "<svg" not in text and "<table" not in text
    )


def test_directions_are_spelled_out():
    assert in_words("g-x P@10") == "ego -> exo P@10" and in_words("cross_view") == "cross-view"
    assert in_words("scene from embedding") == "scene from embedding"


def test_the_config_names_three_seeds_of_each_variant_that_is_judged():
    path = REPOSITORY / "configs" / "encoder" / "compare_retrieval.yaml"
    config = parse_config(compare.CompareEncodersConfig, ["--config_path", str(path)])
    seeds = {name: len(runs) for name, runs in {**config.variants, **config.baselines}.items()}
    assert set(seeds.values()) == {3}
    assert [type(m).__name__[:9] for m in config.measures] == ["Chirality", "Commitmen"]
