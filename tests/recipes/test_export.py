"""`invact vla export`: the stock layout and back, adapters, OFT's files, the hub, mistakes."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from invact_vla.app.cli import main as cli
from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.schema import Observation
from invact_vla.openvla.adapters.adapter import attach, load_on_base, save_adapter
from invact_vla.openvla.adapters.lora import LoraConfig
from invact_vla.openvla.checkpoints import verify
from invact_vla.openvla.checkpoints.checkpoint import load_pretrained, load_weights, save_pretrained
from invact_vla.openvla.checkpoints.config_file import read_config
from invact_vla.openvla.config import OftHeadConfig, TextHeadConfig
from invact_vla.openvla.inference.policy import OpenVLAPolicy
from invact_vla.recipes import export, pretrain
from invact_vla.recipes.export import ExportConfig
from invact_vla.training.loop import LoopConfig
from tests.openvla.small import debug_config, tiny, tiny_folder, with_statistics
from tests.paths import GOLDEN, needs_golden
from tests.recipes.fixtures import write_clips, write_store

OFT = {"chunk": 3, "cameras": ("agentview", "wrist"), "proprio_dim": 8}


def observation() -> Observation:
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 255, (2, 64, 64, 3), np.uint8)
    state = rng.normal(size=8).astype(np.float32)
    return Observation(
        agentview=pictures[0], wrist=pictures[1], state=state, instruction="close the drawer now"
    )


def action(folder: Path) -> np.ndarray:
    return OpenVLAPolicy.from_pretrained(folder).act(observation()).values


def exported(folder: Path, out: Path, **changes: Any) -> Path:
    return export.main(ExportConfig(folder=folder, out=out, **changes))


@needs_golden
def test_a_published_folder_comes_out_as_it_went_in(tmp_path: Path) -> None:
    assert GOLDEN is not None
    start = GOLDEN / "openvla_published_tiny"
    out = exported(start, tmp_path / "out", max_shard_gb=0.002)
    assert len(list(out.glob("model-*-of-*.safetensors"))) > 1
    before, after = load_weights(start), load_weights(out)
    assert before.keys() == after.keys()
    assert all(torch.equal(t, after[n]) and t.dtype == after[n].dtype for n, t in before.items())
    old, new = (json.loads((f / "config.json").read_text()) for f in (start, out))
    fields = set(old) - {"transformers_version", "text_config"}
    assert {f: old[f] for f in fields} == {f: new[f] for f in fields}
    assert old["text_config"].items() <= new["text_config"].items()
    for name in ("inputs.safetensors", "expected.safetensors"):
        shutil.copy(start / name, out)
    assert verify.main(verify.VerifyConfig(folder=out)) == 0


@needs_golden
def test_transformers_reads_the_tokenizer(tmp_path: Path) -> None:
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    assert GOLDEN is not None
    start = GOLDEN / "openvla_published_tiny"
    out = exported(start, tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(out)
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (32000, 1, 2)
    prompt = "In: What action should the robot take to put the cup on the plate?\nOut:"
    expected = load_file(start / "inputs.safetensors")["input_ids"].flatten().tolist()
    assert expected[-1] == 29871 and theirs(prompt)["input_ids"] == expected[:-1]
    assert read_json(out / "added_tokens.json") == {"<PAD>": 32000}


def test_a_policy_acts_the_same_after_export(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "policy")
    out = exported(folder, tmp_path / "out", dtype="float32")
    assert load_weights(out).keys() == load_weights(folder).keys()
    assert np.array_equal(action(out), action(folder))
    halved = exported(folder, tmp_path / "half")
    assert {t.dtype for t in load_weights(halved).values()} == {torch.bfloat16}


def test_weights_that_are_no_numbers_are_not_passed_on(tmp_path: Path) -> None:
    pretrained = tiny(with_statistics(debug_config()))
    with torch.no_grad():
        next(pretrained.model.parameters()).view(-1)[3] = float("nan")
    save_pretrained(pretrained, tmp_path / "diverged")
    with pytest.raises(UserError, match="diverged holds NaN or infinity in "):
        exported(tmp_path / "diverged", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pretrained_run_keeps_its_map(tmp_path: Path) -> None:
    clips = write_clips(tmp_path / "clips", ["1", "2"])
    labels = write_store(tmp_path / "labels.parquet", ["1", "2"], videos=clips)
    loop = LoopConfig(steps=1, batch_size=2, log_every=1, checkpoint_every=1)
    start = tiny_folder(tmp_path / "start")
    run = pretrain.main(
        pretrain.PretrainConfig(
            out=tmp_path / "run", model=start, labels=labels, videos=clips, loop=loop
        )
    )
    out = exported(run, tmp_path / "out")
    assert read_config(out).invact.latent_token_ids == tuple(range(385, 393))
    key = read_json(run / "provenance.json")["key"]
    card = (out / "README.md").read_text()
    assert key in card and "385" in card and "- labels: " in card
    for path in out.iterdir():  # what --push_to_hub uploads
        assert str(tmp_path).encode() not in path.read_bytes(), f"{path.name} says where it lay"


@pytest.mark.parametrize("output", ["l1", "tokens"])
def test_oft_comes_out_as_its_own_files(tmp_path: Path, output: str) -> None:
    config = debug_config(head=OftHeadConfig(output=output), **OFT)  # type: ignore[arg-type]
    folder = tiny_folder(tmp_path / "policy", config)
    out = exported(folder, tmp_path / "out", dtype="float32")
    names = {p.name for p in out.glob("*.pt")}
    parts = {"proprio_projector--latest_checkpoint.pt"}
    assert names == parts | ({"action_head--latest_checkpoint.pt"} if output == "l1" else set())
    for name in names:
        state = torch.load(out / name, weights_only=True)
        assert all(key.startswith("module.") for key in state)
    from safetensors import safe_open

    with safe_open(out / "model.safetensors", "pt") as file:
        kept = set(file.keys())
    assert not [n for n in kept if n.startswith(("action_head", "proprio_projector"))]
    # how tensors lie in memory may choose another kernel, which differs in the last bits
    np.testing.assert_allclose(action(out), action(folder), rtol=0, atol=1e-6)


def test_oft_files_alone_say_what_the_model_is(tmp_path: Path) -> None:
    """As stock code reads it: config.json without what this project adds."""
    config = debug_config(head=OftHeadConfig(), **{**OFT, "chunk": 8})
    folder = tiny_folder(tmp_path / "policy", config)
    out = exported(folder, tmp_path / "out", dtype="float32")
    value = json.loads((out / "config.json").read_text())
    del value["invact"]
    (out / "config.json").write_text(json.dumps(value))
    found = read_config(out).invact
    assert (found.chunk, found.proprio_dim, found.cameras) == (8, 8, ("agentview", "wrist"))
    assert found.head == OftHeadConfig()


def test_an_adapter_is_merged_first(tmp_path: Path) -> None:
    pretrained = tiny(with_statistics(debug_config()))
    save_pretrained(pretrained, tmp_path / "base")
    attach(pretrained.model, LoraConfig(rank=2, alpha=4))
    with torch.no_grad():
        for name, parameter in pretrained.model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.2)
    save_adapter(pretrained, tmp_path / "adapter", tmp_path / "base")
    out = exported(tmp_path / "adapter", tmp_path / "out", base=tmp_path / "base", dtype="float32")
    assert load_weights(out).keys() == load_weights(tmp_path / "base").keys()
    base, both = load_pretrained(tmp_path / "base").model, load_pretrained(out).model
    through = load_on_base(tmp_path / "base", tmp_path / "adapter")
    ids = torch.tensor([[1, 20, 30, 40]])
    images = torch.randn(1, 6, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = [m(ids, pixel_values=images).logits for m in (base, both, through)]
    assert (logits[1] - logits[2]).abs().max() < 1e-4 < (logits[0] - logits[2]).abs().max()


@pytest.mark.parametrize(
    ("invact", "said"),
    [
        ({"head": TextHeadConfig()}, "actions as text"),
        ({"head": OftHeadConfig(learned_slots=True), "chunk": 2}, "learned slot embeddings"),
        ({"head": OftHeadConfig(slots_per_action=1), "chunk": 2}, "other than one slot per number"),
        ({"chunk": 4}, "chunks of 4 action tokens"),
        ({"cameras": ("agentview", "wrist")}, "a wrist camera without the oft head"),
        ({"proprio_dim": 8}, "a state token without the oft head"),
        ({"prompt": "Do {instruction}:"}, "a prompt of its own"),
    ],
)
def test_what_stock_code_would_leave_out_is_refused(
    tmp_path: Path, invact: dict[str, Any], said: str
) -> None:
    folder = tiny_folder(tmp_path / "policy", debug_config(**invact))
    with pytest.raises(UserError, match=said):
        exported(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    out = exported(folder, tmp_path / "out", beyond_stock=True, dtype="float32")
    assert said in (out / "README.md").read_text()
    assert np.array_equal(action(out), action(folder))


class Hub:
    """Stands for huggingface_hub.HfApi: keeps what is uploaded."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def create_repo(self, repo_id: str, **options: Any) -> Any:
        self.calls.append({"repo_id": repo_id, **options})
        return type("Url", (str,), {"repo_id": repo_id})(f"https://hub/{repo_id}")

    def upload_folder(self, **options: Any) -> None:
        names = {p.relative_to(options["folder_path"]).as_posix(): p.read_bytes()
                 for p in Path(options["folder_path"]).rglob("*") if p.is_file()}  # fmt: skip
        self.calls.append({**options, "files": names})


