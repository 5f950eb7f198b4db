"""10,000 mutated files: each is read, or refused in one line; see fuzz_readers.py."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz_readers import READERS
from tests.paths import REPOSITORY

CASES = {"init_states": 2000, "pt": 2500, "safetensors": 1000, "label_store": 1500, "hdf5": 1000,
         "lerobot": 1000, "rlds": 1000, "config": 1500}  # fmt: skip


def fuzz(name: str, cases: int, seed: int, folder: Path) -> None:
    folder.mkdir()
    command = [sys.executable, "-m", "tests.fuzz_readers", name, str(cases), str(seed), str(folder)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-4000:]}"


@pytest.mark.slow
@pytest.mark.stress
@pytest.mark.parametrize("name", READERS)
def test_mutated_files(name: str, tmp_path: Path) -> None:
    fuzz(name, CASES[name], 0, tmp_path / "data")


def test_some_mutated_files(tmp_path: Path) -> None:
    fuzz("init_states", 60, 1, tmp_path / "data")


def test_there_are_ten_thousand_cases() -> None:
    assert CASES.keys() == READERS.keys() and sum(CASES.values()) >= 10_000
