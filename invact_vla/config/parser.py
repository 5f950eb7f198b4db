"""draccus' parser, reading YAML by our loader: draccus itself reads any file that a config names by
`!include`, or that a value beginning with "include" names."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import mergedeep
from draccus.argparsing import ArgumentParser
from draccus.parsers import decoding
from draccus.utils import CONFIG_ARG, deflatten

from invact_vla.config.yaml_text import parse_yaml, read_yaml
from invact_vla.core.errors import UserError


def parse(config_class: type, args: list[str]) -> Any:
    """The config of a command line. Raises UserError for YAML that cannot be read, draccus'
    exceptions for values of the wrong kind, SystemExit as argparse does."""
    return _Parser(config_class).parse_args(args)


class _Parser(ArgumentParser):
    def _postprocessing(self, parsed_args: Namespace) -> Any:
        given = dict(vars(parsed_args))
        path = given.pop(CONFIG_ARG, None)
        values = {name: parse_yaml(text, f"--{name}") for name, text in given.items()}
        values = {name: "" if given[name] == "" else value for name, value in values.items()}
        config = {} if path is None else _config(Path(path))
        merged = mergedeep.merge(config, deflatten(values, sep="."))
        return decoding.decode(self.config_class, merged)


def _config(path: Path) -> dict[Any, Any]:
    if not path.is_file():
        raise UserError(f"no config file {path}: correct --config_path")
    config = read_yaml(path)
    if not isinstance(config, dict | None):
        raise UserError(f"{path}: expected names and values, got {type(config).__name__}")
    return config or {}
