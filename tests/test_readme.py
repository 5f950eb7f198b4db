"""The commands of README and docs are understood; README's chains run, as printed or at a small size."""

import importlib
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from invact_vla.app.cli import COMMANDS, find_command
from invact_vla.config.command import parse_config
from invact_vla.config.options import options
from invact_vla.openvla.checkpoints.config_file import read_config
from tests.paths import GOLDEN, REPOSITORY, needs_golden
from tests.recipes.fixtures import write_demos

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
CHAINS = [
    "Evaluate a checkpoint on LIBERO",
    "Compare LAPA's and InvAct's latents on your videos",
    "Fine-tune on your task",
]
MOST_S = 600  # of a chain on a machine that does other things too; under 180 when idle
# what is run in the place of days on GPUs: the same commands on configs for tests
SMALL = {
    "encoder/encoder_base.yaml": "encoder/encoder_debug_videos.yaml --out runs/encoder_base "
    "--workers 1",
    "latent/laq_ssv2.yaml": "latent/laq_debug.yaml --out runs/laq_ssv2 --workers 1",
    "latent/label_lapa_ssv2.yaml": "latent/label_lapa_debug.yaml --out runs/labels_lapa_ssv2 "
    "--labeler.laq runs/laq_ssv2",
    "latent/label_invact_ssv2.yaml": "latent/label_invact_debug.yaml --out runs/labels_invact_ssv2 "
    "--labeler.encoder runs/encoder_base",
    "vla/pretrain_7b.yaml": "vla/pretrain_debug.yaml --out runs/pretrain_7b --loop.steps 10",
    "vla/posttrain_7b.yaml": "vla/posttrain_debug.yaml --out runs/posttrain_7b --head.type oft "
    "--chunk 8 --wrist true --proprio true --loop.steps 10",
    "libero/rollout_full.yaml": "libero/rollout_debug.yaml --out runs/rollout_full --policy_name x "
    "--policy.type checkpoint --max_steps 9 --episodes 1 --policy.statistics libero_10",
    "--assets.type official --assets.folder /data/libero/assets": "",
}


def section(title: str) -> str:
    """A section of README, lines that end in a backslash joined."""
    found = re.search(rf"^## {title}\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)
    assert found, f"README has no section {title}"
    return found[1]


def commands_of(text: str) -> list[str]:
    """The commands in the blocks of a page, without what is said about them."""
    blocks = re.findall(r"^(?:    |\t)?(invact .*)$", text, re.MULTILINE)
    return [re.split(r"  +#?|\s#", line)[0].strip() for line in blocks]


def inline_commands(text: str) -> list[str]:
    """Commands with options in the running text."""
    spans = re.findall(r"`(invact [^`]*)`", text)
    commands = [" ".join(span.split()) for span in spans if " --" in span]
    return [command for command in commands if re.fullmatch("[a-z]+", command.split()[1])]


TEXTS = {page.name: re.sub(r"\\\n *", "", page.read_text()) for page in PAGES}
README = TEXTS["README.md"]
IN_BLOCKS = [(name, c) for name, text in TEXTS.items() for c in commands_of(text)]
IN_LINES = [(name, c) for name, text in TEXTS.items() for c in inline_commands(text)]


@pytest.mark.parametrize(("page", "command"), IN_BLOCKS)
def test_commands_are_understood(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "..." not in command, f"{page}: a command that runs has no dots in it"
    monkeypatch.chdir(REPOSITORY)
    name, rest = find_command(shlex.split(command)[1:])
    module, config, _ = COMMANDS[name]
    parse_config(getattr(importlib.import_module(module), config), rest)


@pytest.mark.parametrize(("page", "command"), IN_LINES)
def test_options_in_the_text_exist(page: str, command: str) -> None:
    name, rest = find_command(shlex.split(command)[1:])
    module, config, _ = COMMANDS[name]
    known = {option.flag for option in options(getattr(importlib.import_module(module), config))}
    flags = {word.partition("=")[0][2:] for word in rest if word.startswith("--")}
    assert flags <= known | {"config_path", "help"}, page
    if "--config_path" in rest:
        path = rest[rest.index("--config_path") + 1]
        assert list(REPOSITORY.glob(re.sub("<.*?>", "*", path))), page


def test_what_a_chain_reads_was_written_before() -> None:
    for title in [*CHAINS, "With real data", "The encoder"]:
        known: set[Path] = set()
        for command in commands_of(section(title)):
            name, rest = find_command(shlex.split(command)[1:])
            module, config, _ = COMMANDS[name]
            parsed = parse_config(getattr(importlib.import_module(module), config), rest)
            folders = [Path(word) for word in re.findall(r"\bruns/[\w/]+", repr(parsed))]
            written = getattr(parsed, "out", None)
            for folder in folders:
                if folder != written and not str(folder).startswith("runs/demo"):
                    assert known & {folder, *folder.parents}, f"{command} reads {folder}"
            known |= {written} if written else set()
        assert len(known) > 3, title


def call(desk: Path, command: str) -> None:
    words = [sys.executable, "-m", "invact_vla.app.cli", *shlex.split(command)[1:]]
    words = [word.replace("/data/", f"{desk}/data/").replace("/models/", f"{desk}/models/")
             if word.startswith(("/data/", "/models/")) else word for word in words]  # fmt: skip
    environment = {"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(desk),
                   "OMP_NUM_THREADS": "1"}  # fmt: skip
    done = subprocess.run(words, cwd=desk, capture_output=True, text=True, env=environment)
    # these exit with 1 where they find something to say about data and policies as small as this
    fine = (0, 1) if " data check " in command or " doctor " in command else (0,)
    assert done.returncode in fine, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    assert "Warning" not in done.stderr, f"{command}\n{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("title", CHAINS)
def test_a_chain_runs_as_printed(title: str, tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    started = time.monotonic()
    chain = commands_of(section(title))
    assert len(chain) >= 6
    for command in chain:
        call(tmp_path, command)
    assert time.monotonic() - started < MOST_S
    pages = {
        "Evaluate": "debug/rollout/report",
        "Compare": "debug/compare/index",
        "Fine": "mine/rollout/report",
    }
    page = tmp_path / f"runs/{pages[re.split('[ -]', title)[0]]}.html"
    assert page.stat().st_size > 2000


@pytest.mark.slow
@needs_golden
def test_real_data_commands_run_from_a_published_folder(tmp_path: Path) -> None:
    """A folder as the original code saves it, SSV2 and Ego-Exo4D trees, LIBERO HDF5."""
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
    commands = [" ".join(command.split()) for command in commands_of(section("With real data"))]
    assert len(commands) >= 8
    for command in commands:
        for large, small in SMALL.items():
            command = command.replace(large, small)
        call(tmp_path, command)
    rows = tuple(range(32001, 32009))
    assert read_config(tmp_path / "runs/pretrain_7b/model").invact.latent_token_ids == rows
    assert read_config(tmp_path / "runs/exported_7b").invact.latent_token_ids == rows
    assert (tmp_path / "runs/rollout_full/episodes.jsonl").read_text().count("\n") == 1
