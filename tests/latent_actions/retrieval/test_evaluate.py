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


@pytest.fixture(scope="module")
def timed(encoder, tmp_path_factory):
    """The same encoder, with the weight of an embedding for durations."""
    folder = tmp_path_factory.mktemp("timed") / "run"
    shutil.copytree(encoder, folder)
    config = json.loads((folder / "encoder" / "config.json").read_text())
    (folder / "encoder" / "config.json").write_text(json.dumps({**config, "duration_weight": 1.0}))
    return folder


def places(root, suffix=".mp4"):
    """Clips whose pixels say nothing: what is cut lasts 1 s, what is washed 4 s."""
    still = np.full((40, 16, 16, 3), 90, np.uint8)
    for number, (place, verb) in enumerate((p, v) for p in "abc" for v in ("cut", "wash")):
        path = root / "val" / place / verb / f"{number}.ego{suffix}"
        write_video(path, still[: 10 if verb == "cut" else 40], 10.0)
    return [
        "--data.type",
        "videos",
        "--data.source.type",
        "folder",
        "--data.source.root",
        str(root),
    ]


def rows_of(out, encoder, *args):
    given = ["--out", str(out), "--encoder", str(encoder), "--draws", "20", *args]
    folder = evaluate.main(parse_config(evaluate.EvalConfig, given))
    return json.loads((folder / "results.json").read_text())


def test_all_rows_of_a_table_compare_durations_with_one_weight(encoder, timed, tmp_path):
    clips = places(tmp_path / "clips")
    asked = ["--benchmarks", '[{"type": "cross_place", "top": 2}]']

    def scores(*args):
        rows = rows_of(*args, *clips, *asked)
        return {
            r["encoder"]: r["value"] for r in rows if (r["setting"], r["measure"]) == ("all", "P@2")
        }

    own = scores(tmp_path / "own", timed)
    assert set(own) == {"encoder", "random weights", "pixels", "differences", "duration alone"}
    assert set(own.values()) == {100.0}
    assert scores(tmp_path / "asked", encoder, "--duration_weight", "1") == own
    without = scores(tmp_path / "without", timed, "--duration_weight", "0")
    assert "duration alone" not in without and max(without.values()) < 100
    windows = ["--benchmarks", '[{"type": "cross_place", "top": 2, "window_s": 2}]']
    rows = rows_of(tmp_path / "windows", timed, *clips, *windows)
    assert "duration alone" not in {row["encoder"] for row in rows}


def test_clips_of_unknown_duration_are_compared_without_and_the_control_says_so(timed, tmp_path):
    rows = json.loads(
        (evaluate.main(config_of(timed, tmp_path / "eval")) / "results.json").read_text()
    )
    control = [row for row in rows if row["encoder"] == "duration alone"]
    assert [(r["benchmark"], r["value"]) for r in control] == [("atomic", None)]
    assert "not known" in control[0]["note"]
    assert any(r["value"] is not None for r in rows if r["encoder"] == "encoder")


@pytest.mark.parametrize("weight", ["-1", "nan", "1e9"])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(UserError, match="duration_weight"):
        parse_config(
            evaluate.EvalConfig, ["--out", "x", "--encoder", "y", "--duration_weight", weight]
        )


def test_search_compares_durations_where_it_knows_those_of_the_gallery(timed, tmp_path, capsys):
    video = tmp_path / "query.mp4"
    write_video(video, np.full((40, 16, 16, 3), 90, np.uint8), 10.0)
    search.main(search_config(timed, tmp_path / "sprites", str(video), "m10/aria"))  # not known
    capsys.readouterr()
    clips = places(tmp_path / "clips")
    exactly = ["--data.size", "16", "--data.oversample", "1"]
    given = ["--encoder", str(timed), "--top", "3", *exactly, *clips]
    found = ["--out", str(tmp_path / "found"), "--gallery", str(tmp_path / "gallery")]
    search.main(parse_config(search.SearchConfig, [str(video), *given, *found]))
    lines = capsys.readouterr().out.splitlines()[1:4]
    assert all("wash" in line and float(line.split()[1]) > 0.99 for line in lines)


def test_a_folder_of_pictures_lasts_as_long_as_its_rate_says(timed, tmp_path, capsys):
    from PIL import Image

    folder = tmp_path / "clips" / "val" / "a" / "wash" / "0.ego"
    folder.mkdir(parents=True)
    for number in range(48):
        Image.new("RGB", (16, 16), (number, 90, 90)).save(folder / f"{number:06d}.jpg")
    root = ["--data.type", "videos", "--data.source.type", "folder", "--data.source.root",
            str(tmp_path / "clips"), "--data.size", "16", "--data.oversample", "1",
            "--gallery", str(tmp_path / "gallery")]  # fmt: skip
    for fps in ("12", "24"):  # the gallery is made again
        rate = ["--data.source.pictures_fps", fps, "--out", str(tmp_path / fps)]
        given = [str(folder), "--encoder", str(timed), *root, *rate]
        search.main(parse_config(search.SearchConfig, given))
        assert "+1.000" in capsys.readouterr().out
        # a file's verb is not known
        assert "A green frame" not in (tmp_path / fps / "search.html").read_text()


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
    assert "A green frame has the query's verb" in page
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
