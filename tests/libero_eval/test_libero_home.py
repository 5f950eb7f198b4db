"""hf-libero must neither ask a question nor reach for the network, whichever pack is used."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from invact_vla.core.errors import UserError
from libero_eval.env import gl, libero_home
from libero_eval.env.tasks import bddl_file, init_file

if importlib.util.find_spec("robosuite") is None:  # not imported here: GL must be chosen first
    pytest.skip("needs the libero extra", allow_module_level=True)

GUARDED = """
import builtins, socket, sys
from pathlib import Path

def refuse(*args, **kwargs):
    raise AssertionError("asked a question or used the network")

builtins.input = refuse
socket.socket.connect = refuse
socket.getaddrinfo = refuse

from libero_eval.env import libero_home

assets = Path(sys.argv[1])
libero_home.prepare(assets)
from libero.libero import get_assets_path, get_libero_path
from libero.libero.envs.objects import get_object_fn
import robosuite.models

assert get_assets_path() == str(assets), get_assets_path()
assert get_libero_path("assets") == str(assets)
assert Path(get_libero_path("bddl_files"), "libero_10").is_dir()
print("robot from", robosuite.models.assets_root)
print("soup is", get_object_fn("alphabet_soup")().file)
"""


def start(assets: Path, home: Path) -> subprocess.Popen:
    """A process that uses a pack, with an empty home and cache, and nothing on standard input."""
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    environment.pop(libero_home.CONFIG_VARIABLE, None)
    return subprocess.Popen(
        [sys.executable, "-c", GUARDED, str(assets)],
        env=environment,
        cwd=Path(__file__).parents[2],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tiny_pack(folder: Path) -> Path:
    """The least that counts as a pack and lets one object load."""
    from libero_eval.env.assets.procedural.generate import write_scenes

    write_scenes(folder, seed=0)
    return folder


def test_two_packs_at_the_same_time_without_question_or_network(tmp_path: Path) -> None:
    packs = [tiny_pack(tmp_path / name) for name in ("one", "two")]
    (packs[1] / "robosuite").mkdir()
    children = [start(pack, tmp_path / "home") for pack in packs]
    for pack, child in zip(packs, children, strict=True):
        out, err = child.communicate(timeout=120)
        assert child.returncode == 0, err
        assert f"soup is {pack}" in out
        assert (f"robot from {pack}" in out) == (pack == packs[1])
        assert "macro" not in err, "robosuite's import warnings are silenced"
    assert not (tmp_path / "home" / ".libero").exists()


def test_later_pack_in_the_same_process_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(libero_home.CONFIG_VARIABLE, "")
    gl.probe()
    one, two = tiny_pack(tmp_path / "one"), tiny_pack(tmp_path / "two")
    libero_home.prepare(one)
    from libero.libero import get_assets_path

    assert get_assets_path() == str(one)
    libero_home.prepare(two)
    assert get_assets_path() == str(two)


def test_not_an_assets_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no assets folder"):
        libero_home.prepare(tmp_path / "missing")
    with pytest.raises(UserError, match="has no scenes"):
        libero_home.prepare(tmp_path)


def test_files_of_the_wheel() -> None:
    task = "KITCHEN_SCENE8_put_both_moka_pots_on_the_stove"
    assert bddl_file("libero_10", task).is_file()
    init_states = init_file("libero_10", task)
    assert init_states is not None and init_states.is_file()
    with pytest.raises(UserError, match=task):
        bddl_file("libero_10", "no_such_task")


def test_read_only_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from invact_vla.core.cache_folder import cache_folder

    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = cache_folder("libero_home")
    assert folder.is_dir() and tmp_path in folder.parents
