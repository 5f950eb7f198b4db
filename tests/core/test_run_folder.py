"""Run folders: skip, continue, refuse; atomic files."""

import errno
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, atomic_folder, hash_tree, read_json
from invact_vla.core.run_folder import artifact_hash, open_run, save_result


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


def test_a_run_that_failed_before_its_first_file_does_not_stand_in_the_way(tmp_path):
    run = open_run(tmp_path / "a", Config(out=tmp_path / "a", size=9))
    (run.folder / "videos").mkdir()
    del run
    other = Config(out=tmp_path / "a")
    run = open_run(tmp_path / "a", other)
    assert not run.finished and not (run.folder / "videos").exists()
    (run.folder / "metrics.jsonl").write_text("{}\n")
    del run
    with pytest.raises(UserError, match=r"give another --out$"):
        open_run(tmp_path / "a", Config(out=tmp_path / "a", size=9))


def test_a_measurement_is_replaced_by_its_repetition_alone(tmp_path):
    config = Config(out=tmp_path / "a")
    path = save_result(tmp_path / "a", config, "bench.json", {"s": 1})
    assert save_result(tmp_path / "a", config, "bench.json", {"s": 2}) == path
    assert read_json(path) == {"s": 2}
    with pytest.raises(UserError, match="another config"):
        save_result(tmp_path / "a", Config(out=tmp_path / "a", size=2), "bench.json", {"s": 3})


def test_the_key_follows_the_content_of_inputs_not_their_place(tmp_path):
    keys = []
    for place in ("x", "y"):
        parent = tmp_path / place / "data"
        parent.mkdir(parents=True)
        (parent / "file").write_text("same")
        config = Config(out=tmp_path / place / "o", source=parent / "file")
        keys.append(open_run(config.out, config, {"data": parent}).key)
    assert keys[0] == keys[1]
    (tmp_path / "x/data/file").write_text("other")
    assert artifact_hash(tmp_path / "x/data") != artifact_hash(tmp_path / "y/data")


def test_missing_and_unfinished_inputs_are_named(tmp_path):
    with pytest.raises(UserError, match="missing input"):
        open_run(tmp_path / "o", Config(out=tmp_path), {"data": tmp_path / "nothing"})
    open_run(tmp_path / "half", Config(out=tmp_path))
    with pytest.raises(UserError, match="unfinished"):
        artifact_hash(tmp_path / "half")


