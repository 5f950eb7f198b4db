"""A missing input names the command that makes it."""

from pathlib import Path

import pytest

from invact_vla.app.cli import command_of, find_command, main, maker_of, makers
from tests.paths import REPOSITORY
from tests.test_layout import CONFIG_COMMANDS, CONFIGS

RUN_BY_A_COMMAND = [
    path
    for path in CONFIGS
    if not path.stem.startswith("model_") and not path.stem.endswith("_report")
]


@pytest.mark.parametrize("path", RUN_BY_A_COMMAND, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_config_names_its_command(path: Path) -> None:
    name = path.relative_to(REPOSITORY).as_posix()
    command = next(c for p, c in CONFIG_COMMANDS.items() if name.startswith(f"configs/{p}"))
    assert command_of(path) == f"invact {command} --config_path {name}"
    assert find_command(command.split())[0] == command


def test_run_folders_of_configs_differ() -> None:
    folders = [out for out, _ in makers()]
    assert len(folders) > 40 and len(set(folders)) == len(folders)


@pytest.mark.parametrize(
    ("words", "maker"),
    [
        ("latent label --config_path configs/latent/label_invact_debug.yaml "
         "--pairs.source.type folder --pairs.source.root VIDEOS",
         "invact encoder train --config_path configs/encoder/encoder_debug_videos.yaml"),
        ("latent label --config_path configs/latent/label_lapa_cpu.yaml",
         "invact latent train --config_path configs/latent/laq_cpu.yaml"),
        ("latent train --config_path configs/latent/laq_debug.yaml",
         "invact data synth --config_path configs/data/synth_debug.yaml"),
        ("encoder train --config_path configs/encoder/encoder_cpu.yaml",
         "invact data synth --config_path configs/data/synth_cpu.yaml"),
        ("encoder eval --config_path configs/encoder/eval_synth.yaml",
         "invact encoder train --config_path configs/encoder/encoder_cpu.yaml"),
        ("encoder search --config_path configs/encoder/search_synth.yaml",
         "invact encoder train --config_path configs/encoder/encoder_cpu.yaml"),
        ("libero compare --config_path configs/libero/compare_demo.yaml",
         "invact ladder --config_path configs/ladder/demo.yaml"),
        ("encoder baseline --config_path configs/encoder/baseline_lapa.yaml",
         "invact latent train --config_path configs/latent/laq_cpu.yaml"),
        ("vla pretrain --config_path configs/vla/pretrain_debug.yaml",
         "invact vla init --config_path configs/vla/init_debug.yaml"),
        ("vla posttrain --config_path configs/vla/posttrain_cpu.yaml",
         "invact vla pretrain --config_path configs/vla/pretrain_cpu.yaml"),
        ("libero rollout --config_path configs/libero/rollout_cpu.yaml",
         "invact vla posttrain --config_path configs/vla/posttrain_cpu.yaml"),
        ("libero report runs/debug/rollout",
         "invact libero rollout --config_path configs/libero/rollout_debug.yaml"),
        ("libero compare runs/rollout_random runs/debug/rollout",
         "invact libero rollout --config_path configs/libero/rollout_random.yaml"),
        ("libero doctor runs/posttrain",
         "invact vla posttrain --config_path configs/vla/posttrain_cpu.yaml"),
        ("vla export runs/posttrain --out exported",
         "invact vla posttrain --config_path configs/vla/posttrain_cpu.yaml"),
        ("data check runs/debug/demos",
         "invact libero demos --config_path configs/libero/demos_debug.yaml"),
    ],
)  # fmt: skip
def test_a_missing_input_names_the_command_that_makes_it(
    words: str, maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    for split in ("train", "val"):
        (tmp_path / "VIDEOS" / split / "kitchen/cut").mkdir(parents=True)
        (tmp_path / "VIDEOS" / split / "kitchen/cut/1.mp4").touch()
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and said.startswith("error: ") and f"`{maker}` makes it" in said


def test_a_finished_run_does_not_make_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert maker_of(Path("runs/debug/laq/model")) is not None
    assert maker_of(Path("elsewhere/laq")) is None
    (tmp_path / "runs/debug/laq").mkdir(parents=True)
    (tmp_path / "runs/debug/laq/done.json").touch()
    assert maker_of(Path("runs/debug/laq/model")) is None
