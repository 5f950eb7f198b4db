"""The whole experiment at debug size: killed again and again, it ends with the same label stores."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from invact_vla.core.files import hash_file
from tests.paths import REPOSITORY

pytestmark = pytest.mark.slow
STORES = ("label_invact", "label_lapa", "label_shuffled")
# killed when the log of a stage says this
MOMENTS = {"synth": r"synth: +\d", "laq": r"train LAQ: +[1-9]", "label_invact": ".", "demos": "."}


def experiment(out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "invact_vla.app.cli", "ladder", "--out", str(out)]
    command += ["--config_path", str(REPOSITORY / "configs/ladder/debug.yaml")]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)


def kill_when(process: subprocess.Popen, log: Path, pattern: str, patience_s: float = 300) -> None:
    """SIGKILL the experiment as soon as a stage's log matches."""
    deadline = time.monotonic() + patience_s
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and re.search(pattern, log.read_text(errors="replace")):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def labels(out: Path) -> dict[str, str]:
    files = [
        out / name / f"labels_{split}.parquet" for name in STORES for split in ("train", "val")
    ]
    return {f"{f.parent.name}/{f.name}": hash_file(f) for f in files}


def test_an_experiment_killed_in_many_stages_ends_with_the_same_labels(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert experiment(whole).wait() == 0
    assert (whole / "report/report.html").stat().st_size > 10_000
    for stage, pattern in MOMENTS.items():
        kill_when(experiment(killed), killed / f"logs/{stage}.log", pattern)
    assert experiment(killed).wait() == 0
    assert labels(whole) == labels(killed)
    episodes = [p / "rollout_demonstrator/episodes.jsonl" for p in (whole, killed)]
    counts = [len(path.read_text().splitlines()) for path in episodes]
    assert counts[0] == counts[1] > 0

    started = time.monotonic()
    assert experiment(whole).wait() == 0
    assert time.monotonic() - started < 30, "a finished experiment is skipped at once"
