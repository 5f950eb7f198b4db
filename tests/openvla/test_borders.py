"""Folders that are not quite a checkpoint: the right weights, or one line that says what it is."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from invact_vla.core.errors import UserError
from invact_vla.core.schema import Observation
from invact_vla.openvla.checkpoints import checkpoint
from invact_vla.openvla.checkpoints.checkpoint import load_pretrained, save_pretrained
from invact_vla.openvla.checkpoints.config_file import read_config
from invact_vla.openvla.config import OftHeadConfig
from invact_vla.openvla.inference.int8 import Quantize
from invact_vla.openvla.inference.policy import OpenVLAPolicy
from invact_vla.openvla.model import build_model
from libero_eval.policies import CheckpointConfig
from tests.openvla.small import debug_config, tiny, tiny_folder, with_statistics

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1234\n"
BIAS = "projector.fc2.bias"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("vla") / "checkpoint")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def shard(folder: Path) -> list[Path]:
    """Save the folder's weights again as shards, and remove the single file."""
    model = checkpoint.from_pretrained(folder)
    checkpoint.save_model(model, folder, 100_000)
    return sorted(folder.glob("model-*-of-*.safetensors"))


def test_a_single_file_wins_over_a_stale_index(folder: Path) -> None:
    new = load_file(folder / "model.safetensors")
    assert len(shard(folder)) > 1
    new[BIAS] = torch.full_like(new[BIAS], 7.0)
    save_file(new, folder / "model.safetensors")
    assert (checkpoint.from_pretrained(folder).projector.fc2.bias == 7).all()
    next(iter(folder.glob("model-00001-*"))).unlink()  # nor are the shards of the index asked for
    assert (checkpoint.from_pretrained(folder).projector.fc2.bias == 7).all()


def test_saving_removes_the_files_of_an_earlier_save(folder: Path) -> None:
    pretrained = load_pretrained(folder)
    shard(folder)
    assert not (folder / "model.safetensors").exists()
    checkpoint.save_model(pretrained.model, folder)
    assert sorted(p.name for p in folder.glob("model*")) == ["model.safetensors"]
    for name in (
        "model.safetensors.index.json",
        "adapter_config.json",
        "action_head--1_checkpoint.pt",
    ):
        (folder / name).write_text("{}")
    save_pretrained(pretrained, folder)
    assert sorted(p.name for p in folder.glob("model*")) == ["model.safetensors"]
    assert not list(folder.glob("a*_*"))
    load_pretrained(folder)


def test_saving_does_not_replace_a_folder_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="no checkpoint folder"):
        save_pretrained(tiny(), tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_tensor_in_two_shards_is_refused(folder: Path) -> None:
    first, second = shard(folder)[:2]
    name, tensor = next(iter(load_file(first).items()))
    save_file({**load_file(second), name: tensor + 1}, second)
    with pytest.raises(UserError, match=f"{second.name} holds {name}, which an earlier file"):
        load_pretrained(folder)


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int64, torch.bool])
def test_quantized_weights_are_no_weights(kind: torch.dtype, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[BIAS] = weights[BIAS].to(kind)
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=f"holds {BIAS} as {kind}, expected floating-point"):
        load_pretrained(folder)