def test_push_to_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    folder = tiny_folder(tmp_path / "policy")
    exported(folder, tmp_path / "out", push_to_hub="somebody/cups", license="mit")
    made, sent = hub.calls
    assert made["repo_id"] == sent["repo_id"] == "somebody/cups" and made["private"] is True
    assert {"config.json", "model.safetensors", "README.md", "preprocessor_config.json",
            "tokenizer_config.json", "dataset_statistics.json"} <= set(sent["files"])  # fmt: skip
    card = sent["files"]["README.md"].decode()
    assert card.startswith("---\n") and "license: mit" in card and "# cups" in card
    for name, content in sent["files"].items():  # whoever trained it stays unknown
        for path in (str(tmp_path), str(Path.home()), "/home/"):
            assert path.encode() not in content, name


def test_a_failed_upload_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_args: object, **_options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", offline)
    folder = tiny_folder(tmp_path / "policy")
    with pytest.raises(UserError, match=r"cannot push to 'somebody/cups'.*no network"):
        exported(folder, tmp_path / "out", push_to_hub="somebody/cups")
    assert (tmp_path / "out/config.json").is_file(), "the export itself is there"


def test_the_card_s_python_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for invact in ({}, {"head": OftHeadConfig(), **OFT}):
        folder = tiny_folder(tmp_path / "policy", debug_config(**invact))
        out = exported(folder, tmp_path / "out", overwrite=True)
        code = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.S)[0]
        seen = observation()
        names = {"picture": seen.agentview, "hand_picture": seen.wrist, "state": seen.state}
        exec(code.replace("'FOLDER'", repr(str(out))), names)
        assert names["chunk"].values.shape == (invact.get("chunk", 1), 7)


def test_mistakes_are_named(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "policy")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    good = ExportConfig(folder=folder, out=tmp_path / "out")
    export.main(good)
    for said, config in {
        "is, or holds, an input": replace(good, out=folder),
        "holds, an input": replace(good, out=tmp_path),
        "not empty: give a new folder$": replace(good, out=tmp_path / "full", overwrite=True),
        "--overwrite true to replace it": good,
        "no adapter folder, so --base": replace(good, base=folder, overwrite=True),
        "no checkpoint folder": replace(good, folder=tmp_path / "nowhere", overwrite=True),
    }.items():
        with pytest.raises(UserError, match=said):
            export.main(config)
    assert (tmp_path / "full/notes.txt").read_text() == "mine"
    export.main(replace(good, overwrite=True))


@pytest.mark.parametrize("name", ["cups", "a/b/c", "/cups", "some one/cups", "a/"])
def test_names_on_the_hub_are_checked(tmp_path: Path, name: str, capsys) -> None:
    folder = tiny_folder(tmp_path / "policy")
    words = [str(folder), "--out", str(tmp_path / "out"), "--push_to_hub", name]
    with pytest.raises(SystemExit) as stop:
        cli(["vla", "export", *words])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "owner/name" in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
