"""Models of transformers of strangers: no code, no pickle, nothing at random, nothing huge."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, ViTConfig, ViTModel

from invact_vla.core.errors import UserError
from latent_actions.encoder.inputs.features import FrozenFeatures
from latent_actions.published_model import fetch, published_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=8,
    )  # fmt: skip
    ViTModel(config, add_pooling_layer=True).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        FrozenFeatures(str(folder))
    assert "\n" not in str(error.value) and len(str(error.value)) < 1500


def test_a_whole_folder(folder: Path) -> None:
    features = FrozenFeatures(str(folder))
    assert (features.width, features.size, features.patch) == (16, 16, 8)


def test_code_beside_the_weights_is_not_run(folder: Path, tmp_path: Path) -> None:
    code = f"from pathlib import Path\nPath({str(tmp_path / 'ran')!r}).touch()\nclass M: pass\n"
    (folder / "harm.py").write_text(code)
    maps = {"AutoConfig": "harm.M", "AutoModel": "harm.M"}
    change(folder, auto_map=maps, model_type="foreign")
    refused(folder, "code beside the weights is not run")
    change(folder, auto_map=maps, model_type="vit")
    FrozenFeatures(str(folder))  # transformers' own class
    assert not (tmp_path / "ran").exists()


def test_safetensors_alone(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    refused(folder, r"pytorch_model\.bin is not read: save the model as safetensors")
    index = {"weight_map": {"a": "../other/model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(folder, "outside of it")


def test_missing_tensors_are_not_drawn_at_random(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = next(name for name in state if name.endswith("layernorm.bias"))
    del state[name]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    refused(folder, "tensors are missing")


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 1_000_000}, {"hidden_size": 1 << 20}, {"intermediate_size": 1 << 30},
        {"image_size": 1 << 16}, {"hidden_size": -1}, {"hidden_size": "x"}, {"num_attention_heads": 0},
        {"model_type": None}, {"model_type": ["vit"]},
    ],
)  # fmt: skip
def test_configs_of_enormous_models(folder: Path, values: dict[str, Any]) -> None:
    change(folder, **values)
    refused(folder, "vit")


def test_names_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return "/there"

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert fetch("a/b@0123") == fetch("a/b") == Path("/there")
    assert asked[0] == ("a/b", "0123", ["*.json", "*.safetensors"]) and asked[1][1] is None
    for name in ("../b", "/a/b", "a", "a/b/c", ""):
        if not Path(name).is_dir():
            with pytest.raises(UserError, match="no folder"):
                published_model(AutoModel, name)
