"""LoRA: what is adapted and trained, the folder that it is kept in, merging, and exact resume."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from invact_vla.core.errors import UserError
from invact_vla.openvla.adapters import merge as merge_command
from invact_vla.openvla.adapters.adapter import attach, load_adapter, load_on_base, save_adapter
from invact_vla.openvla.adapters.lora import (
    FULL,
    LoraConfig,
    base_hash,
    find_targets,
    has_adapters,
    is_adapter_weight,
    merge,
)
from invact_vla.openvla.checkpoints.checkpoint import (
    VLACheckpoint,
    load_pretrained,
    save_pretrained,
)
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.config import OftHeadConfig
from invact_vla.openvla.heads.tokens import TokensHead
from invact_vla.openvla.model import IGNORED, OpenVLA
from invact_vla.openvla.random_model import random_inputs
from invact_vla.training.loop import LoopConfig, fit
from tests.openvla.small import debug_config, pixels, tiny, with_statistics
from tests.paths import GOLDEN, REPOSITORY, needs_golden

SMALL = LoraConfig(rank=2, alpha=4)


def oft_config():
    head = OftHeadConfig(blocks=1)
    return with_statistics(debug_config(head=head, chunk=2, proprio_dim=8))


def adapted(config: LoraConfig = SMALL, pretrained: VLACheckpoint | None = None) -> VLACheckpoint:
    """A tiny model with adapters that change its outputs."""
    pretrained = tiny(with_statistics(debug_config())) if pretrained is None else pretrained
    attach(pretrained.model, config, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in pretrained.model.named_parameters():
            if "lora_B" in name or name.startswith(FULL):
                parameter.normal_(0, 0.3, generator=generator)
    return pretrained


@torch.no_grad()
def logits(model: OpenVLA) -> torch.Tensor:
    return model.eval()(**random_inputs(model, 2, 12, seed=5)).logits


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, torch.Tensor]:
    """(base, adapter, logits of the base with the adapter)."""
    base = tmp_path / "base"
    save_pretrained(tiny(with_statistics(debug_config())), base)
    pretrained = adapted()
    save_adapter(pretrained, tmp_path / "adapter", base)
    return base, tmp_path / "adapter", logits(pretrained.model)


def test_published_targets_at_published_size() -> None:
    """The counts of peft 0.11.1's "all-linear" on the published model (openvla finetune.py)."""
    with torch.device("meta"):
        model = OpenVLA(load_model_config(REPOSITORY / "configs/vla/model_7b.yaml"))
    total = sum(p.numel() for p in model.parameters())
    modules, trained = 439, 110_828_288
    config = LoraConfig(targets="published")
    assert len(find_targets(model, config)) == modules
    sane = find_targets(model, LoraConfig())
    assert len(sane) == modules - 1 - 2 - 13  # lm_head, patch embeddings, what is never run
    attach(model, config)
    adapters = [(n, p) for n, p in model.named_parameters() if is_adapter_weight(n)]
    assert sum(p.numel() for _, p in adapters) == trained
    assert sum(p.numel() for p in model.parameters()) == total + trained
    frozen = {n.split(".lora_")[0] for n, p in adapters if not p.requires_grad}
    assert len(frozen) == 13


@pytest.mark.parametrize("targets", ["sane", "published"])
def test_only_adapters_get_gradients_and_all_of_them_do(targets: str) -> None:
    model = tiny().model
    before = logits(model)
    attach(model, replace(SMALL, targets=targets), seed=3)
    torch.testing.assert_close(logits(model), before, atol=1e-5, rtol=0)  # B is zero
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
        assert not is_adapter_weight(name) or parameter.dtype == torch.float32
    model(**random_inputs(model, 2, 12)).logits.sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert is_adapter_weight(name) or not parameter.requires_grad, name


def test_adapters_stay_in_fp32_on_a_bf16_base() -> None:
    model = attach(tiny().model.bfloat16(), SMALL)
    model(**random_inputs(model, 2, 12)).logits.float().sum().backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert trained and all(p.dtype == p.grad.dtype == torch.float32 for p in trained.values())


def test_heads_are_trained_in_full() -> None:
    model = attach(tiny(oft_config()).model, replace(SMALL, targets="published"))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert {n for n in trained if not is_adapter_weight(n)} == {
        n for n, _ in model.named_parameters() if n.startswith(FULL)
    }
    assert not any(is_adapter_weight(n) for n in model.state_dict() if n.startswith(FULL))


def test_fresh_adapters_depend_on_the_seed_alone() -> None:
    first, again, other = (attach(tiny().model, SMALL, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[n], again[n]) for n in first)
    assert any(not torch.equal(first[n], other[n]) for n in first)


