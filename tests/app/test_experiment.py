"""The scheduler: order, skipping, resuming, failure; with stages that are small scripts."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from invact_vla.app.cli import COMMANDS
from invact_vla.app.experiment import ExperimentConfig, Scheduler, StageSpec, find_config, main
from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from tests.paths import REPOSITORY

SCRIPT = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1]); folder.mkdir(parents=True, exist_ok=True)
count = folder / "count"
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
if "fail" in sys.argv[2:]: sys.exit("bad luck")
(folder / "done.json").write_text(json.dumps({"key": "k" + " ".join(sys.argv[2:])}))
"""


class Scripted(Scheduler):
    """Stages that count how often they ran."""

    def _command(self, name: str) -> list[str]:
        out = self.config.out / name
        return [sys.executable, "-c", SCRIPT, str(out), *self.config.stages[name].settings.values()]


def make(out: Path, **settings: str) -> ExperimentConfig:
    stages = {
        "report": StageSpec(command="report", settings={"a": "{left}", "b": "{right}"}),
        "left": StageSpec(command="x", settings={"from": "{root}", **settings}),
        "right": StageSpec(command="x", settings={"from": "{root}"}, cores=5),
        "root": StageSpec(command="x"),
    }
    out.mkdir(exist_ok=True)
    return ExperimentConfig(stages=stages, out=out)


def counts(out: Path) -> dict[str, int]:
    return {p.parent.name: int(p.read_text()) for p in out.glob("*/count")}


def test_stages_run_once_in_order_and_again_only_where_something_changed(tmp_path):
    Scripted(make(tmp_path)).run()
    assert counts(tmp_path) == {"root": 1, "left": 1, "right": 1, "report": 1}
    Scripted(make(tmp_path)).run()
    assert counts(tmp_path) == {"root": 1, "left": 1, "right": 1, "report": 1}
    Scripted(make(tmp_path, size="2")).run()
    assert counts(tmp_path) == {"root": 1, "left": 2, "right": 1, "report": 2}
    (tmp_path / "right/done.json").unlink()
    Scripted(make(tmp_path, size="2")).run()
    assert counts(tmp_path)["right"] == 2


def test_a_failing_stage_is_named_and_what_finished_is_kept(tmp_path, capsys):
    with pytest.raises(UserError, match="stage left ended with code 1"):
        Scripted(make(tmp_path, mode="fail")).run()
    assert "bad luck" in capsys.readouterr().err
    assert read_json(tmp_path / "root/done.json") and not (tmp_path / "report").exists()


def test_what_a_stage_said_last_is_shown_without_codes_for_a_terminal(tmp_path):
    scheduler = Scripted(make(tmp_path))
    scheduler._log("root").parent.mkdir()
    scheduler._log("root").write_text("one\rdecode: 5/7\n\x1b[A\r  \x1b[0;1m\n")
    assert scheduler._progress("root") == "decode: 5/7"


def test_unknown_inputs_are_refused():
    with pytest.raises(ValueError, match="needs"):
        ExperimentConfig(stages={"a": StageSpec(command="x", settings={"from": "{b}"})})


def test_stages_that_wait_for_each_other_are_refused():
    waiting = {n: StageSpec(command="x", settings={"from": f"{{{m}}}"}) for n, m in ("ab", "ba")}
    with pytest.raises(ValueError, match=r"a -> b -> a|b -> a -> b"):
        ExperimentConfig(stages=waiting)
    with pytest.raises(ValueError, match="a -> a"):
        ExperimentConfig(stages={"a": StageSpec(command="x", settings={"from": "{a}"})})
    with pytest.raises(ValueError, match="at least one stage"):
        ExperimentConfig(stages={})


def test_a_config_that_is_missing_is_named_before_anything_runs(tmp_path):
    stages = {
        "a": StageSpec(command="libero plan"),
        "b": StageSpec(command="x", config=Path("configs/no.yaml"), settings={"from": "{a}"}),
    }
    with pytest.raises(UserError, match=r"no config file configs/no\.yaml"):
        main(ExperimentConfig(stages=stages, out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_stage_is_repeated_over_seeds():
    stages = {
        "data": StageSpec(command="x"),
        "train": StageSpec(command="t", settings={"data": "{data}"}, seeds=(0, 2)),
        "table": StageSpec(
            command="c", settings={"variants": "{ours: [{train}], first: [{train_0}]}"}
        ),
    }
    found = ExperimentConfig(stages=stages).stages
    assert list(found) == ["data", "train_0", "train_2", "table"]
    assert found["train_2"] == StageSpec(command="t", settings={"data": "{data}", "seed": "2"})
    assert found["table"].settings == {
        "variants": "{ours: [{train_0}, {train_2}], first: [{train_0}]}"
    }
    assert found["table"].needs == {"train_0", "train_2"}
    assert ExperimentConfig(stages=found).stages == found


def test_repetitions_have_names_of_their_own():
    stages = {"a_1": StageSpec(command="x"), "a": StageSpec(command="x", seeds=(1,))}
    with pytest.raises(ValueError, match="two stages are called a_1"):
        ExperimentConfig(stages=stages)
    del stages["a_1"]
    stages["b"] = StageSpec(command="x", settings={"from": "{a_7}"})
    with pytest.raises(ValueError, match="needs"):
        ExperimentConfig(stages=stages)


def test_a_repetition_takes_the_one_of_its_own_seed():
    stages = {
        "train": StageSpec(command="t", seeds=(0, 2)),
        "label": StageSpec(command="l", settings={"from": "{train_seed}"}, seeds=(2, 0)),
    }
    found = ExperimentConfig(stages=stages).stages
    assert [found[f"label_{seed}"].settings["from"] for seed in (0, 2)] == [
        "{train_0}",
        "{train_2}",
    ]
    with pytest.raises(ValueError, match=r"needs .*train_1"):
        ExperimentConfig(stages={**stages, "label": replace(stages["label"], seeds=(1,))})


@pytest.mark.parametrize("experiment_name", ["labels", "retrieval"])
def test_every_stage_of_an_experiment_parses(experiment_name):
    """Settings and configs of each stage make a config; comparisons get three seeds of all variants."""
    path = REPOSITORY / "configs" / "ladder" / f"{experiment_name}.yaml"
    experiment = parse_config(ExperimentConfig, ["--config_path", str(path)])
    root = Path("runs") / experiment_name
    scheduler = Scheduler(experiment)
    for name, stage in experiment.stages.items():
        module, config_name, _ = COMMANDS[stage.command]
        words = scheduler._command(name)[3 + len(stage.command.split()) :]
        config = parse_config(getattr(importlib.import_module(module), str(config_name)), words)
        assert config.out == root / name
        if stage.command == "encoder compare":
            seeds = {
                variant: len(runs)
                for variant, runs in {**config.variants, **config.baselines}.items()
            }
            assert set(seeds.values()) == {3}
            assert config.variants["invact"] == tuple(
                Path(f"runs/retrieval/invact_{n}") for n in range(3)
            )


EXPERIMENTS = [p for p in (REPOSITORY / "configs/ladder").glob("*.yaml") if "report" not in p.stem]


@pytest.mark.parametrize("path", sorted(EXPERIMENTS), ids=lambda p: p.stem)
def test_every_experiment_names_configs_that_exist(path):
    experiment = parse_config(ExperimentConfig, ["--config_path", str(path)])
    for stage in experiment.stages.values():
        if stage.config is not None:
            find_config(stage.config)
