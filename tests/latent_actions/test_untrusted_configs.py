"""Configs that ask for a model their weights are not: one line, at once, and nothing allocated."""

import json
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from invact_vla.core.errors import UserError
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.inputs.language import LanguageHead
from latent_actions.labelers.laq.checkpoint import from_pretrained, save_pretrained
from latent_actions.labelers.quantizers import (
    ProductQuantizerConfig,
    load_quantizer,
    save_quantizer,
)
from latent_actions.retrieval.baselines import VilaConfig
from latent_actions.retrieval.baselines.vila import Vila, VilaShape
from latent_actions.retrieval.index import Gallery
from tests.latent_actions.encoder.test_encoder import make as make_encoder
from tests.latent_actions.labelers.test_laq import make as make_laq
from tests.latent_actions.labelers.test_laq import tiny
from tests.latent_actions.retrieval.test_index import make_gallery
from tests.odd_values import ODD_VALUES, changed

SECONDS, GROWTH_MIB = 2.0, 100


def encoder(folder: Path) -> Callable[[], object]:
    make_encoder().save_pretrained(folder)
    return lambda: InvActEncoder.from_pretrained(folder)


def laq(folder: Path) -> Callable[[], object]:
    save_pretrained(make_laq(tiny()), folder)
    return lambda: from_pretrained(folder)


def vila(folder: Path) -> Callable[[], object]:
    shape = VilaShape(size=16, frames=4, channels=8, width=16, latent=8, offset=2)
    Vila(shape).save_pretrained(folder)
    return lambda: VilaConfig(run=folder).load()


def language(folder: Path) -> Callable[[], object]:
    LanguageHead(["open", "close"], 8, 32).save_pretrained(folder)
    return lambda: LanguageHead.from_pretrained(folder)


def quantizer(folder: Path) -> Callable[[], object]:
    embeddings = np.random.default_rng(0).normal(size=(40, 8))
    fitted = ProductQuantizerConfig(positions=2, codes=4).fit(embeddings)
    save_quantizer(fitted, folder)
    return lambda: load_quantizer(folder).decode(load_quantizer(folder).encode(embeddings))


def gallery(folder: Path) -> Callable[[], object]:
    make_gallery(np.eye(3)).save(folder)
    return lambda: Gallery.load(folder).nearest(np.eye(3), 1)


KINDS = (encoder, laq, vila, language, quantizer, gallery)
CONFIGS = ("config.json", "quantizer.json", "gallery.json")


def config_of(folder: Path) -> Path:
    return next(folder / name for name in CONFIGS if (folder / name).is_file())


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_odd_values_of_every_key(
    kind: Callable[[Path], Callable[[], object]], every: int, tmp_path: Path
) -> None:
    """Refused in one line, or read where it says no more of the weights than before."""
    load = kind(tmp_path / "model")
    path = config_of(tmp_path / "model")
    whole, before, refused = json.loads(path.read_text()), peak_mib(), 0
    load()
    cases = [case for odd in ODD_VALUES for case in changed(whole, odd)]
    cases += [[whole], None, "x", {}, {**whole, "more\x1b\n" * 999: 1}, {**whole, "more": whole}]
    for case in cases[::every]:
        path.write_text(json.dumps(case))
        started = time.process_time()
        try:
            load()
        except UserError as error:
            refused += 1
            assert str(error).isprintable() and len(str(error)) < 1500, case
        assert time.process_time() - started < SECONDS, case
    assert refused > len(cases) / every / 2
    assert peak_mib() - before < GROWTH_MIB


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_arrays_of_another_model(
    kind: Callable[[Path], Callable[[], object]], tmp_path: Path
) -> None:
    """Refused before they are used, whatever is wrong with them."""
    load = kind(tmp_path / "model")
    files = [p for p in (tmp_path / "model").iterdir() if p.suffix in (".safetensors", ".npy")]
    assert files
    for path in files:
        whole = path.read_bytes()
        for odd in list(odd_arrays(path)):
            path.unlink()
            path.write_bytes(odd)
            with pytest.raises(UserError) as raised:
                load()
            assert str(raised.value).isprintable() and len(str(raised.value)) < 1500
        path.write_bytes(whole)
    load()


def odd_arrays(path: Path) -> Iterator[bytes]:
    """The file cut, of other shapes, of other names, of other numbers, and of none."""
    yield path.read_bytes()[:-9]
    yield b""
    if path.suffix == ".npy":
        array = np.load(path)
        for odd in (array[:-1], array[..., None], np.zeros(3, "U3")):
            np.save(path, odd)
            yield path.read_bytes()
        return
    tensors = load_file(path)
    name = sorted(tensors)[0]
    rest = {key: value for key, value in tensors.items() if key != name}
    for others in (
        {}, rest, {**tensors, "more": torch.ones(1)}, {**rest, name: torch.ones(3, 2, 1)},
        {**rest, "x" * 9999: tensors[name]}, {**rest, name: tensors[name][..., None]},
    ):  # fmt: skip
        yield save(others)
