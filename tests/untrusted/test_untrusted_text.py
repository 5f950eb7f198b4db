"""JSON and YAML of strangers, and the configs that are read from them."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from invact_vla.app.experiment import ExperimentConfig
from invact_vla.config.command import parse_config
from invact_vla.config.yaml_text import read_yaml
from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json


@dataclass
class Inner:
    words: str = ""


@dataclass
class Options:
    text: str = ""
    number: int = 0
    inner: Inner = field(default_factory=Inner)


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
YAMLS = [
    "[" * 100_000,
    "{a: " * 50_000,
    "- " * 100_000,
    BOMB,
    "a: &a [*a]",
    "number: " + "9" * 5000,
    "number: " + "1:" * 20_000 + "1",
    "number: 1" + ":1" * 100_000 + ".0",
    "a: 2001-99-99",
    "text: !!python/object/apply:os.system ['true']",
    "text: !!python/name:os.system",
    "text: !include x",
    "<<: !include x",
    "a: b: c",
    "\t- a",
    "%YAML 9.9\n---\na",
    "? {a: b}\n: c",
    "text: \x00",
    "!!binary x",
    "a: !!int x",
    "a: !!float x",
    "<<: 3",
    "a: *b",
    "--- a\n--- b",
    "'",
    "a: !!timestamp x",
    "x" * (1 << 21),
    "!!set {a, b}: c",
    "[a]: b",
]


@pytest.mark.parametrize("text", YAMLS, ids=range(len(YAMLS)))
def test_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    (tmp_path / "x").write_text("text: stolen")
    started = time.process_time()
    with pytest.raises(UserError) as error:
        parse_config(Options, ["--config_path", str(path)])
    assert time.process_time() - started < 5
    assert "\n" not in str(error.value) and len(str(error.value)) < 1500
    assert "stolen" not in str(error.value)


def test_no_value_includes_a_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("words: stolen")
    for word in (f"include {tmp_path / 'x'}", "includes more", "include"):
        assert parse_config(Options, ["--text", word]).text == word
    with pytest.raises(UserError):
        parse_config(Options, ["--inner", f"include {tmp_path / 'x'}"])
    with pytest.raises(UserError):
        parse_config(Options, ["--inner", f"!include {tmp_path / 'x'}"])


def test_a_config_and_flags_are_merged(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("text: a\ninner: {words: b}\nnumber: 1\n")
    found = parse_config(Options, ["--config_path", str(path), "--inner.words", "c", "--text", ""])
    assert found == Options(text="", number=1, inner=Inner("c"))
    path.write_text("")
    assert parse_config(Options, ["--config_path", str(path)]) == Options()
    for text in ("[1]", "3"):
        path.write_text(text)
        with pytest.raises(UserError, match="expected names and values"):
            parse_config(Options, ["--config_path", str(path)])
    with pytest.raises(UserError, match="no config file"):
        parse_config(Options, ["--config_path", str(tmp_path / "absent")])


@pytest.mark.parametrize(
    "text", ["[" * 10**6, '{"a":' * 10**5, "9" * 5000, "-" + "9" * 5000, "", "{", "\ud800"]
)
def test_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"a\.json") as error:
        read_json(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600
    with pytest.raises(UserError, match="no file"):
        read_json(tmp_path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    for read in (read_json, read_yaml):
        with pytest.raises(UserError, match="git-lfs"):
            read(path)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "..", ".", "", "a b", "x" * 500, "\n", "-x"])
def test_names_of_stages(tmp_path: Path, name: str) -> None:
    config = tmp_path / "ladder.yaml"
    config.write_text(f"stages: {{{name!r}: {{command: demo}}}}\nout: {tmp_path / 'out'}\n")
    with pytest.raises(UserError):
        parse_config(ExperimentConfig, ["--config_path", str(config)])


@pytest.mark.parametrize("product", ["../x", "/etc/passwd"])
def test_the_product_of_a_ladder_lies_in_it(tmp_path: Path, product: str) -> None:
    config = tmp_path / "ladder.yaml"
    config.write_text(f"stages: {{a: {{command: demo}}}}\nproduct: {product}\nout: {tmp_path}\n")
    with pytest.raises(UserError):
        parse_config(ExperimentConfig, ["--config_path", str(config)])
