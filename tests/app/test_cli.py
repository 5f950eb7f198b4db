"""The command line: help, one clear line for a mistake, exit codes."""

import importlib
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from invact_vla.app.cli import COMMANDS, GROUPS, main
from invact_vla.config.command import parse_config, run
from invact_vla.config.help import comment_of
from invact_vla.config.options import options
from invact_vla.core.errors import UserError


def invact(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "invact_vla.app.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_help_lists_every_command():
    result = invact("--help")
    lines = result.stdout.splitlines()
    assert result.returncode == 0
    for name, (_, _, purpose) in COMMANDS.items():
        assert any(line.split() == f"invact {name} {purpose}".split() for line in lines)


@pytest.mark.parametrize("group", [group for group in GROUPS if group])
def test_help_of_a_group_lists_its_commands(group, capsys):
    for words in ([group, "--help"], ["--help", group], *([[group]] if group != "bench" else [])):
        with pytest.raises(SystemExit) as stop:
            main(words)
        listed = [
            line.split()[1:3] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "
        ]
        assert not stop.value.code
        assert {tuple(name.split()[:2]) for name in COMMANDS if name.split()[0] == group} == {
            (first, second) if f"{first} {second}" in COMMANDS else (first,)
            for first, second in listed
        }


def test_words_after_a_command_are_what_it_names(capsys):
    """`invact bench` is a command and the name of a group."""
    with pytest.raises(SystemExit):
        main(["encoder", "levels", "--help"])
    said = capsys.readouterr().out
    assert (
        said.startswith("usage: invact encoder levels HISTOGRAM [") and "--histogram PATH" in said
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], "unknown command 'fly'"),
        (["ladder", "--jbos", "3"], "did you mean --jobs"),
        (["ladder", "--jobs", "many"], "Couldn't parse 'many' into an int"),
        (["ladder", "--config_path", "nowhere.yaml"], "no config file nowhere.yaml"),
        (["libero", "fly"], "expected one of libero doctor, libero check"),
        (["latent", "report", "a", "--seed", "-1"], "seed must be >= 0, got -1"),
        (["latent", "train", "--loop.learning_rate", "nan"], "learning_rate must be a number"),
        (["encoder", "levels"], "missing `histogram`"),
        (["encoder", "levels", "nowhere.json"], "nowhere.json"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(words, said):
    result = invact(*words)
    assert result.returncode == 2 and said in result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr


def test_exit_codes():
    def fail():
        raise UserError("expected this,\n got that")

    assert run(fail) == 2
    assert run(lambda: None) == 0
    assert run(lambda: 1) == 1


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_explains_every_option(name, capsys):
    """Fakes of other tests stand in the registries too."""
    module, config_name, purpose = COMMANDS[name]
    kind = getattr(importlib.import_module(module), config_name)
    with pytest.raises(SystemExit) as stop:
        parse_config(kind, ["--help"], f"invact {name}", purpose)
    said = capsys.readouterr().out
    assert not stop.value.code and "--config_path" in said and purpose in said
    for option in options(kind):
        assert option.flag in said
        if option.owner.__module__.split(".")[0] in ("invact_vla", "latent_actions", "libero_eval"):
            assert len(comment_of(option.owner, option.field)) > 3, f"{option.flag} has no comment"


def test_lines_of_libraries_are_not_shown():
    """In a process of its own: pytest has handlers for every logger."""
    code = (
        "import logging; from invact_vla.config.command import run; "
        "run(lambda: [logging.getLogger(n).info(n) for n in ('accelerate', 'latent_actions.x')])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == "latent_actions.x\n"


# fmt: off
@dataclass
class Explained:
    """Comments in every place."""

    one: Literal["a", "b"] = "a"  # on the line
    two: tuple[
        int, ...
    ] = ()  # on the last line
    three: str = (
        "x"  # inside
    )
    # above it,
    # over two lines
    four: int = 4
    five: int = 5
# fmt: on


@dataclass
class Inherits(Explained):
    """One more."""

    five: int = 6  # its own


def test_comments_are_found_wherever_they_stand():
    said = [comment_of(Inherits, name) for name in ("one", "two", "three", "four", "five")]
    assert said == [
        "on the line",
        "on the last line",
        "inside",
        "above it, over two lines",
        "its own",
    ]
    assert comment_of(Explained, "five") == comment_of(Explained, "six") == ""


def test_options_with_choices_are_explained(capsys):
    module, config_name, _ = COMMANDS["encoder train"]
    with pytest.raises(SystemExit):
        parse_config(getattr(importlib.import_module(module), str(config_name)), ["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "--data.exo {random,best} exo camera of a moment" in said
    assert "--data.decode {once,on_the_fly} into a store on disk" in said
