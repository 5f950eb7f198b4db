"""Against recorded numbers of the public OpenVLA code, TensorFlow and Llama-2's tokenizer."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from invact_vla.core.errors import UserError
from invact_vla.openvla import images
from invact_vla.openvla.adapters.adapter import attach
from invact_vla.openvla.adapters.lora import LoraConfig, merge
from invact_vla.openvla.checkpoints import verify
from invact_vla.openvla.checkpoints.checkpoint import (
    load_pretrained,
    load_weights,
    published_name,
    save_pretrained,
)
from invact_vla.openvla.checkpoints.config_file import (
    config_from_json,
    config_to_json,
    load_model_config,
    with_latent_tokens,
)
from invact_vla.openvla.model import OpenVLA
from invact_vla.openvla.processor import ImageProcessor
from invact_vla.openvla.tokenizer import SequenceBuilder, load_tokenizer, prompt_of
from tests.openvla.small import pixels
from tests.paths import GOLDEN, REPOSITORY, needs_golden


def verify_folder(folder: Path, **options: object) -> int:
    return verify.main(verify.VerifyConfig(folder=folder, **options))  # type: ignore[arg-type]


@needs_golden
def test_tiny_model_agrees(capsys: pytest.CaptureFixture) -> None:
    assert verify_folder(GOLDEN / "openvla_tiny") == 0
    out = capsys.readouterr().out
    assert "DISAGREES" not in out and "agreement in 9 of 9" in out


@needs_golden
def test_verify_notices_changed_weights(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(GOLDEN / "openvla_tiny", folder)
    weights = load_file(folder / "model.safetensors")
    weights["projector.fc1.bias"] += 0.01
    save_file(weights, folder / "model.safetensors")
    assert verify_folder(folder) == 1
    assert "DISAGREES" in capsys.readouterr().out


@needs_golden
@pytest.mark.parametrize(
    ("merged", "said"), [(None, "2 of 2"), (True, "1 of 1"), (False, "1 of 1")]
)
def test_adapter_agrees(merged: bool | None, said: str, capsys: pytest.CaptureFixture) -> None:
    folder, base = GOLDEN / "openvla_tiny_lora", GOLDEN / "openvla_tiny"
    assert verify_folder(folder, base=base, merged=merged) == 0
    out = capsys.readouterr().out
    assert f"agreement in {said}" in out
    assert ("through the adapter:" in out) == (merged is not True)
    assert ("merged:" in out) == (merged is not False)
    with pytest.raises(UserError, match="--base"):
        verify_folder(folder)
    with pytest.raises(UserError, match="no adapter folder"):
        verify_folder(base, base=base)


@needs_golden
def test_adapter_with_changed_outputs_disagrees(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = Path(shutil.copytree(GOLDEN / "openvla_tiny_lora", tmp_path / "adapter"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 5}))
    assert verify_folder(folder, base=GOLDEN / "openvla_tiny") == 1
    assert "DISAGREEMENT in 0 of 2" in capsys.readouterr().out


@needs_golden
@pytest.mark.parametrize(
    ("name", "count"), [("openvla_oft_tiny", 5), ("openvla_published_tiny", 3)]
)
def test_oft_and_published_folders_agree(
    name: str, count: int, capsys: pytest.CaptureFixture
) -> None:
    assert verify_folder(GOLDEN / name) == 0
    assert f"agreement in {count} of {count}" in capsys.readouterr().out


@needs_golden
@pytest.mark.parametrize("name", ["inputs.safetensors", "expected.safetensors", "config.json"])
def test_verify_names_a_missing_file(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "partial"
    shutil.copytree(GOLDEN / "openvla_tiny", folder)
    (folder / name).unlink()
    with pytest.raises(UserError, match=Path(name).stem):
        verify_folder(folder)


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
def test_published_folder_saves_with_the_same_keys(tmp_path: Path) -> None:
    """Loaded, given latent tokens and adapters, merged and saved: the published names and shapes."""
    folder = GOLDEN / "openvla_published_tiny"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    pretrained = load_pretrained(folder)
    weights = load_weights(folder)
    prompt = load_file(folder / "inputs.safetensors")["input_ids"][0].tolist()
    assert pretrained.sequences.prompt("put the cup on the plate") == prompt
    pretrained.model.config = with_latent_tokens(pretrained.config, 16)
    attach(pretrained.model, LoraConfig(rank=2))
    merge(pretrained.model)
    save_pretrained(pretrained, tmp_path / "saved")
    saved = load_weights(tmp_path / "saved")
    assert saved.keys() == index["weight_map"].keys()
    for name, tensor in saved.items():
        assert torch.equal(tensor, weights[name].float()), name  # fresh adapters change nothing
    again = load_pretrained(tmp_path / "saved")
    assert again.config == pretrained.config
    assert again.sequences.prompt("put the cup on the plate") == prompt
    with torch.no_grad():
        images = pixels(1, again.config)
        one, two = (
            m(torch.tensor([prompt]), None, images).logits for m in (pretrained.model, again.model)
        )
    assert torch.equal(one, two)


@needs_golden
def test_raw_pictures_take_the_published_path() -> None:
    folder = GOLDEN / "openvla_published_tiny"
    inputs = load_file(folder / "inputs.safetensors")
    processor = ImageProcessor.load(folder)
    frames = inputs["picture"].numpy()[None]
    torch.testing.assert_close(
        processor.published()(frames), inputs["pixel_values"], atol=1e-3, rtol=0
    )
    assert (processor(frames) - inputs["pixel_values"]).abs().max() > 0.1


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
