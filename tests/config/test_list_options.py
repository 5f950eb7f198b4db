"""Options that hold several values: every way of typing them gives the same tuple."""

import importlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import draccus
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from invact_vla.app.cli import COMMANDS
from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.recipes.init import InitConfig
from invact_vla.recipes.pretrain import PretrainConfig
from invact_vla.training.loop import LoopConfig
from latent_actions.labelers.label import LabelConfig
from latent_actions.labelers.lapo import LapoConfig
from latent_actions.labelers.quantizers import ProductQuantizerConfig
from latent_actions.labelers.true_actions import VptConfig
from latent_actions.labelers.univla.labeler import UnivlaLabelerConfig, small_model


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A part with options of its own."""

    sizes: tuple[float, ...] = ()  # numbers


@dataclass(frozen=True)
class Choice(draccus.ChoiceRegistry):
    """One of several."""


@Choice.register_subclass("list_option_test")
@dataclass(frozen=True)
class Chosen(Choice):
    """The one."""

    names: tuple[str, ...] = ()  # words


@dataclass(frozen=True, kw_only=True)
class Options:
    """Every kind of list."""

    tasks: tuple[int, ...] = ()  # numbers
    rows: list[int] = field(default_factory=list)  # a list
    names: tuple[str, ...] = ()  # words
    texts: tuple[Path, ...] = ()  # files
    kinds: tuple[Literal["a", "b"], ...] = ()  # choices
    pair: tuple[int, int] = (0, 0)  # exactly two
    maybe: tuple[int, ...] | None = None  # may be missing
    inner: Inner = field(default_factory=Inner)  # a part
    choice: Choice = field(default_factory=Chosen)  # a member
    groups: dict[str, tuple[Path, ...]] = field(default_factory=dict)  # lists by name
    seed: int = 0  # no list


def read(*words: str) -> Options:
    return parse_config(Options, words)


NUMBERS = st.lists(st.integers(-999, 999), min_size=1, max_size=5)
WORDS = st.lists(
    st.text("abcxyz_./0129", min_size=1, max_size=8).filter(lambda word: word[0] != "-"),
    min_size=1, max_size=5,
)  # fmt: skip


def ways(flag: str, items: list[str]) -> list[list[str]]:
    """How the items may be typed."""
    return [
        [flag, *items], [flag, ",".join(items)], [f"{flag}={','.join(items)}"],
        [flag, *", ".join(items).split(" ")], [flag, json.dumps(items)],
        [flag, *json.dumps(items).split(" ")], [word for item in items for word in (flag, item)],
    ]  # fmt: skip


@given(NUMBERS)
@settings(max_examples=15, deadline=None)
def test_every_way_to_type_numbers_gives_them(numbers: list[int]) -> None:
    for words in ways("--tasks", [str(number) for number in numbers]):
        assert read(*words, "--seed", "7") == Options(tasks=tuple(numbers), seed=7), words
    for words in ways("--rows", [str(number) for number in numbers]):
        assert read("--seed", "7", *words).rows == numbers
    assert read("--maybe", *map(str, numbers)).maybe == tuple(numbers)
    assert read("--inner.sizes", *map(str, numbers)).inner.sizes == tuple(numbers)


@given(WORDS)
@settings(max_examples=15, deadline=None)
def test_every_way_to_type_words_gives_them(items: list[str]) -> None:
    for words in ways("--names", items):
        assert read(*words).names == tuple(items), words
    for words in ways("--texts", items):
        assert read(*words).texts == tuple(map(Path, items)), words
    chosen = ["--choice.type", "list_option_test", "--choice.names", *items]
    assert read(*chosen).choice == Chosen(tuple(items))


@given(st.one_of(st.integers(-99, 99), st.text("abc/.", min_size=1, max_size=6)))
@settings(max_examples=20, deadline=None)
def test_one_value_of_a_file_is_a_list_of_it(value: int | str) -> None:
    read()  # teaches draccus
    assert draccus.decode(Options, {"names": value}).names == (str(value),)
    assert draccus.decode(Options, {"groups": {"x": str(value)}}).groups == {
        "x": (Path(str(value)),)
    }
    if isinstance(value, int):
        assert draccus.decode(Options, {"tasks": value, "rows": value}).rows == [value]
        assert draccus.decode(Options, {"tasks": f"{value},{value}"}).tasks == (value, value)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a, b.txt").touch()
    assert read("--texts", "a, b.txt").texts == (Path("a, b.txt"),), "a file of that name exists"
    assert read("--texts", "c,d.txt").texts == (Path("c"), Path("d.txt"))
    assert parse_config(InitConfig, ["--texts", "/some/words.txt"]).texts == (
        Path("/some/words.txt"),
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "x"], "Couldn't parse 'x' into an int"),
        (["--tasks", "1.5"], "Couldn't parse '1.5' into an int"),
        (["--tasks", "true"], "Couldn't parse 'true' into an int"),
        (["--tasks"], "expected one argument"),
        (["--tasks", ""], "expected one argument"),
        (["--texts="], "expected one argument"),
        (["--tasks", ","], "expected one argument"),
        (["--tasks", " , "], "expected one argument"),
        (["--texts=,"], "expected one argument"),
        (["--choice.type", "nothing"], "no type 'nothing': expected one of list_option_test"),
        (["--choice", "list_option_test", "--choice.size", "4"], "give the --NAME.type that"),
        (["--pair", "3"], "Expected 2 items, got 1"),
        (["--groups", "a"], "expected dict[str, tuple[Path, ...]], as '{NAME: VALUE}', got 'a'"),
        (["--kinds", "a", "c"], "c"),
        (["--seed", "1", "2"], "unrecognized arguments: 2"),
    ],
)
def test_what_cannot_be_read_is_named(words: list[str], said: str) -> None:
    with pytest.raises(UserError) as error:
        read(*words)
    assert said in str(error.value)


def test_words_behind_other_options_are_told_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("{}")
    search = importlib.import_module("latent_actions.retrieval.search").SearchConfig
    with pytest.raises(
        UserError, match="unrecognized arguments: cut: words for --query come before"
    ):
        parse_config(search, ["--config_path", str(path), "cut", "tomato"])


def test_nothing_and_truth_are_no_lists(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    for text in ("tasks: null", "tasks: true", "tasks: [1, false]", "tasks: ','", 'tasks: ""'):
        path.write_text(text)
        with pytest.raises(UserError, match="`tasks`: expected"):
            read("--config_path", str(path))
    path.write_text("tasks: 3\nnames: word\npair: 1, 2")
    assert read("--config_path", str(path)) == Options(tasks=(3,), names=("word",), pair=(1, 2))


@dataclass(frozen=True, kw_only=True)
class Plain:
    """Options of one value."""

    name: str = "a"  # a word
    file: Path | None = None  # a file
    size: float = 1.0  # a number
    counts: dict[int, int] = field(default_factory=dict)  # numbers by number
    parts: dict[str, Inner] = field(default_factory=dict)  # parts by name


@pytest.mark.parametrize("word", ["007", "1.10", "#1", "a: b", "true", "[x]", "20261130", "null"])
def test_names_and_paths_stay_as_they_are_typed(word: str) -> None:
    assert parse_config(Plain, ["--name", word]).name == word
    assert parse_config(Plain, [f"--file={word}"]).file == (None if word == "null" else Path(word))
    assert parse_config(Plain, ["--name", f"'{word}'"]).name == word, "quotes as in YAML"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name:", "`name`: expected a value, got null"),
        ("size: ~", "`size`: expected a value, got null"),
        ("size: yes", "`size`: expected a number, got true"),
        ("counts: {1: null}", "`counts.1`: expected a value, got null"),
        ("counts: {1: 1.5}", "`counts.1`: Couldn't parse '1.5' into an int"),
        ("parts: {x: {sizes: null}}", "`parts.x.sizes`: expected a value, got null"),
        ("size: 1\nname: b\nsize: 2", "'size' is given twice, line 3"),
        ("parts: {x: {sizes: 1}, x: {sizes: 2}}", "'x' is given twice, line 1"),
    ],
)
def test_what_a_file_cannot_mean_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        parse_config(Plain, ["--config_path", str(path)])
    assert said in str(error.value)
    path.write_text("file: null\nparts: {x: &x {sizes: 1}, y: {<<: *x, sizes: 2}}")
    found = parse_config(Plain, ["--config_path", str(path)])
    assert found.file is None and found.parts["y"].sizes == (2.0,), "merged is not twice"


@pytest.mark.parametrize(
    "command", ["libero rollout", "libero demos", "libero demonstrate", "libero check"]
)
def test_tasks_of_every_command(command: str) -> None:
    module, name, _ = COMMANDS[command]
    kind = getattr(importlib.import_module(module), str(name))
    given = [] if command == "libero check" else ["--out", "runs/x"]
    given += ["--policy.type", "noop"] if command == "libero rollout" else []
    for words in ways("--tasks", ["0", "3"]):
        assert tuple(parse_config(kind, [*given, *words]).tasks) == (0, 3)


@dataclass(frozen=True)
class Other(Choice):
    """Another member."""

    size: int = 1  # its own


Choice.register_subclass("other_option_test")(Other)


def test_what_the_command_line_gives_replaces_what_the_file_gives(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "groups: {x: [a]}\ninner: {sizes: [1]}\nseed: 5\n"
        "choice: {type: list_option_test, names: [b]}\n"
    )
    given = ["--config_path", str(path)]
    assert read(*given).groups == {"x": (Path("a"),)}
    assert read(*given, "--groups", "{}").groups == {}
    assert read(*given, "--groups={y: [c]}").groups == {"y": (Path("c"),)}
    assert read(*given, "--inner", "{}").inner == Inner()
    assert read(*given, "--inner", "{sizes: [2, 3]}").inner == Inner(sizes=(2, 3))
    assert read(*given, "--choice.names", "c").choice == Chosen(("c",))
    assert read(*given, "--choice.size", "4", "--choice.type", "other_option_test").choice == Other(
        4
    )
    with pytest.raises(UserError, match="size"):
        read(*given, "--choice.size", "4")
    with pytest.raises(UserError, match="nothing"):
        read(*given, "--inner", "{nothing: 1}")


def test_a_part_is_set_option_by_option(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("loop: {steps: 7, log_every: 5}\n")
    loop = parse_config(
        PretrainConfig, ["--config_path", str(path), "--loop", "{log_every: 4}"]
    ).loop
    assert (loop.steps, loop.log_every) == (7, 4)
    assert parse_config(PretrainConfig, ["--config_path", str(path), "--overwrite"]).overwrite


def test_a_value_out_of_range_is_told_in_its_own_words() -> None:
    with pytest.raises(UserError) as found:
        parse_config(LoopConfig, ["--steps", "0", "--batch_size", "8"])
    assert str(found.value).startswith("steps"), "no sentence of the parser before the cause"


@pytest.mark.parametrize("given", ["--labeler.training.loop.steps", "--labeler.model.size"])
def test_one_option_of_a_members_part_leaves_the_others_as_help_tells_them(given: str) -> None:
    words = ["--labeler.type", "lapo", given, "16"]
    usual, found = LapoConfig(), parse_config(LabelConfig, words).labeler
    assert isinstance(found, LapoConfig)
    loop = replace(usual.training.loop, steps=found.training.loop.steps)
    assert found.training.loop == loop and loop.warmup_steps == 50
    assert found.model == replace(usual.model, size=found.model.size)


def test_the_usual_member_of_a_registry_keeps_what_the_command_gives_it() -> None:
    words = ["--labeler.type", "vpt", "--labeler.quantizer.codes", "16"]
    for more in ([], ["--labeler.quantizer.type", "pq"]):
        found = parse_config(LabelConfig, [*words, *more]).labeler
        assert isinstance(found, VptConfig) and isinstance(found.quantizer, ProductQuantizerConfig)
        assert (found.quantizer.dims, found.quantizer.codes) == (7, 16)
    other = parse_config(LabelConfig, [*words, "--labeler.quantizer.type", "kmeans"]).labeler
    assert isinstance(other, VptConfig) and not hasattr(other.quantizer, "dims")


def test_univla_stays_small_where_its_width_is_given() -> None:
    words = ["--labeler.type", "univla", "--labeler.model.model_dim", "64"]
    found = parse_config(LabelConfig, words).labeler
    assert isinstance(found, UnivlaLabelerConfig)
    assert found.model == replace(small_model(), model_dim=64)
