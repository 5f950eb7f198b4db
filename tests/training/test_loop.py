"""The training loop: exact resume, schedules, metrics, errors."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from invact_vla.core.errors import UserError
from invact_vla.training import device as devices
from invact_vla.training.loop import LoopConfig, fit, learning_rate_at
from invact_vla.training.optimizers import parameter_groups


def batch_at(step: int) -> torch.Tensor:
    rng = np.random.default_rng([1, step])
    return torch.tensor(rng.normal(size=(16, 4)), dtype=torch.float32)


def train(folder, stop_at=None, steps=50, seen=None, **options):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.1), torch.nn.Linear(8, 1))

    def loss_fn(model, batch, step):
        if step == stop_at:
            raise KeyboardInterrupt
        if seen is not None:
            seen.append(step)
        return (model(batch) - batch.sum(1, keepdim=True)).pow(2).mean(), {"mean": batch.mean()}

    config = LoopConfig(steps=steps, batch_size=16, checkpoint_every=10, warmup_steps=3, **options)
    folder.mkdir(exist_ok=True)
    return fit(model, loss_fn, batch_at, config, folder)


def rows(folder):
    kept = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in kept]


@pytest.mark.parametrize("options", [{}, {"ema": 0.9}, {"precision": "bf16"}])
@pytest.mark.parametrize("stop_at", [4, 10, 37])
def test_resume_is_exact(tmp_path, options, stop_at):
    whole = train(tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", stop_at=stop_at, **options)
    resumed = train(tmp_path / "killed", **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert rows(tmp_path / "whole") == rows(tmp_path / "killed")


@pytest.mark.parametrize("has_products", [True, False])
def test_bf16_is_fp32_where_a_cpu_would_emulate_it(tmp_path, caplog, monkeypatch, has_products):
    monkeypatch.setattr(devices, "multiplies_bf16", lambda device_type: has_products)
    trained = {p: train(tmp_path / p, steps=5, precision=p) for p in ("fp32", "bf16")}
    exact, other = (model.state_dict().values() for model in trained.values())
    equal = all(torch.equal(a, b) for a, b in zip(exact, other, strict=True))
    assert equal != has_products
    assert ("training in fp32 instead of bf16" in caplog.text) != has_products


def test_a_resume_point_that_lies_aside_is_found(tmp_path):
    """As a kill between the two steps of its replacement leaves it, outside of run folders too."""
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", stop_at=37)
    (tmp_path / "killed/checkpoint").rename(tmp_path / "killed/.old-checkpoint")
    steps = []
    resumed = train(tmp_path / "killed", seen=steps)
    assert steps[0] == 30
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("model.safetensors", b"", "missing or damaged"),
        ("model.safetensors", b"\xff" * 100, "missing or damaged"),
        ("model.safetensors", None, "missing or damaged"),
        ("optimizer.safetensors", b"\0" * 8, "missing or damaged"),
        ("step.json", b"[]", "names no step"),
        ("step.json", b'{"step": "7"}', "names no step"),
        ("step.json", b"{", "not valid JSON"),
        ("model.safetensors", {"0.weight": torch.zeros(8, 4)}, "of another model"),
        ("model.safetensors", {"x" * 9999: torch.zeros(8, 4)}, "of another model"),
    ],
)
def test_a_damaged_resume_point_is_one_line(tmp_path, file, content, said):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", stop_at=15)
    path = tmp_path / "run/checkpoint" / file
    path.unlink()
    if isinstance(content, dict):
        save_file(content, path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said) as raised:
        train(tmp_path / "run")
    assert file in str(raised.value) and len(str(raised.value)) < 600


def test_loss_falls_and_metrics_are_written(tmp_path):
    train(tmp_path / "run", steps=200, learning_rate=1e-2)
    written = rows(tmp_path / "run")
    assert written[-1]["loss"] < 0.5 * written[0]["loss"]
    assert written[-1]["step"] == 199 and written[-1]["samples"] == 200 * 16
    assert {"gradient_norm", "learning_rate", "mean"} <= set(written[0])


def test_a_loss_that_is_not_finite_names_the_step(tmp_path):
    model = torch.nn.Linear(4, 1)

    def loss_fn(model, batch, step):
        return model(batch).sum() * (float("nan") if step == 3 else 1.0), {}

    with pytest.raises(UserError, match="step 3"):
        fit(model, loss_fn, batch_at, LoopConfig(steps=5, batch_size=16), tmp_path)


def test_learning_rate_warms_up_and_decays():
    config = LoopConfig(steps=100, batch_size=1, learning_rate=1.0, warmup_steps=10)
    rates = [learning_rate_at(config, step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(0.0) and rates[10:] == sorted(rates[10:], reverse=True)


def test_weight_decay_spares_vectors_and_tokens():
    class Toy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.cls_token = (
                torch.nn.Linear(3, 3),
                torch.nn.Parameter(torch.ones(1, 2)),
            )

    decayed, spared = (group["params"] for group in parameter_groups(Toy(), 0.1))
    assert [p.shape for p in decayed] == [(3, 3)] and len(spared) == 2


@pytest.mark.parametrize("bad", [{"steps": 0}, {"ema": 1.0}, {"learning_rate": 0.0}])
def test_bad_configs_are_refused(bad):
    with pytest.raises(ValueError):
        LoopConfig(**{"steps": 1, "batch_size": 1, **bad})
