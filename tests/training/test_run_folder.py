"""Run folders: skip, continue, refuse; atomic files."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from invact_vla.errors import UserError
from invact_vla.training.files import atomic_file, atomic_folder, hash_tree, read_json
from invact_vla.training.run_folder import open_run, product_key


@dataclass(frozen=True, kw_only=True)
class Config:
    out: Path
    size: int = 1
    workers: int = 1
    source: Path = Path("none")


def test_a_finished_run_is_skipped_and_its_key_ignores_workers(tmp_path):
    run = open_run(tmp_path / "a", Config(out=tmp_path / "a"), seed=3)
    assert not run.finished
    run.finish({"score": 1})
    again = open_run(tmp_path / "a", Config(out=tmp_path / "a", workers=2))
    assert again.finished and read_json(tmp_path / "a/summary.json") == {"score": 1}


def test_another_config_is_refused_unless_overwritten(tmp_path):
    open_run(tmp_path / "a", Config(out=tmp_path / "a")).finish({})
    other = Config(out=tmp_path / "a", size=2)
    with pytest.raises(UserError, match="another config"):
        open_run(tmp_path / "a", other)
    assert not open_run(tmp_path / "a", other, overwrite=True).finished


def test_a_run_that_made_nothing_does_not_stand_in_the_way(tmp_path):
    open_run(tmp_path / "a", Config(out=tmp_path / "a", size=9))
    assert not open_run(tmp_path / "a", Config(out=tmp_path / "a")).finished


def test_the_key_follows_the_content_of_parents_not_their_place(tmp_path):
    keys = []
    for place in ("x", "y"):
        parent = tmp_path / place / "data"
        parent.mkdir(parents=True)
        (parent / "file").write_text("same")
        config = Config(out=tmp_path / place / "o", source=parent / "file")
        keys.append(open_run(config.out, config, {"data": parent}).key)
    assert keys[0] == keys[1]
    (tmp_path / "x/data/file").write_text("other")
    assert product_key(tmp_path / "x/data") != product_key(tmp_path / "y/data")


def test_missing_and_unfinished_parents_are_named(tmp_path):
    with pytest.raises(UserError, match="missing input"):
        open_run(tmp_path / "o", Config(out=tmp_path), {"data": tmp_path / "nothing"})
    open_run(tmp_path / "half", Config(out=tmp_path))
    with pytest.raises(UserError, match="unfinished"):
        product_key(tmp_path / "half")


def test_a_foreign_folder_is_not_touched(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/thesis.txt").write_text("years")
    with pytest.raises(UserError, match="not a run folder"):
        open_run(tmp_path / "a", Config(out=tmp_path / "a"), overwrite=True)
    assert (tmp_path / "a/thesis.txt").read_text() == "years"


def test_left_overs_of_a_killed_run_are_removed(tmp_path):
    folder = tmp_path / "a"
    open_run(folder, Config(out=folder))
    (folder / ".tmp12-x.npy").write_text("torn")
    (folder / ".tmp12-checkpoint").mkdir()
    script = "from invact_vla.training.run_folder import _continued; import sys, pathlib\n"
    script += "_continued(pathlib.Path(sys.argv[1]), 'k')"
    held = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True)
    assert b"another process is working" in held.stderr
    assert (folder / ".tmp12-x.npy").exists()
    assert not open_run(folder, Config(out=folder)).finished
    assert not list(folder.glob(".tmp*"))


def test_atomic_writers_leave_the_old_file_on_failure(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    with atomic_folder(tmp_path / "d") as temporary:
        (temporary / "x").write_text("1")
    before = hash_tree(tmp_path / "d")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "d") as temporary:
        raise RuntimeError
    assert hash_tree(tmp_path / "d") == before


def test_a_full_disk_is_said_so(tmp_path):
    with pytest.raises(UserError, match="disk full"), atomic_file(tmp_path / "f"):
        raise OSError(28, "No space left on device")