def test_modules_by_name() -> None:
    model = tiny().model
    config = replace(SMALL, modules=("q_proj", "projector.fc1"))
    assert find_targets(model, config) == [
        "projector.fc1",
        "language_model.model.layers.0.self_attn.q_proj",
        "language_model.model.layers.1.self_attn.q_proj",
    ]
    with pytest.raises(UserError, match=r"'q_pro' is no linear layer .*did you mean q_proj"):
        find_targets(model, replace(SMALL, modules=("q_pro",)))


@pytest.mark.parametrize("bad", [{"rank": 0}, {"alpha": 0}, {"dropout": 1.0}])
def test_bad_settings(bad: dict) -> None:
    with pytest.raises(ValueError, match="LoRA needs"):
        LoraConfig(**bad)


def test_a_shared_head_cannot_be_adapted() -> None:
    config = debug_config()
    config = replace(config, text_config=replace(config.text_config, tie_word_embeddings=True))
    with pytest.raises(UserError, match="tie_word_embeddings"):
        attach(tiny(config).model, replace(SMALL, targets="published"))
    attach(tiny(config).model, SMALL)


def test_round_trip(folders: tuple, tmp_path: Path) -> None:
    base, adapter, expected = folders
    loaded = load_on_base(base, adapter)
    assert torch.equal(logits(loaded), expected)
    plain = load_pretrained(base).model
    assert (logits(plain) - expected).abs().max() > 0.1
    # going on from the folder gives the same adapters, and they are trained
    resumed = attach(load_pretrained(base).model, replace(SMALL, rank=7, adapter=adapter))
    assert torch.equal(logits(resumed), expected)
    assert any(p.requires_grad for p in resumed.parameters())
    save_adapter(replace(load_pretrained(base), model=resumed), tmp_path / "again", base)
    for name in ("adapter_model.safetensors", "adapter_config.json", "invact_adapter.json"):
        assert (tmp_path / "again" / name).read_bytes() == (adapter / name).read_bytes(), name


def test_the_folder_has_the_published_layout(tmp_path: Path) -> None:
    pretrained = adapted(replace(SMALL, targets="published"))
    save_adapter(pretrained, tmp_path)
    keys = set(load_file(tmp_path / "adapter_model.safetensors"))
    assert "base_model.model.language_model.lm_head.lora_A.weight" in keys
    assert all(k.startswith("base_model.model.") and ".lora_" in k for k in keys)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["r"] == 2 and config["lora_alpha"] == 4 and len(config["target_modules"]) == 15
    if GOLDEN is not None:
        golden = GOLDEN / "openvla_tiny_lora/adapter_config.json"
        assert set(config) <= set(json.loads(golden.read_text()))  # fields that peft 0.11.1 knows


def test_stock_peft_reads_our_folder(folders: tuple) -> None:
    base, adapter, expected = folders
    model = peft.PeftModel.from_pretrained(load_pretrained(base).model, str(adapter))
    with torch.no_grad():
        found = model.eval()(**random_inputs(load_pretrained(base).model, 2, 12, seed=5)).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "options", [{"use_rslora": True}, {"use_dora": True}, {"rank_pattern": {"q_proj": 4}}]
)
def test_adapters_of_stock_peft_load(folders: tuple, tmp_path: Path, options: dict) -> None:
    base, _, _ = folders
    stock = load_pretrained(base).model
    settings = peft.LoraConfig(
        r=2,
        lora_alpha=8,
        target_modules=["q_proj", "fc1", "proj"],
        init_lora_weights=False,
        **options,
    )
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(stock, settings)
    wrapped.save_pretrained(str(tmp_path / "stock"))
    with torch.no_grad():
        expected = wrapped.eval()(
            **random_inputs(load_pretrained(base).model, 2, 12, seed=5)
        ).logits
    loaded = load_on_base(base, tmp_path / "stock")
    torch.testing.assert_close(logits(loaded), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(logits(merge(loaded)), expected, atol=1e-4, rtol=0)


def test_an_old_bin_file(folders: tuple) -> None:
    base, adapter, expected = folders
    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    assert torch.equal(logits(load_on_base(base, adapter)), expected)


def change_weights(adapter: Path, change) -> None:
    path = adapter / "adapter_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def change_config(adapter: Path, **values: object) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


Q = "base_model.model.language_model.model.layers.0.self_attn.q_proj"
HEAD = "base_model.model.language_model.lm_head.base_layer.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(f"{Q}.lora_B.weight"), r"1 missing key\(s\)"),
        (lambda w: [w.pop(k) for k in list(w) if k.startswith(Q)], "its weights lack: .*q_proj"),
        (
            lambda w: w.update({f"{Q}.lora_A.weight": torch.zeros(3, 32)}),
            r"\(3, 32\), expected \(2",
        ),
        (lambda w: w.update({"base_model.model.x.lora_A.weight": torch.zeros(1)}), "base lacks: x"),
        (lambda w: w.update({"base_model.model.stray": torch.zeros(1)}), "unexpected .*: stray"),
        (lambda w: w.update({HEAD: torch.zeros(448, 32)}), "another base: it carries .*lm_head"),
        (lambda w: w.clear(), "no adapter weights"),
    ],
)
def test_keys_that_do_not_fit(folders: tuple, change, message: str) -> None:
    base, adapter, _ = folders
    change_weights(adapter, change)
    with pytest.raises(UserError, match=message):
        load_on_base(base, adapter)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "expected peft_type LORA, got IA3"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "biases"),
        ({"init_lora_weights": "pissa"}, "changed the base as well"),
        ({"r": None}, "expected a rank"),
        ({"r": 3}, r"is \(2, .*expected \(3, "),
    ],
)
def test_kinds_of_adapters_that_are_refused(folders: tuple, values: dict, message: str) -> None:
    base, adapter, _ = folders
    change_config(adapter, **values)
    with pytest.raises(UserError, match=message):
        load_on_base(base, adapter)


