"""The texts that a fresh tokenizer is trained on."""

import json
from pathlib import Path

import pytest

from invact_vla.core.errors import UserError
from invact_vla.recipes.init import InitConfig, main, read_texts


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeffopen the drawer\n\n close it \n")
    assert read_texts(path) == ["open the drawer", "close it"]
    path = tmp_path / "labels.json"
    path.write_text(json.dumps([{"label": "open it", "id": 3}]))
    assert read_texts(path) == ["open it"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("folder", None, "no file"), ("nowhere.txt", None, "no file"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"), ("a.txt", b" \n", "no words in"),
        ("a.txt", b"version https://git-lfs.github.com/spec/v1", "git-lfs"),
        ("a.json", b"3", "a list of records"), ("a.json", b"[1]", "a list of records"),
        ("a.json", b'[{"label": 3}]', "a list of records"), ("a.json", b"[]", "no words in"),
    ],
)  # fmt: skip
def test_texts_that_are_none(
    name: str, content: bytes | None, message: str, tmp_path: Path
) -> None:
    """Said before anything is hashed or made."""
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        main(InitConfig(out=tmp_path / "run", texts=(tmp_path / name,)))
    assert not (tmp_path / "run").exists()
