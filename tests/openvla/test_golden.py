"""Against recorded numbers of the public OpenVLA code, TensorFlow and Llama-2's tokenizer."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from invact_vla.errors import UserError
from invact_vla.openvla import images, verify
from invact_vla.openvla.checkpoint import published_name
from invact_vla.openvla.config_file import config_from_json, config_to_json, load_model_config
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.prompt import SequenceBuilder, prompt_of
from invact_vla.openvla.tokenizer import load_tokenizer
from tests.paths import GOLDEN, REPOSITORY, needs_golden


@needs_golden
def test_tiny_model_agrees(capsys: pytest.CaptureFixture) -> None:
    assert verify.main(GOLDEN / "openvla_tiny") == 0
    out = capsys.readouterr().out
    assert "DISAGREES" not in out and "agreement in 9 of 9" in out


@needs_golden
def test_verify_notices_changed_weights(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "changed"
    shutil.copytree(GOLDEN / "openvla_tiny", folder)
    weights = load_file(folder / "model.safetensors")
    weights["projector.fc1.bias"] += 0.01
    save_file(weights, folder / "model.safetensors")
    assert verify.main(folder) == 1
    assert "DISAGREES" in capsys.readouterr().out


@needs_golden
@pytest.mark.parametrize("name", ["inputs.safetensors", "expected.safetensors", "config.json"])
def test_verify_names_a_missing_file(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "partial"
    shutil.copytree(GOLDEN / "openvla_tiny", folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=Path(name).stem):
        verify.main(folder)


def test_published_size_on_the_meta_device() -> None:
    config = load_model_config(REPOSITORY / "configs/vla/model_7b.yaml")
    assert config_from_json(config_to_json(config), "round trip") == config
    with torch.device("meta"):
        model = OpenVLA(config)
    assert sum(p.numel() for p in model.parameters()) == 7_541_237_184
    lines = [
        f"{published_name(n)} {'x'.join(map(str, t.shape))}" for n, t in model.state_dict().items()
    ]
    assert len(lines) == 982
    if GOLDEN is not None:
        assert sorted(lines) == sorted(
            (GOLDEN / "openvla_7b_keys.txt").read_text().split("\n")[:982]
        )


@needs_golden
def test_llama2_prompts() -> None:
    folder = GOLDEN / "llama2_tokenizer"
    tokenizer = load_tokenizer(folder, 32000)
    assert (tokenizer.vocab_size, tokenizer.pad_token_id, tokenizer.separator_id) == (
        32000,
        32000,
        29871,
    )
    builder = SequenceBuilder(tokenizer, tokenizer.separator_id)
    for row in json.loads((folder / "prompts.json").read_text()):
        assert prompt_of(row["instruction"]) == row["prompt"]
        assert tokenizer.encode(row["prompt"]) == row["input_ids"]
        assert builder.prompt(row["instruction"]) == [*row["input_ids"], 29871]


@needs_golden
def test_images_agree_with_tensorflow() -> None:
    golden = np.load(GOLDEN / "image_preprocess/frames.npz")
    upright = np.ascontiguousarray(golden["simulator"][:, ::-1, ::-1])
    decoded = np.stack([images.jpeg_round_trip(f) for f in upright])
    resized = images.resize_lanczos3(decoded, 224)
    cropped = images.center_crop(golden["resized_224"])
    for ours, name, share in ((resized, "resized_224", 1e-4), (cropped, "center_crop_224", 1e-5)):
        difference = np.abs(ours.astype(int) - golden[name].astype(int))
        assert difference.max() <= 1, name
        assert (difference > 0).mean() <= share, name
