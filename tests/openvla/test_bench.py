"""`invact bench vla`: what it measures, says and writes. The times themselves are no test."""

import json

import pytest
import torch

from invact_vla.app.cli import main as invact
from invact_vla.core.timing import Ratio, outside, take_turns
from invact_vla.openvla.bench.action import (
    OFT,
    BenchVlaConfig,
    main,
    make_sides,
    shared_copy,
    with_tokens,
)
from invact_vla.openvla.checkpoints.config_file import load_model_config
from invact_vla.openvla.inference.int8 import has_onednn
from invact_vla.openvla.random_model import random_inputs, random_model
from tests.openvla.small import debug_config
from tests.paths import REPOSITORY

CPU = torch.device("cpu")
DEBUG = REPOSITORY / "configs/vla/model_debug.yaml"


def test_all_sides_are_measured_and_written(tmp_path, capsys) -> None:
    quantize = "int8" if has_onednn() else "none"
    out = tmp_path / "bench"
    assert (
        main(BenchVlaConfig(model=DEBUG, quantize=quantize, rounds=3, device="cpu", out=out)) == 0
    )
    found, said = json.loads((out / "bench.json").read_text()), capsys.readouterr().out
    names = ["plain generate", "ours", "OFT chunk"]
    names += ["ours, int8", "OFT chunk, int8"] if has_onednn() else []
    assert set(found["sides"]) == set(names) and all(name in said for name in names)
    ours = found["sides"]["ours"]
    assert (ours["ids_equal"], ours["actions_equal"], ours["max_difference"]) == (1, 1, 0)
    assert len(ours["seconds"]["clock"]) == found["rounds"] == 3
    assert found["sides"]["OFT chunk"]["actions"] == 8
    assert {"name", "device", "dtype", "threads", "torch", "parameters", "load"} <= set(found)
    assert found["places"] == 24 + 4 and "100.0 % of ids" in said


def test_the_shape_of_the_answers(tmp_path) -> None:
    config = with_tokens(debug_config(cameras=("agentview", "wrist"), proprio_dim=8, chunk=4))
    model = random_model(config, CPU, torch.float32)
    asked = [random_inputs(model, 1, 9, seed) for seed in (0, 1)]
    sides = make_sides(model, "none", 5)
    answers = {name: side(asked[0]) for name, side in sides.items()}
    assert answers[OFT].shape == (1, 5, 7)
    assert torch.equal(answers["plain generate"], answers["ours"])
    assert not torch.equal(sides["ours"](asked[0]), sides["ours"](asked[1]))
    copied = shared_copy(model)
    assert all(a is b for a, b in zip(model.parameters(), copied.parameters(), strict=True))


def test_random_weights_depend_on_the_seed_alone() -> None:
    config = load_model_config(DEBUG)
    one, same, other = (random_model(config, CPU, torch.bfloat16, seed) for seed in (0, 0, 1))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, same.state_dict()[name]) and tensor.isfinite().all(), name
    weight = "language_model.lm_head.weight"
    assert not torch.equal(one.state_dict()[weight], other.state_dict()[weight])
    assert not any(p.is_meta for p in one.parameters())


def test_intervals_and_turns() -> None:
    assert [outside(n) for n in (1, 5, 6, 10, 20, 100)] == [0, 0, 0, 1, 5, 39]
    ratio = Ratio.of([1.0, 2.0, 4.0], [2.0, 2.0, 2.0], amount=8)
    assert (ratio.median, ratio.low, ratio.high) == (8, 4, 16)
    order: list[tuple[int, str]] = []
    sides = {n: (lambda number, n=n: order.append((number, n))) for n in "ab"}
    timings = take_turns(sides, 2, CPU, "test")
    assert sorted(order[2:]) == [(0, "a"), (0, "b"), (1, "a"), (1, "b")]
    assert order[2][1] != order[4][1] and len(timings["a"].clock) == 2


@pytest.mark.parametrize("option", [["--rounds", "0"], ["--quantize", "int4"], ["--device", "tpu"]])
def test_bad_options_are_one_line(option: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        invact(["bench", "vla", "--model", str(DEBUG), *option])
    said = capsys.readouterr().err.strip().splitlines()
    assert stopped.value.code == 2 and option[0].removeprefix("--") in said[-1] + said[0]