def test_a_copy_of_the_base_in_the_adapter_may_be_rounded(folders: tuple) -> None:
    base, adapter, expected = folders
    head = load_file(base / "model.safetensors")["language_model.lm_head.weight"]
    change_weights(adapter, lambda w: w.update({HEAD: head.bfloat16()}))
    assert torch.equal(logits(load_on_base(base, adapter)), expected)


def test_another_base_is_noticed_by_its_hash(folders: tuple, tmp_path: Path) -> None:
    base, adapter, _ = folders
    save_pretrained(tiny(with_statistics(debug_config()), seed=9), tmp_path / "other")
    with pytest.raises(UserError, match=r"another base .hash"):
        load_on_base(tmp_path / "other", adapter)
    model = load_pretrained(base).model
    known = base_hash(model)
    assert base_hash(load_pretrained(base, dtype=torch.bfloat16).model) == known
    assert base_hash(attach(model, SMALL)) == known
    (adapter / "invact_adapter.json").unlink()
    load_on_base(tmp_path / "other", adapter)  # nothing recorded: nothing to compare


def test_merging_keeps_the_outputs_and_leaves_a_plain_model() -> None:
    for targets in ("sane", "published"):
        model = adapted(replace(SMALL, targets=targets)).model
        before = logits(model)
        assert merge(model) is model and not has_adapters(model)
        error = (logits(model) - before).abs().max() / before.abs().max()
        assert error < 1e-4
        plain = tiny().model
        assert list(model.state_dict()) == list(plain.state_dict())
        grads = {n: p.requires_grad for n, p in plain.named_parameters()}
        assert {n: p.requires_grad for n, p in model.named_parameters()} == grads
        attach(model, SMALL)  # and others may follow


def test_merging_in_bf16_rounds_once() -> None:
    exact, rounded = (adapted().model for _ in range(2))
    rounded.load_state_dict(
        {
            n: t.bfloat16().float()
            for n, t in rounded.state_dict().items()
            if not is_adapter_weight(n)
        },
        strict=False,
    )
    exact.load_state_dict(rounded.state_dict())
    for name, parameter in rounded.named_parameters():
        if not is_adapter_weight(name):
            parameter.data = parameter.data.bfloat16()
    merge(rounded)
    merge(exact)
    for name, tensor in exact.state_dict().items():
        assert torch.equal(rounded.state_dict()[name], tensor.bfloat16()), name


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_adapter_is_not_merged(bad: float) -> None:
    model = adapted().model
    dict(model.named_parameters())["projector.fc1.lora_A.default.weight"].data[0, 0] = bad
    with pytest.raises(UserError, match=r"cannot be merged|changed the logits"):
        merge(model)


def test_weights_that_are_no_numbers_are_not_merged(tmp_path: Path) -> None:
    """Logits do not show them: what an OFT recipe trained beside the adapter makes none."""
    save_pretrained(tiny(with_statistics(debug_config())), tmp_path / "base")
    pretrained = adapted(pretrained=tiny(oft_config()))
    trained = dict(pretrained.model.named_parameters())
    trained["action_head.model.fc2.bias"].data[0] = float("nan")
    save_adapter(pretrained, tmp_path / "adapter", tmp_path / "base")
    config = merge_command.MergeConfig(
        adapter=tmp_path / "adapter", base=tmp_path / "base", out=tmp_path / "merged"
    )
    with pytest.raises(UserError, match=r"adapter holds NaN or infinity in action_head\."):
        merge_command.main(config)
    assert not config.out.exists()


def test_a_merge_that_changes_the_logits_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora import Linear

    model, delta = adapted().model, Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: 1.01 * delta(self, name))
    with pytest.raises(UserError, match="changed the logits by"):
        merge(model)


