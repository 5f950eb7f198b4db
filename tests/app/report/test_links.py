"""A report embeds what lies in the run folders, and nothing that their links lead to."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from invact_vla.app.report.inputs import pictures_of, read_metrics, read_optional_json
from invact_vla.core.errors import UserError
from invact_vla.html import media
from libero_eval.results.rows import EpisodeRow, read_episodes
from libero_eval.rollout.command import find_video
from tests.data.rlds_files import huge, png
from tests.libero_eval.point_sim import LABELS


def test_links_out_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "secret.json").write_text("{}")
    run = tmp_path / "run"
    run.mkdir()
    (run / "a.png").symlink_to(tmp_path / "secret.png")
    (run / "metrics.jsonl").symlink_to(tmp_path / "secret.json")
    (run / "summary.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(UserError, match="outside of it"):
        pictures_of(run)
    with pytest.raises(UserError, match="outside of it"):
        read_metrics(run)
    with pytest.raises(UserError, match="outside of it"):
        read_optional_json(run / "summary.json")


def test_links_inside_a_run(tmp_path: Path) -> None:
    (tmp_path / "b.png").write_bytes(b"x")
    (tmp_path / "a.png").symlink_to("b.png")
    assert [path.name for path in pictures_of(tmp_path)] == ["a.png", "b.png"]


def row(folder: Path, **changes: object) -> EpisodeRow:
    """The row of a filmed episode, as its file says it."""
    labels = asdict(LABELS.row(0, "task", 0, outcome="success", reason="goal reached"))
    line = json.dumps({**labels, "video": "videos/task00_init000.mp4", **changes})
    (folder / "episodes.jsonl").write_text(line + "\n")
    [found] = read_episodes(folder)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "videos").mkdir(parents=True)
    (tmp_path / "secret.mp4").write_bytes(b"SECRET")
    return folder


@pytest.mark.parametrize("how", ["file", "folder", "chain", "folder above"])
def test_videos_that_are_links_out_of_a_run(run: Path, tmp_path: Path, how: str) -> None:
    name = "task00_init000.mp4"
    if how == "file":
        (run / "videos" / name).symlink_to(tmp_path / "secret.mp4")
    elif how == "chain":
        (run / "videos" / name).symlink_to("other.mp4")
        (run / "videos/other.mp4").symlink_to("../../secret.mp4")
    else:
        (run / "videos").rmdir()
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / name).write_bytes(b"SECRET")
        (run / "videos").symlink_to("../elsewhere" if how == "folder" else tmp_path / "elsewhere")
    with pytest.raises(UserError, match="outside of it"):
        find_video(run, row(run))


@pytest.mark.parametrize("video", ["../secret.mp4", "/etc/passwd", "videos/../../secret.mp4"])
def test_the_name_in_a_row_is_not_followed(run: Path, video: str) -> None:
    """The place of a video follows from the numbers of its episode."""
    assert find_video(run, row(run, video=video)) is None
    (run / "videos/task00_init000.mp4").write_bytes(b"own")
    found = find_video(run, row(run, video=video))
    assert found is not None and found.read_bytes() == b"own"


@pytest.mark.parametrize("name", ["task_id", "init_index"])
@pytest.mark.parametrize("odd", ["../../secret", "/etc/passwd", -1, 1.5, None, [1], True, 10**30])
def test_numbers_of_episodes_that_are_none(run: Path, name: str, odd: object) -> None:
    try:
        assert find_video(run, row(run, **{name: odd})) is None
    except UserError as error:
        assert str(error).isprintable() and len(str(error)) < 1500


def test_pictures_of_a_run_are_looked_at_before_they_are_decoded(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "a.png"
    for content in (huge(12_000, 12_000), b"x", huge(4, 4)[:40], b"%!PS-Adobe-3.0 EPSF-3.0\n"):
        path.write_bytes(content)
        with pytest.raises(UserError) as raised:
            media.picture(path, "a")
        assert str(raised.value).isprintable() and len(str(raised.value)) < 1500
    path.write_bytes(png())
    assert str(media.picture(path, "a")).startswith("<img")
    assert not recwarn.list
