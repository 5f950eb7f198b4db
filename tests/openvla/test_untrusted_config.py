"""A config.json that asks for a model its weights are not: one line, at once, nothing allocated."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from invact_vla.core.errors import UserError
from invact_vla.openvla.checkpoints.checkpoint import load_pretrained
from invact_vla.openvla.config import HeadConfig
from tests.odd_values import ODD_VALUES, changed
from tests.openvla.small import debug_config, tiny_folder

ODD = (10**6, 10**12, 0, -1, "x", 1e300, [1])  # null means "not said"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def original(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def refused(folder: Path, config: dict[str, Any]) -> str:
    (folder / "config.json").write_text(json.dumps(config))
    start = time.process_time()
    with pytest.raises(UserError) as raised:
        load_pretrained(folder)
    assert time.process_time() - start < 2 and len(str(raised.value)) < 2000
    return str(raised.value)


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize(
    "name", ["num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads"]
)
def test_sizes_of_the_language_model(
    folder: Path, original: dict[str, Any], name: str, value: object
) -> None:
    refused(folder, {**original, "text_config": {**original["text_config"], name: value}})


@pytest.mark.parametrize("value", ODD, ids=repr)
@pytest.mark.parametrize("name", ["depth", "embed_dim", "img_size", "patch_size", "num_heads"])
def test_sizes_of_a_tower(folder: Path, original: dict[str, Any], name: str, value: object) -> None:
    own = original["invact"] if "towers" in original["invact"] else original
    towers = [{**own["towers"][0], name: value}, *own["towers"][1:]]
    changed = {**own, "towers": towers}
    refused(folder, changed if own is original else {**original, "invact": changed})


def test_many_layers_are_compared_by_their_names(folder: Path, original: dict[str, Any]) -> None:
    """As many as a config may have, and the file has two: they are not built to find that out."""
    layers = {**original["text_config"], "num_hidden_layers": 1024}
    assert "asks for 10" in refused(folder, {**original, "text_config": layers})
    few = {**original["text_config"], "num_hidden_layers": 20}
    assert "missing key(s)" in refused(folder, {**original, "text_config": few})


HEADS = {name: kind() for name, kind in HeadConfig.get_known_choices().items()}


@pytest.mark.parametrize("every", [313, pytest.param(11, marks=pytest.mark.slow)])
@pytest.mark.parametrize("head", HEADS)
def test_odd_values_of_every_key(head: str, every: int, tmp_path: Path) -> None:
    """Refused in one line, or read where they say nothing of the weights."""
    folder = tiny_folder(tmp_path / "model", debug_config(head=HEADS[head]))
    whole = json.loads((folder / "config.json").read_text())
    parts = whole if head == "tokens" else {"invact": whole["invact"]}
    cases = [case for odd in ODD_VALUES for case in changed(parts, odd)]
    for case in cases[::every]:
        (folder / "config.json").write_text(json.dumps({**whole, **case}))
        started = time.process_time()
        try:
            load_pretrained(folder)
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 1500, case
        assert time.process_time() - started < 2, case
