"""What a page embeds has a bound."""

from pathlib import Path

from invact_vla.html import media


def test_a_video_beyond_the_bound_is_named_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    with path.open("wb") as file:
        file.truncate(media.MAX_VIDEO + 1)  # takes no room on the disk
    shown = str(media.video(path, "<task> 3"))
    assert "32 MiB" in shown and "&lt;task&gt; 3" in shown and len(shown) < 200
    path.write_bytes(b"0" * 100)
    assert "data:video/mp4" in str(media.video(path, "task 3"))