def test_a_foreign_folder_is_not_touched(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/thesis.txt").write_text("years")
    with pytest.raises(UserError, match="not a run folder"):
        open_run(tmp_path / "a", Config(out=tmp_path / "a"), overwrite=True)
    assert (tmp_path / "a/thesis.txt").read_text() == "years"


HOLDER = """
import pathlib, sys
from invact_vla.core.run_folder import lock_folder
lock_folder(pathlib.Path(sys.argv[1]), patience_s=0.1)
"""


def locked_out(folder: Path) -> bool:
    """Whether another process may not work in a folder."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 or "another process is working" in done.stderr, done.stderr
    return done.returncode != 0


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UserError, match=r"cannot make .*new \(Read-only file system\)"):
        open_run(tmp_path / "new", Config(out=tmp_path / "new"))


def test_left_overs_of_a_killed_run_are_removed(tmp_path):
    folder, keep = tmp_path / "a", tmp_path / "keep"
    run = open_run(folder, Config(out=folder))
    keep.mkdir()
    (keep / "x").write_text("kept")
    (folder / ".tmp12-x.npy").write_text("torn")
    (folder / ".tmp12-checkpoint").mkdir()
    (folder / ".tmp12-checkpoint/.tmp12-step.json").mkdir()
    (folder / ".tmp12-link").symlink_to(keep)
    assert locked_out(folder) and (folder / ".tmp12-x.npy").exists()
    del run
    assert not locked_out(folder)
    assert not open_run(folder, Config(out=folder)).finished
    assert not list(folder.glob(".tmp*")) and (keep / "x").read_text() == "kept"


@pytest.mark.parametrize("name", [".old-checkpoint", ".old12-checkpoint"])
def test_a_resume_point_that_lay_aside_comes_back(tmp_path, name):
    folder = tmp_path / "a"
    open_run(folder, Config(out=folder))
    (folder / name).mkdir()
    (folder / name / "step").write_text("old")
    open_run(folder, Config(out=folder))
    assert (folder / "checkpoint/step").read_text() == "old"
    (folder / name).mkdir()
    open_run(folder, Config(out=folder))
    assert (folder / "checkpoint/step").exists() and not (folder / name).exists()


def test_a_lock_ends_with_its_run_and_leaves_no_descriptor(tmp_path):
    before = set(os.listdir("/proc/self/fd"))
    for i in range(20):
        run = open_run(tmp_path / f"{i}", Config(out=tmp_path))
        if i % 2:
            run.finish({})
        assert open_run(tmp_path / f"{i}", Config(out=tmp_path)).finished == bool(i % 2)
    assert pickle.loads(pickle.dumps(run)) == run and not locked_out(run.folder)
    del run
    assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_two_runs_of_a_process_share_a_lock(tmp_path):
    first = open_run(tmp_path / "a", Config(out=tmp_path))
    second = open_run(tmp_path / "a", Config(out=tmp_path))
    del first
    assert locked_out(tmp_path / "a")
    assert second.key


@pytest.mark.parametrize("torn", ["config", "config and lock", "lock", "temporary"])
def test_a_run_killed_in_its_first_moments_goes_on(tmp_path, torn):
    folder = tmp_path / "a"
    config = Config(out=folder)
    open_run(folder, config)
    (folder / "provenance.json").unlink()
    if torn == "temporary":
        (folder / ".tmp12-provenance.json").write_text("{")
    if torn == "config":
        (folder / ".lock").unlink()
    if torn == "lock":
        (folder / "config.yaml").unlink()
    run = open_run(folder, config)
    assert not run.finished and (folder / "config.yaml").exists()
    assert {p.name for p in folder.iterdir()} == {".lock", "config.yaml", "provenance.json"}
    run.finish({})


def test_a_config_of_the_user_is_not_replaced(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "config.yaml").write_text("# mine")
    with pytest.raises(UserError, match="not a run folder"):
        open_run(folder, Config(out=folder), overwrite=True)
    assert [p.name for p in folder.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("content", ["", "[]", '{"seed": 1}', '{"key": 3}', '{"key": "%s"}'])
def test_a_damaged_provenance_is_one_short_line(tmp_path, content):
    folder = tmp_path / "a"
    open_run(folder, Config(out=folder)).finish({})
    for name in ("provenance.json", "done.json"):
        kept = (folder / name).read_text()
        (folder / name).write_text(content.replace("%s", "x" * 100_000))
        with pytest.raises(UserError, match=name) as raised:
            open_run(folder, Config(out=folder)) if name[0] == "p" else artifact_hash(folder)
        assert len(str(raised.value)) < 500 and "\n" not in str(raised.value)
        (folder / name).write_text(kept)


@pytest.mark.parametrize("content", ["[" * 100_000, "1" * 5000, "\udcff", "{"])
def test_json_of_any_kind_is_read_or_refused(tmp_path, content):
    (tmp_path / "x.json").write_text(content, errors="surrogateescape")
    with pytest.raises(UserError, match=r"x\.json is not (valid JSON|UTF-8 text)") as raised:
        read_json(tmp_path / "x.json")
    assert len(str(raised.value)) < 500


def test_what_a_link_leads_to_is_not_written(tmp_path):
    folder, target = tmp_path / "a", tmp_path / "target"
    run = open_run(folder, Config(out=folder))
    for content in ("", "mine\n"):
        target.write_text(content)
        run.metrics_path.symlink_to(target)
        with pytest.raises(UserError, match="is a link"):
            run.metrics(step=1)
        run.metrics_path.unlink()
    for name in ("config.yaml", "model"):
        path = folder / name
        path.unlink(missing_ok=True)
        path.symlink_to(target if name == "config.yaml" else tmp_path)
        if name == "model":
            with atomic_folder(path) as temporary:
                (temporary / "x").write_text("1")
        else:
            with atomic_file(path) as temporary:
                temporary.write_text("1")
        assert not path.is_symlink() and target.read_text() == "mine\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "target"]
    del run
    (folder / ".lock").unlink()
    (folder / ".lock").symlink_to(target)
    with pytest.raises(UserError, match=r"cannot write .*\.lock"):
        open_run(folder, Config(out=folder))


def test_an_overwritten_run_folder_may_be_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "far")
    open_run(tmp_path / "a", Config(out=tmp_path)).finish({})
    other = Config(out=tmp_path, size=2)
    assert not open_run(tmp_path / "a", other, overwrite=True).finished
    assert (tmp_path / "a").is_symlink() and not (tmp_path / "far/done.json").exists()


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


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_a_full_disk_is_said_so(tmp_path, atomic):
    for error in (
        OSError(28, "No space left on device"),
        OSError(122, "Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ):
        with pytest.raises(UserError, match="disk full"), atomic(tmp_path / "f"):
            raise error
    with pytest.raises(PermissionError), atomic(tmp_path / "f"):
        raise PermissionError(13, "no")
    assert not list(tmp_path.iterdir())


def test_files_are_on_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def name_of(descriptor: int) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}").rpartition("-")[2]

    monkeypatch.setattr(
        os, "fsync", lambda fd: (events.append(("sync", name_of(fd))), fsync(fd))[1]
    )
    monkeypatch.setattr(
        os, "replace", lambda a, b: (events.append(("name", Path(b).name)), replace(a, b))[1]
    )
    with atomic_file(tmp_path / "rows") as temporary:
        temporary.write_text("1")
    assert events == [
        ("sync", "rows"),
        ("name", "rows"),
        ("sync", str(tmp_path).rpartition("-")[2]),
    ]
    events.clear()
    with atomic_folder(tmp_path / "checkpoint") as temporary:
        (temporary / "deep").mkdir()
        (temporary / "deep/weights").write_text("1")
    names = [name.rpartition("/")[2] for kind, name in events if kind == "sync"]
    assert {"weights", "deep", "checkpoint"} <= set(names)
    renamed = events.index(("name", "checkpoint"))
    assert all(kind == "sync" for kind, _ in events[:renamed]) and renamed >= 3