def test_adapters_are_not_saved_as_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="save them alone"):
        save_pretrained(adapted(), tmp_path / "model")
    with pytest.raises(UserError, match="adapters already"):
        attach(adapted().model, SMALL)
    for function in (merge, lambda m: save_adapter(replace(tiny(), model=m), tmp_path / "x")):
        with pytest.raises(UserError, match="no adapters"):
            function(tiny().model)


def test_merge_command_with_a_head(tmp_path: Path) -> None:
    """What an OFT recipe adds lies beside the adapter, and ends up in the merged folder."""
    plain = tiny(with_statistics(debug_config()))
    save_pretrained(plain, tmp_path / "base")
    pretrained = tiny(oft_config())
    weights = pretrained.model.state_dict() | plain.model.state_dict()
    pretrained.model.load_state_dict(weights)
    pretrained = replace(
        adapted(pretrained=pretrained), processor=replace(plain.processor, crop=False)
    )
    expected = logits(pretrained.model)
    save_adapter(pretrained, tmp_path / "adapter", tmp_path / "base")
    config = merge_command.MergeConfig(
        adapter=tmp_path / "adapter", base=tmp_path / "base", out=tmp_path / "merged"
    )
    merged = load_pretrained(merge_command.main(config))
    torch.testing.assert_close(logits(merged.model), expected, atol=1e-4, rtol=0)
    assert merged.config == pretrained.config and merged.processor.crop is False
    for name, tensor in pretrained.model.state_dict().items():
        if name.startswith(FULL):
            assert torch.equal(merged.model.state_dict()[name], tensor), name
    (tmp_path / "run").mkdir()
    (tmp_path / "adapter").rename(tmp_path / "run/adapter")
    config = replace(config, adapter=tmp_path / "run", out=tmp_path / "again")
    again = load_pretrained(merge_command.main(config)).model.state_dict()
    assert all(torch.equal(t, again[n]) for n, t in merged.model.state_dict().items())
    with pytest.raises(UserError, match=r"a LoRA adapter .*invact vla merge"):
        load_pretrained(tmp_path / "run")
    with pytest.raises(UserError, match="is an input"):
        merge_command.main(replace(config, out=tmp_path / "base"))
    with pytest.raises(UserError, match="exists and is not empty"):
        merge_command.main(config)
    with pytest.raises(UserError, match="no adapter folder"):
        merge_command.main(replace(config, adapter=tmp_path / "base"))


class Killed(Exception):
    pass


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_killed_run_resumes_exactly(tmp_path: Path, dropout: float) -> None:
    def train(folder: Path, stop_at: int | None = None) -> OpenVLA:
        model = attach(tiny().model, replace(SMALL, targets="published", dropout=dropout), seed=4)
        loss = TokensHead(model.config, tiny().sequences).loss

        def loss_fn(model, batch, step):
            if step == stop_at:
                raise Killed
            return loss(model, batch, step)

        def batch_at(step: int) -> dict[str, torch.Tensor]:
            rng = np.random.default_rng([7, step])
            ids = torch.from_numpy(rng.integers(3, 380, (4, 10)))
            ids[:, 0] = 1
            labels = torch.full_like(ids, IGNORED)
            labels[:, -4:] = ids[:, -4:]
            images = pixels(4, model.config, seed=step)
            return {"input_ids": ids, "labels": labels, "pixel_values": images}

        folder.mkdir(exist_ok=True)
        config = LoopConfig(steps=12, batch_size=4, checkpoint_every=4, log_every=2)
        return fit(model, loss_fn, batch_at, config, folder)

    whole = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "killed", stop_at=7)
    resumed = train(tmp_path / "killed")
    fresh = attach(tiny().model, replace(SMALL, targets="published"), seed=4).state_dict()
    changed = set()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        if not torch.equal(value, fresh[name]):
            changed.add(name)
    assert changed and all(is_adapter_weight(name) for name in changed)


@needs_golden
def test_the_golden_adapter_on_a_changed_base(tmp_path: Path) -> None:
    assert GOLDEN is not None
    base = Path(shutil.copytree(GOLDEN / "openvla_tiny", tmp_path / "base"))
    weights = load_file(base / "model.safetensors")
    weights["language_model.lm_head.weight"] += 0.05
    (base / "model.safetensors").unlink()
    save_file(weights, base / "model.safetensors")
    with pytest.raises(UserError, match="another base: it carries"):
        load_on_base(base, GOLDEN / "openvla_tiny_lora")
    loaded = load_on_base(GOLDEN / "openvla_tiny", GOLDEN / "openvla_tiny_lora")
    with pytest.raises(UserError, match="adapters already"):
        load_adapter(loaded, GOLDEN / "openvla_tiny_lora")