@pytest.mark.parametrize("quantize", ["none", "int8"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_of_a_training_that_diverged_are_not_rolled_out(
    bad: float, quantize: Quantize, folder: Path
) -> None:
    weights = load_file(folder / "model.safetensors")
    weights[BIAS][0] = bad
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(UserError, match=f"holds NaN or infinity in .*{BIAS}.*diverged"):
        CheckpointConfig(folder=folder, device="cpu", quantize=quantize).load()


@pytest.mark.parametrize("dtype, quantize", [("fp32", "int8"), ("bf16", "none")])
def test_weights_that_are_made_ready_for_inference_load(
    dtype: str, quantize: Quantize, folder: Path
) -> None:
    CheckpointConfig(folder=folder, device="cpu", dtype=dtype, quantize=quantize).load()


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"libero_10": 3}', '["a"]'])
def test_statistics_that_are_no_object(text: str, folder: Path) -> None:
    (folder / "dataset_statistics.json").write_text(text)
    with pytest.raises(
        UserError, match=r"dataset_statistics\.json: expected an object|norm_stats must be"
    ):
        load_pretrained(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shards = shard(folder)
    shards[1].unlink()
    with pytest.raises(UserError, match=f"lacks 1 of {len(shards)} shards .* {shards[1].name}"):
        load_pretrained(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_text_pointer_is_called_that(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    with pytest.raises(UserError, match=f"{name} is a git-lfs text pointer.*git lfs pull"):
        load_pretrained(folder)


def test_a_shard_that_is_a_text_pointer(folder: Path) -> None:
    shard(folder)[-1].write_text(POINTER)
    with pytest.raises(UserError, match="git-lfs text pointer"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"adapter_config.json": '{"base_model_name_or_path": "openvla/openvla-7b"}'},
         "whole model and a LoRA adapter .made on openvla/openvla-7b."),
        ({"noisy_action_projector--5_checkpoint.pt": ""}, "OpenVLA-OFT checkpoint with a diffusion"),
        ({"vision_backbone--5_checkpoint.pt": ""}, "OpenVLA-OFT checkpoint with FiLM"),
        ({"action_decoder-30000.pt": ""}, r"UniVLA checkpoint.*\(action_decoder-30000.pt\)"),
        ({"action_decoder.pt": "", "lam-stage-2.ckpt": ""}, "action_decoder.pt, lam-stage-2.ckpt"),
    ],
)  # fmt: skip
def test_a_folder_with_parts_that_are_not_read(folder: Path, files: dict, message: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    for read in (load_pretrained, read_config, checkpoint.from_pretrained):
        with pytest.raises(UserError, match=message):
            read(folder)
    with pytest.raises(UserError, match=message):
        CheckpointConfig(folder=folder).hash()


@pytest.mark.parametrize("where", ["added_tokens.json", "tokenizer_config.json"])
def test_univla_is_known_by_its_words(folder: Path, where: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["invact"]
    (folder / "config.json").write_text(json.dumps(config))
    token = {"32001": {"content": "<ACT_0>", "special": True}}
    value = {"<ACT_0>": 32001} if where == "added_tokens.json" else {"added_tokens_decoder": token}
    (folder / where).write_text(json.dumps(value))
    with pytest.raises(UserError, match="UniVLA checkpoint: its tokenizer"):
        load_pretrained(folder)


@pytest.mark.parametrize("place", ["adapter", "lora_adapter"])
def test_a_folder_that_holds_an_adapter_alone(place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir()
    (tmp_path / place / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=f"{place} is a LoRA adapter, not a whole"):
        load_pretrained(tmp_path)


def test_an_adapter_alone(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "openvla-7b"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"a LoRA adapter .made on openvla-7b., not a whole"):
        load_pretrained(tmp_path)


def test_other_formats_and_models_are_named(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is not read"):
        load_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "pi0"}')
    with pytest.raises(UserError, match="'pi0' checkpoint, not an OpenVLA"):
        load_pretrained(folder)


def test_a_run_folder_means_its_model(saved: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "provenance.json").write_text("{}")
    with pytest.raises(UserError, match="holds no model/"):
        load_pretrained(run)
    shutil.copytree(saved, run / "model")
    config = with_statistics(debug_config())
    assert load_pretrained(run).config.norm_stats.keys() == config.norm_stats.keys()
    assert checkpoint.from_pretrained(run).config == read_config(run / "model")
    assert CheckpointConfig(folder=run).checkpoint_folder() == run / "model"


def test_paths_that_are_no_folder(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        load_pretrained(tmp_path / "nowhere")
    with pytest.raises(UserError, match="hf download openvla/openvla-7b --local-dir"):
        load_pretrained(Path("openvla/openvla-7b"))
    with pytest.raises(UserError, match="is a file, not a folder"):
        load_pretrained(saved / "config.json")


def oft_folder(saved: Path, folder: Path, **invact: object) -> dict[str, torch.Tensor]:
    """A folder as OpenVLA-OFT saves it: a plain one, and files of head and projector beside it."""
    shutil.copytree(saved, folder)
    config = json.loads((folder / "config.json").read_text())
    del config["invact"]  # published folders have none; without it the vocabulary is rows - 64
    (folder / "config.json").write_text(json.dumps(config))
    config = debug_config(head=OftHeadConfig(), chunk=8, proprio_dim=8, **invact)
    state = build_model(config, 5).state_dict()
    for part in ("action_head", "proprio_projector"):
        own = {f"module.{n[len(part) + 1 :]}": t for n, t in state.items() if n.startswith(part)}
        torch.save(own, folder / f"{part}--50000_checkpoint.pt")
    return {n: t for n, t in state.items() if n.startswith(("action_head", "proprio"))}


def test_an_oft_folder_is_loaded_as_oft(saved: Path, tmp_path: Path) -> None:
    parts = oft_folder(saved, tmp_path / "oft")
    own = read_config(tmp_path / "oft").invact
    assert own.head == OftHeadConfig(output="l1", blocks=2) and own.cameras == (
        "agentview",
        "wrist",
    )
    assert (own.chunk, own.action_dim, own.proprio_dim) == (8, 7, 8)
    state = checkpoint.from_pretrained(tmp_path / "oft").state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in parts.items())
    policy = OpenVLAPolicy.from_pretrained(tmp_path / "oft")
    image = np.zeros((64, 64, 3), np.uint8)
    seen = Observation(image, image, np.zeros(8, np.float32), "pick up the book")
    assert policy.act(seen).values.shape == (8, 7)
    save_pretrained(policy.pretrained, tmp_path / "ours")  # then all is in one file
    again = checkpoint.from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())


def test_parts_of_oft_may_be_absent(saved: Path, tmp_path: Path) -> None:
    oft_folder(saved, tmp_path / "oft")
    (tmp_path / "oft/proprio_projector--50000_checkpoint.pt").unlink()
    own = read_config(tmp_path / "oft").invact
    assert own.cameras == ("agentview",) and own.proprio_dim == 0
    checkpoint.from_pretrained(tmp_path / "oft")
    oft_folder(saved, tmp_path / "discrete")
    (tmp_path / "discrete/action_head--50000_checkpoint.pt").unlink()
    assert read_config(tmp_path / "discrete").invact.head.output == "tokens"  # type: ignore[attr-defined]
    assert checkpoint.from_pretrained(tmp_path / "discrete").action_head is None


def test_the_chunk_of_another_robot(saved: Path, tmp_path: Path) -> None:
    oft_folder(saved, tmp_path / "bridge")
    path = tmp_path / "bridge/dataset_statistics.json"
    path.write_text(json.dumps({"bridge_orig": json.loads(path.read_text())["libero_10"]}))
    assert read_config(tmp_path / "bridge").invact.chunk == 5
    oft_folder(saved, tmp_path / "aloha", action_dim=14)
    assert read_config(tmp_path / "aloha").invact.chunk == 25


def test_oft_files_that_do_not_fit(saved: Path, tmp_path: Path) -> None:
    oft_folder(saved, tmp_path / "oft")
    path = tmp_path / "oft/action_head--50000_checkpoint.pt"
    shutil.copy(path, path.with_name("action_head--100000_checkpoint.pt"))
    with pytest.raises(UserError, match="holds 2 files of action_head"):
        load_pretrained(tmp_path / "oft")
    path.with_name("action_head--100000_checkpoint.pt").unlink()
    state = torch.load(path, weights_only=True)
    torch.save({n: t[..., :-1] for n, t in state.items()}, path)
    with pytest.raises(UserError, match="is not the L1 head of this model"):
        load_pretrained(tmp_path / "oft")
    path.write_text(POINTER)
    with pytest.raises(UserError, match="git-lfs"):
        load_pretrained(tmp_path / "oft")


def test_rollouts_may_treat_pictures_as_published(saved: Path) -> None:
    plain, published = (CheckpointConfig(folder=saved, published_pictures=p) for p in (False, True))
    assert plain.hash() != published.hash()
    frames = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    processors = [c.load()._model.pretrained.processor for c in (plain, published)]  # type: ignore[attr-defined]
    expected = processors[0].process(Image.fromarray(frames[0]))
    assert torch.equal(processors[1](frames), expected)
    assert not torch.equal(processors[0](frames), expected)
