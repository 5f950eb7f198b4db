"""What `invact encoder levels` says of files that are not histograms."""

import json

import pytest

from invact_vla.core.errors import UserError
from latent_actions.retrieval.metric import LevelsConfig, main


@pytest.mark.parametrize(
    "content,message",
    [
        ("not json", "is not valid JSON"),
        ("[1]", "holds a list"),
        ('{"note": "only text"}', "holds no grouping"),
        ('{"by_scene": {"a": 3}}', "must map labels to counts"),
        ('{"by_scene": {"a": {"pick": -1}}}', "must be a count"),
        ('{"by_scene": {"a": {"pick": true}}}', "must be a count"),
        ('{"by_scene": {"a": {}}}', "counts no clip"),
    ],
)
def test_bad_files(tmp_path, content, message):
    path = tmp_path / "histogram.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        main(LevelsConfig(histogram=path))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="found none"):
        main(LevelsConfig(histogram=tmp_path / "absent.json"))


def test_each_grouping_is_printed(tmp_path, capsys):
    path = tmp_path / "histogram.json"
    path.write_text(
        json.dumps({"note": "x", "by_a": {"s": {"v": 2}, "t": {"v": 1}}, "by_b": {"s": {"v": 3}}})
    )
    assert main(LevelsConfig(histogram=path)) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["by_a", "by_b"]
