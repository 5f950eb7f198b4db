"""The cache folder: the user's own, wherever it lies, or none."""

import os
from pathlib import Path

import pytest

from invact_vla.core.cache_folder import cache_folder
from invact_vla.core.errors import UserError

OTHER = 54321


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder that everybody may write into, and no home."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def own(shared: Path) -> Path:
    return shared / f"invact-vla-{os.getuid()}"


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it look as if another user had made a path, also to those who may not change owners."""
    lstat, stat, target = os.lstat, os.stat, os.path.abspath(path)

    def owned(found: os.stat_result) -> os.stat_result:
        return os.stat_result((*found[:4], OTHER, *found[5:]))

    def seen(call):
        def wrapped(path, *args, **kwargs):
            found = call(path, *args, **kwargs)
            return owned(found) if not isinstance(path, int) and str(path) == target else found

        return wrapped

    monkeypatch.setattr(os, "lstat", seen(lstat))
    monkeypatch.setattr(os, "stat", seen(stat))


def test_it_is_made_for_the_user_alone(shared: Path) -> None:
    folder = cache_folder("gl")
    assert folder == own(shared) / "gl" and folder.is_dir()
    assert own(shared).stat().st_mode & 0o077 == 0
    assert cache_folder("gl") == folder


def refused(shared: Path) -> None:
    with pytest.raises(UserError, match="set XDG_CACHE_HOME") as raised:
        cache_folder("gl")
    assert "\n" not in str(raised.value) and str(own(shared)) in str(raised.value)


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o720, 0o702, 0o1777])
def test_one_that_others_may_write_into_is_refused(shared: Path, mode: int) -> None:
    own(shared).mkdir()
    own(shared).chmod(mode)
    refused(shared)


def test_one_of_another_user_is_refused(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own(shared).mkdir(0o700)
    give_away(own(shared), monkeypatch)
    refused(shared)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_one_of_another_user_is_refused_for_root_too(shared: Path) -> None:
    own(shared).mkdir(0o700)
    os.chown(own(shared), OTHER, OTHER)
    refused(shared)


def test_a_link_of_another_user_is_refused(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir(0o700)
    own(shared).symlink_to(tmp_path / "mine")
    give_away(own(shared), monkeypatch)
    refused(shared)
    assert not list((tmp_path / "mine").iterdir())


def test_a_file_in_its_place_is_refused(shared: Path) -> None:
    own(shared).write_text("")
    refused(shared)


@pytest.mark.parametrize("place", ["cache", "cache/invact-vla"])
def test_a_named_folder_below_a_shared_one_is_judged_alike(
    shared: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
    assert cache_folder("gl") == shared / "cache/invact-vla/gl"
    if place == "cache":
        give_away(shared / "cache", monkeypatch)
    else:
        (shared / "cache/invact-vla").chmod(0o777)
    assert cache_folder("gl") == own(shared) / "gl", "the user's own one in its stead"


def test_a_home_that_its_group_may_write_is_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with umask 002. Below a temporary folder of everybody's the tests are themselves."""
    home = tmp_path / "home"
    (home / "invact-vla").mkdir(parents=True)
    (home / "invact-vla").chmod(0o775)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    stat = Path.stat

    def unshared(path: Path, **options: bool) -> os.stat_result:
        found = stat(path, **options)
        mode = found.st_mode if home in (path, *path.parents) else found.st_mode & ~0o002
        return os.stat_result((mode, *found[1:]))

    monkeypatch.setattr(Path, "stat", unshared)
    assert cache_folder("gl") == home / "invact-vla/gl"
    (home / "invact-vla").chmod(0o777)
    assert home not in cache_folder("gl").parents
