"""`invact encoder eval` and `invact encoder search` from the command line's config to the files."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.data.video.video_io import write_video
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.language import LanguageHead
from latent_actions.retrieval import evaluate, search
from tests.paths import REPOSITORY

SPRITES = ["--data.type", "sprites", "--data.moments", "8", "--data.val_moments", "24",
           "--data.size", "16"]  # fmt: skip
CONFIGS = REPOSITORY / "configs" / "encoder"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A training run's folder with random weights: encoder/ and language/."""
    folder = tmp_path_factory.mktemp("run")
    shape = EncoderConfig(frames=4, size=16, width=32, depth=3, embedding=16, heads=2)
    InvActEncoder(shape).save_pretrained(folder / "encoder")
    LanguageHead(["left", "right"], 16).save_pretrained(folder / "language")
    return folder


def config_of(encoder, out, *args):
    given = ["--out", str(out), "--encoder", str(encoder), "--draws", "20", *SPRITES, *args]
    return parse_config(evaluate.EvalConfig, given)


def test_one_table_a_run(encoder, tmp_path, capsys):
    folder = evaluate.main(config_of(encoder, tmp_path / "eval", "--data.val_scenes", "3"))
    printed = capsys.readouterr().out
    assert "chance" in printed and "keystep" in printed
    assert printed.strip() == (folder / "table.txt").read_text().strip()
    rows = pq.read_table(folder / "results.parquet").to_pylist()
    assert rows == json.loads((folder / "results.json").read_text())
    names = {row["benchmark"] for row in rows}
    assert names >= {"atomic", "keystep", "scene_bias", "language", "chirality", "commitment"}
    assert {row["encoder"] for row in rows} >= {"encoder", "random weights", "pixels"}
    skipped = [row for row in rows if row["value"] is None]
    assert skipped and all(row["note"] for row in skipped)
    for row in rows:
        if row["value"] is not None:
            assert row["n"] > 0 and row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9
    before = (folder / "results.json").stat().st_mtime_ns
    evaluate.main(config_of(encoder, tmp_path / "eval", "--data.val_scenes", "3"))
    assert (folder / "results.json").stat().st_mtime_ns == before


def test_nothing_to_measure_is_an_error(encoder, tmp_path):
    only = ["--benchmarks", '[{"type": "atomic", "scene_keys": ["scene"]}]']
    config = config_of(encoder, tmp_path / "eval", "--data.val_scenes", "1", *only)
    with pytest.raises(UserError, match="two or more"):
        evaluate.main(config)


def test_a_baseline_without_weights_leaves_a_row(encoder, tmp_path):
    others = ["--others", '[{"type": "lapa", "laq": "/absent"}]', "--baselines", "false"]
    only = ["--benchmarks", '[{"type": "atomic"}]']
    folder = evaluate.main(config_of(encoder, tmp_path / "eval", *others, *only))
    rows = json.loads((folder / "results.json").read_text())
    lost = [row for row in rows if row["encoder"] == "lapa"]
    assert len(lost) == 1 and lost[0]["value"] is None and lost[0]["note"]


def test_two_of_a_kind_have_their_own_numbers_and_their_weights_count(encoder, tmp_path):
    shape = EncoderConfig(frames=4, size=16, width=32, depth=3, embedding=16, heads=2)
    for name in ("one", "two"):
        InvActEncoder(shape).save_pretrained(tmp_path / name)
    others = [{"type": "trained", "encoder": str(tmp_path / name)} for name in ("one", "two")]
    only = ["--benchmarks", '[{"type": "atomic", "scene_keys": ["scene"]}]', "--baselines", "false"]
    config = config_of(encoder, tmp_path / "eval", "--others", json.dumps(others), *only)

    def numbers():
        rows = json.loads((evaluate.main(config) / "results.json").read_text())
        return [[r["value"] for r in rows if r["encoder"] == n] for n in ("trained", "trained 2")]

    first, second = numbers()
    assert first != second and len(first) == len(second) > 0
    shutil.rmtree(tmp_path / "one")
    shutil.copytree(tmp_path / "two", tmp_path / "one")
    with pytest.raises(UserError, match="overwrite"):
        evaluate.main(config)


