"""README's commands: each is understood, and the real-data block runs on small data of real formats."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from invact_vla.app.cli import COMMANDS, find_command
from invact_vla.config.command import parse_config
from invact_vla.openvla.checkpoints.config_file import read_config
from tests.paths import GOLDEN, REPOSITORY, needs_golden
from tests.recipes.fixtures import write_demos

README = (REPOSITORY / "README.md").read_text().replace("\\\n", " ")
BLOCK = re.search(r"## With real data\n(.*?)\n## ", README, re.DOTALL)
REAL_DATA = [
    " ".join(line.split())
    for line in (BLOCK[1] if BLOCK else "").splitlines()
    if line.startswith("    invact ")
]
IN_README = [
    " ".join(line.split("#")[0].split())
    for line in README.splitlines()
    if line.startswith("    invact ") and "--" in line
]
HAS_PLACEHOLDER = any("..." in command for command in REAL_DATA)
# what is run in the place of days on GPUs: the same commands on configs for tests
SMALL = {
    "encoder/encoder_base.yaml": "encoder/encoder_debug_videos.yaml --out runs/encoder_base "
    "--workers 1",
    "latent/laq_ssv2.yaml": "latent/laq_debug.yaml --out runs/laq_ssv2 --workers 1",
    "latent/label_lapa_ssv2.yaml": "latent/label_lapa_debug.yaml --out runs/labels_lapa_ssv2 "
    "--labeler.type lapa --labeler.laq runs/laq_ssv2",
    "latent/label_invact_ssv2.yaml": "latent/label_invact_debug.yaml --out runs/labels_invact_ssv2 "
    "--labeler.type invact --labeler.encoder runs/encoder_base",
    "vla/pretrain_7b.yaml": "vla/pretrain_debug.yaml --out runs/pretrain_7b --loop.steps 10",
    "vla/posttrain_7b.yaml": "vla/posttrain_debug.yaml --out runs/posttrain_7b --head.type oft "
    "--chunk 8 --wrist true --proprio true --loop.steps 10",
    "libero/rollout_full.yaml": "libero/rollout_debug.yaml --out runs/rollout_full --variant x "
    "--policy.type checkpoint --max_steps 9 --episodes 1 --policy.statistics libero_10",
    "--assets.type official --assets.folder /data/libero/assets": "",
}


@pytest.mark.parametrize("command", IN_README)
def test_commands_are_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "..." in command:
        pytest.skip("a placeholder stands in this command")
    monkeypatch.chdir(REPOSITORY)
    name, rest = find_command(shlex.split(command)[1:])
    module, config, _ = COMMANDS[name]
    if config is not None:
        parse_config(getattr(importlib.import_module(module), config), rest)


def call(desk: Path, command: str) -> None:
    for large, small in SMALL.items():
        command = command.replace(large, small)
    words = [sys.executable, "-m", "invact_vla.app.cli", *shlex.split(command)[1:]]
    words = [word.replace("/data/", f"{desk}/data/").replace("/models/", f"{desk}/models/")
             if word.startswith(("/data/", "/models/")) else word for word in words]  # fmt: skip
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(desk),
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(words, cwd=desk, capture_output=True, text=True, env=environment)
    # `data check` exits with 1 where it finds something to say about random demonstrations
    fine = (0, 1) if " data check " in command else (0,)
    assert done.returncode in fine, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@needs_golden
def test_real_data_commands_run_from_a_published_folder(tmp_path: Path) -> None:
    """A folder as the original code saves it, SSV2 and Ego-Exo4D trees, LIBERO HDF5."""
    if HAS_PLACEHOLDER:
        pytest.skip("a placeholder stands in README's real-data commands")
    assert GOLDEN is not None
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    shutil.copytree(GOLDEN / "openvla_published_tiny", tmp_path / "models/openvla-7b")
    write_demos(tmp_path / "data/libero_10", steps=20)
    call(
        tmp_path,
        "invact data synth --config_path configs/data/synth_debug.yaml --out synth --workers 2",
    )
    for name in ("ssv2", "egoexo4d"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "synth" / name)
    assert len(REAL_DATA) >= 8
    for command in REAL_DATA:
        call(tmp_path, command)
    rows = tuple(range(32001, 32009))
    assert read_config(tmp_path / "runs/pretrain_7b/model").invact.latent_token_ids == rows
    assert read_config(tmp_path / "runs/exported_7b").invact.latent_token_ids == rows
    assert (tmp_path / "runs/rollout_full/episodes.jsonl").read_text().count("\n") == 1
