"""A report embeds what lies in the run folders, and nothing that their links lead to."""

from pathlib import Path

import pytest

from invact_vla.errors import UserError
from invact_vla.report.reading import pictures_of, read_metrics, read_optional_json


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