def test_weights_that_are_not_a_number_lose_their_own_rows_only(encoder, tmp_path):
    broken = InvActEncoder(
        EncoderConfig(frames=4, size=16, width=32, depth=3, embedding=16, heads=2)
    )
    broken.head.bias.data[0] = float("nan")
    broken.save_pretrained(tmp_path / "broken")
    others = json.dumps([{"type": "trained", "encoder": str(tmp_path / "broken")}])
    only = ["--benchmarks", '[{"type": "atomic", "scene_keys": ["scene"]}]', "--baselines", "false"]
    folder = evaluate.main(config_of(encoder, tmp_path / "eval", "--others", others, *only))
    rows = json.loads((folder / "results.json").read_text())
    lost = [row for row in rows if row["encoder"] == "trained"]
    assert len(lost) == 1 and "NaN" in lost[0]["note"]
    assert all(row["value"] is not None for row in rows if row["encoder"] == "encoder")


@pytest.mark.parametrize("name", ["eval_synth", "eval_full"])
def test_configs_parse(name):
    given = ["--config_path", str(CONFIGS / f"{name}.yaml"), "--out", "runs/x"]
    assert len(parse_config(evaluate.EvalConfig, given).benchmarks) >= 7


def test_bad_configs_are_refused():
    for args in (["--draws", "0"], ["--benchmarks", "[]"],
                 ["--benchmarks", '[{"type": "atomic", "scene_keys": ["kitchen"]}]']):  # fmt: skip
        with pytest.raises(UserError):
            parse_config(evaluate.EvalConfig, ["--out", "x", "--encoder", "y", *args])


def search_config(encoder, tmp_path, *queries):
    given = [*queries, "--encoder", str(encoder), "--out", str(tmp_path / "found"),
             "--gallery", str(tmp_path / "gallery"), "--top", "3", *SPRITES]  # fmt: skip
    return parse_config(search.SearchConfig, given)


def test_search_by_clip_and_by_video(encoder, tmp_path, capsys):
    video = tmp_path / "clip.mp4"
    write_video(
        video, np.random.default_rng(0).integers(256, size=(9, 32, 32, 3), dtype=np.uint8), 9
    )
    config = search_config(encoder, tmp_path, "m10/aria", str(video))
    folder = search.main(config)
    page = (folder / "search.html").read_text()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 9 and lines[0].startswith("m10/aria")
    assert lines[:8] == (folder / "search.txt").read_text().splitlines()
    assert lines[8] == str(folder / "search.html") and (folder / "done.json").exists()
    assert page.count("<figure") == 8 and page.count("data:image") >= 8
    made = (tmp_path / "gallery" / "vectors.npy").stat().st_mtime_ns
    search.main(config)
    assert (tmp_path / "gallery" / "vectors.npy").stat().st_mtime_ns == made
    with pytest.raises(UserError, match="--overwrite true"):
        search.main(search_config(encoder, tmp_path, "m11/aria"))


def test_a_gallery_of_other_clips_is_not_used_again(encoder, tmp_path):
    model = InvActEncoder.from_pretrained(encoder / "encoder")
    config = search_config(encoder, tmp_path, "m10/aria")
    first = search.open_gallery(config, model)
    other = replace(config, data=replace(config.data, correlation=0.1, seed=5))
    again = search.open_gallery(other, model)
    assert [entry.clip for entry in again.entries] == [entry.clip for entry in first.entries]
    assert np.abs(again.vectors - first.vectors).max() > 1e-3


def test_search_leaves_the_scene_out(encoder, tmp_path):
    config = search_config(encoder, tmp_path, "m10/aria")
    gallery = search.open_gallery(config, InvActEncoder.from_pretrained(encoder / "encoder"))
    row = gallery.row_of("m10/aria")
    out = [r for r, e in enumerate(gallery.entries) if e.scene == gallery.entries[row].scene]
    found = gallery.nearest(gallery.vectors[[row]], 3, leave_out=[np.array(out)])
    assert all(gallery.entries[r].scene != gallery.entries[row].scene for r in found.rows[0])


def test_search_for_what_is_not_there(encoder, tmp_path):
    with pytest.raises(UserError, match="no clip 'm99/aria'"):
        search.main(search_config(encoder, tmp_path, "m99/aria"))
    with pytest.raises(UserError, match="no video"):
        search.main(search_config(encoder, tmp_path, "absent.mp4"))


def test_faiss_is_not_loaded_with_the_module():
    code = "import sys, latent_actions.retrieval.search; sys.exit('faiss' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY).returncode == 0
