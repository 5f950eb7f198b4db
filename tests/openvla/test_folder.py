"""Checkpoint folders, and the policy that is made of one."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from invact_vla.core.errors import UserError
from invact_vla.core.schema import Observation
from invact_vla.openvla.checkpoints import checkpoint
from invact_vla.openvla.checkpoints.checkpoint import load_pretrained, save_pretrained
from invact_vla.openvla.inference.policy import OpenVLAPolicy, select_norm_stats, to_libero_action
from invact_vla.openvla.processor import ImageProcessor
from tests.openvla.small import debug_config, pixels, tiny, tiny_folder, with_statistics


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = debug_config(chunk=2, constrain_actions=True)
    return tiny_folder(tmp_path_factory.mktemp("vla") / "checkpoint", config)


def observation(
    instruction: str = "pick up the book", seed: int = 0, wrist: bool = False
) -> Observation:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    state = rng.normal(size=8).astype(np.float32)
    return Observation(image, image[::-1].copy() if wrist else None, state, instruction)


def test_round_trip(folder: Path, tmp_path: Path) -> None:
    loaded = load_pretrained(folder)
    again = tmp_path / "again"
    save_pretrained(loaded, again)
    for name in sorted(p.name for p in folder.iterdir()):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
    twice = load_pretrained(again)
    assert twice.config == loaded.config and twice.processor == loaded.processor
    ids = torch.tensor([loaded.sequences.prompt("pick up the book")])
    images = pixels(1, loaded.config)
    with torch.inference_mode():
        first, second = (m(ids, pixel_values=images).logits for m in (loaded.model, twice.model))
    assert torch.equal(first, second)


def test_files_on_disk_have_published_names(folder: Path) -> None:
    keys = set(load_file(folder / "model.safetensors"))
    assert "vision_backbone.featurizer.blocks.1.ls2.scale_factor" in keys  # a block never run
    assert "vision_backbone.fused_featurizer.attn_pool.q.weight" in keys
    assert not any("gamma" in k for k in keys)
    names = {p.name for p in folder.iterdir()}
    assert {"config.json", "preprocessor_config.json", "generation_config.json"} <= names
    assert {"dataset_statistics.json", "tokenizer.json", "tokenizer_config.json"} <= names


def test_shards(tmp_path: Path) -> None:
    model = tiny().model
    checkpoint.save_model(model, tmp_path / "." if tmp_path.exists() else tmp_path, 100_000)
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    loaded = checkpoint.from_pretrained(tmp_path)
    own = model.state_dict()
    assert all(torch.equal(own[n], t) for n, t in loaded.state_dict().items())
    next(iter(tmp_path.glob("model-*.safetensors"))).unlink()
    with pytest.raises(UserError, match="no file"):
        checkpoint.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("projector.fc2.bias"), r"1 missing key\(s\): projector.fc2.bias"),
        (lambda w: w.update(stray=torch.zeros(1)), r"1 unexpected key\(s\): stray"),
        (
            lambda w: w.update({"projector.fc2.bias": torch.zeros(3)}),
            r"projector.fc2.bias is \(3,\), expected \(32,\)",
        ),
    ],
)
def test_keys_that_do_not_fit(folder: Path, tmp_path: Path, change, message: str) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=message):
        load_pretrained(tmp_path)


def test_damaged_and_missing_files(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="damaged"):
        load_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        load_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="JSON"):
        load_pretrained(tmp_path)
    with pytest.raises(UserError, match="no checkpoint folder"):
        load_pretrained(tmp_path / "nowhere")


def test_policy_acts(folder: Path) -> None:
    policy = OpenVLAPolicy.from_pretrained(folder)
    assert policy.needs == ("agentview",) and policy.chunk == 2 and policy.key == "libero_10"
    policy.reset(0)
    values = policy.act(observation()).values
    assert values.shape == (2, 7) and values.dtype == np.float32
    assert set(np.abs(values[:, 6]).tolist()) == {1.0}
    assert (values[:, 3] == np.float32(0.125)).all()  # constant in the data: exactly that constant
    assert np.array_equal(values, policy.act(observation()).values)


def test_policy_batch_equals_singles(folder: Path) -> None:
    policy = OpenVLAPolicy.from_pretrained(folder)
    seen = [
        observation(seed=0),
        observation("put both moka pots on the stove", 1),
        observation(seed=2),
    ]
    for one, many in zip(seen, policy.act_batch(seen), strict=True):
        assert np.array_equal(policy.act(one).values, many.values)


def test_policy_with_wrist_and_state(tmp_path: Path) -> None:
    config = debug_config(cameras=("agentview", "wrist"), proprio_dim=8)
    policy = OpenVLAPolicy.from_pretrained(tiny_folder(tmp_path / "vla", config))
    assert policy.needs == ("agentview", "wrist")
    assert policy.act(observation(wrist=True)).values.shape == (1, 7)
    with pytest.raises(UserError, match="wrist"):
        policy.act(observation())


def test_policy_without_statistics(tmp_path: Path) -> None:
    save_pretrained(tiny(), tmp_path / "vla")
    with pytest.raises(UserError, match="no action statistics"):
        OpenVLAPolicy.from_pretrained(tmp_path / "vla")


def test_choice_of_statistics() -> None:
    stats = {"libero_10_no_noops": {"action": 1}, "bridge_orig": {"action": 2}}
    assert select_norm_stats(stats, "libero_10") == ("libero_10_no_noops", {"action": 1})
    with pytest.raises(UserError, match="several"):
        select_norm_stats(stats, None)
    with pytest.raises(UserError, match="kitchen"):
        select_norm_stats(stats, "kitchen")


def test_dataset_statistics_replace_norm_stats(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    stats = json.loads((tmp_path / "dataset_statistics.json").read_text())
    (tmp_path / "dataset_statistics.json").write_text(json.dumps({"mine": stats["libero_10"]}))
    assert OpenVLAPolicy.from_pretrained(tmp_path).key == "mine"


def test_gripper_of_the_environment() -> None:
    opened, closed = to_libero_action(np.array([[0.0] * 6 + [0.996], [2.0] * 6 + [0.0]]))
    assert opened[6] == -1 and closed[6] == 1 and closed[0] == 1


def test_tokenizer_of_another_model(folder: Path, tmp_path: Path) -> None:
    pretrained = tiny(with_statistics(debug_config()))
    save_pretrained(pretrained, tmp_path / "vla")
    (tmp_path / "vla/tokenizer.json").unlink()
    with pytest.raises(UserError, match="no tokenizer"):
        load_pretrained(tmp_path / "vla")


@pytest.mark.parametrize("other", [{"size": 384}, {"means": ((0.5,) * 3,), "stds": ((0.5,) * 3,)}])
def test_processor_of_another_model(other: dict, folder: Path, tmp_path: Path) -> None:
    loaded = load_pretrained(folder)
    save_pretrained(replace(loaded, processor=replace(loaded.processor, **other)), tmp_path / "vla")
    with pytest.raises(UserError, match=r"preprocessor_config\.json makes .* the model reads"):
        load_pretrained(tmp_path / "vla")


def test_statistics_without_the_name_of_a_data_set(folder: Path, tmp_path: Path) -> None:
    save_pretrained(load_pretrained(folder), tmp_path / "vla")
    path = tmp_path / "vla/dataset_statistics.json"
    (statistics,) = json.loads(path.read_text()).values()
    path.write_text(json.dumps({**statistics, "num_transitions": 3}))
    with pytest.raises(UserError, match=r"dataset_statistics\.json: expected an object"):
        load_pretrained(tmp_path / "vla")


def test_processor_keeps_serialized_statistics(tmp_path: Path) -> None:
    """Published folders carry bfloat16-rounded statistics, which win over `means` and `stds`."""
    ImageProcessor(size=224).save(tmp_path)
    value = json.loads((tmp_path / "preprocessor_config.json").read_text())
    rounded = [0.484375, 0.455078125, 0.40625]
    value["tvf_normalize_params"][0]["mean"] = rounded
    del value["invact"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(value))
    loaded = ImageProcessor.load(tmp_path)
    assert loaded.means[0] == tuple(rounded) and loaded.jpeg and loaded.crop
    black = loaded.normalize(torch.zeros(1, 2, 2, 3))
    assert black.shape == (1, 6, 2, 2)
    torch.testing.assert_close(black[0, :, 0, 0][:1], torch.tensor([-0.484375 / 0.229]))


def test_training_images_are_random_and_repeatable() -> None:
    processor = replace(ImageProcessor(size=32), jpeg=False)
    frames = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    prepared = processor.prepare(frames)
    assert prepared.shape == (4, 32, 32, 3) and prepared.dtype == np.uint8
    draws = [np.random.default_rng(seed).random((4, 6), np.float32) for seed in (5, 5, 6)]
    one, two, other = (processor.pixel_values(prepared, drawn) for drawn in draws)
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    plain = processor.pixel_values(prepared)
    assert plain.shape == one.shape == (4, 6, 32, 32)
    assert torch.equal(plain[:2], processor.pixel_values(prepared[:2]))


@pytest.mark.parametrize("strategy", ["resize-naive", "letterbox", "resize-crop"])
def test_published_processor_takes_any_shape(strategy: str) -> None:
    from PIL import Image

    processor = ImageProcessor(size=32, strategy=strategy)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 90, 3), dtype=np.uint8))
    assert processor.process(image).shape == (1, 6, 32, 32)
