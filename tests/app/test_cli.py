"""The command line: help, one clear line for a mistake, exit codes."""

import argparse
import importlib
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest

from invact_vla.app.cli import COMMANDS
from invact_vla.config.command import parse_config, run
from invact_vla.config.field_help import comment_of
from invact_vla.core.errors import UserError


def invact(*words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "invact_vla.app.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_help_lists_every_command():
    result = invact("--help")
    assert result.returncode == 0 and all(f"invact {name}" in result.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fly"], "unknown command 'fly'"),
        (["ladder", "--jbos", "3"], "did you mean --jobs"),
        (["ladder", "--jobs", "many"], "Couldn't parse 'many' into an int"),
        (["ladder", "--config_path", "nowhere.yaml"], "no config file nowhere.yaml"),
        (["encoder", "levels"], "takes one path"),
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


@pytest.mark.parametrize("name", sorted(name for name, entry in COMMANDS.items() if entry[1]))
def test_help_explains_every_option(name, capsys, monkeypatch):
    """A comment with a percent sign breaks argparse; one on a field's second line is not seen. Fakes
    of other tests stand in the registries too."""
    parsers, print_help = [], argparse.ArgumentParser.print_help
    monkeypatch.setattr(
        argparse.ArgumentParser, "print_help", lambda p: (parsers.append(p), print_help(p))
    )
    module, config_name, _ = COMMANDS[name]
    with pytest.raises(SystemExit) as stop:
        parse_config(getattr(importlib.import_module(module), str(config_name)), ["--help"])
    assert not stop.value.code and "--config_path" in capsys.readouterr().out
    said = {
        a.dest: (a.help or "").replace("(default: %(default)s)", "") for a in parsers[0]._actions
    }
    assert not [option for option, words in said.items() if len(words.strip()) < 4]


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
    assert "--model.attention {joint,divided} of plain blocks" in said
    assert "--data.decode {once,on_the_fly} into a store on disk" in said
