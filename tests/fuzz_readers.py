"""Mutated files for every reader, in a process of its own: `python -m tests.fuzz_readers NAME CASES SEED
FOLDER`. It ends with 0 if each case was read or refused by a UserError of one line, in bounded time and
memory, and no file was opened for writing, no process started and nothing imported from the data.
"""

import io
import json
import os
import random
import resource
import shutil
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from invact_vla.core.errors import UserError
from invact_vla.core.schema import LatentLabels
from invact_vla.data.dataset import DatasetConfig, whole_episodes
from invact_vla.data.label_store import LabelIdentity, LabelStore, read_labels, write_labels
from invact_vla.data.readers import open_dataset
from invact_vla.data.readers.lerobot_writer import write_lerobot
from invact_vla.openvla.checkpoints.config_file import (
    config_to_json,
    load_model_config,
    read_config_file,
)
from invact_vla.untrusted.torch_files import read_research_pickle, read_safetensors, read_tensors
from libero_eval.env.init_states import read_init_states
from tests.data.demos import NAME, demonstration, write_hdf5
from tests.data.rlds_files import example, framed, write_rlds
from tests.openvla.small import debug_config, with_statistics
from tests.paths import REPOSITORY

SECONDS = 20.0  # of one case; most take milliseconds
GROWTH_MIB = 1500  # of the process over all cases
ODD = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\x7f",
    b"\xff" * 8,
    b"..",
    b"/",
    b"[" * 9,
    b"9" * 30,
    b"{",
    b"\n",
]
WORDS: list[Any] = [
    *("../x", "/etc/passwd", "", "x" * 999, "{a}", "{episode_index.x}"),
    *(-1, 0, 1 << 31, 1 << 62, 1e308, float("nan"), None, True, [], {}, [[]], ["a"], {"a": 1}),
]
Reader = Callable[[Path], Any]


def init_states(folder: Path) -> Reader:
    torch.save(np.arange(12.0).reshape(3, 4), folder / "x.pruned_init")
    np.save(folder / "x.npy", np.arange(12.0).reshape(3, 4))
    return read_init_states


def pt(folder: Path) -> Reader:
    state = {"a": torch.ones(3, 4), "module.b": torch.arange(5).half(), "c": torch.zeros(2, 2).T}
    torch.save(state, folder / "zip.pt")
    torch.save({"a": state, "epoch": 3}, folder / "bare.pt", _use_new_zipfile_serialization=False)

    def read(path: Path) -> None:
        doors = [read_research_pickle] + [read_tensors] * (path.name == "zip.pt")
        for found in (door(path) for door in doors):
            for tensor in found.values() if isinstance(found, dict) else ():
                if isinstance(tensor, torch.Tensor):
                    tensor.float().sum()

    return read


def safetensors(folder: Path) -> Reader:
    save_file({"a": torch.ones(3, 4), "b": torch.arange(5)}, folder / "a.safetensors")
    return read_safetensors


def label_store(folder: Path) -> Reader:
    labels, frames = LatentLabels(np.arange(40).reshape(20, 2) % 8, 8), np.arange(20)
    texts = tuple(f"word {i % 3}" for i in range(20))
    identity = LabelIdentity("lapa", "h", "synth", "d", 8, 2)
    store = LabelStore(identity, texts, texts, texts, frames, frames + 1, texts, labels)
    write_labels(folder / "l.parquet", store)
    return read_labels


def hdf5(folder: Path) -> Reader:
    write_hdf5(folder / NAME, {"demo_0": demonstration(), "demo_1": demonstration(1)})
    return read_dataset


def lerobot(folder: Path) -> Reader:
    write_hdf5(folder / NAME, {"demo_0": demonstration(), "demo_1": demonstration(1)})
    episodes = whole_episodes(open_dataset(DatasetConfig(path=folder / NAME)), True)
    write_lerobot(folder / "set", episodes)
    (folder / NAME).unlink()
    return lambda path: read_dataset(folder / "set")


def rlds(folder: Path) -> Reader:
    write_rlds(folder / "set", example(), example())
    return lambda path: read_dataset(folder / "set", "open_is_one")


def config(folder: Path) -> Reader:
    (folder / "set").mkdir()
    value = config_to_json(with_statistics(debug_config()))
    (folder / "set/config.json").write_text(json.dumps(value))
    shutil.copy(REPOSITORY / "configs/vla/model_debug.yaml", folder / "set/model.yaml")

    def read(path: Path) -> None:
        load_model_config(path) if path.suffix == ".yaml" else read_config_file(path.parent)

    return read


READERS = {
    f.__name__: f for f in (init_states, pt, safetensors, label_store, hdf5, lerobot, rlds, config)
}


def read_dataset(path: Path, gripper: str = "open_is_minus_one") -> None:
    dataset = open_dataset(DatasetConfig(path=path, gripper=gripper))
    for index in range(len(dataset.episodes)):
        dataset.numbers(index)
        for camera in dataset.cameras:
            dataset.frames(index, camera)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut, repeated or replaced by odd ones; or a value of a text replaced."""
    if data[:1] == b"{" and rng.random() < 0.6:
        return json.dumps(changed(json.loads(data), rng)).encode()
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        place, kind = rng.randrange(len(content) + 1), rng.randrange(6)
        stop = min(len(content), place + rng.choice((1, 2, 4, 8, 100)))
        if kind == 0 and place < len(content):
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            content[place:stop] = rng.choice(ODD)
        elif kind == 2:
            content[place:place] = rng.choice(ODD)
        elif kind == 3:
            del content[place:stop]
        elif kind == 4:
            content[place:place] = content[place:stop] * rng.choice((1, 3))
        elif rng.random() < 0.2:
            del content[place:]
    return bytes(content)


def changed(value: Any, rng: random.Random) -> Any:
    """The value with one of its parts replaced by an odd one."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(WORDS)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    copy: Any = value.copy()
    copy[key] = changed(value[key], rng)
    return copy


def deeper(data: bytes, rng: random.Random) -> bytes:
    """An archive or TFRecords with one record changed and all checksums right; others as `mutated`."""
    if b"steps/action" in data and data[:1] != b"{" and rng.random() < 0.7:
        return framed(mutated(example(), rng))  # a record whose checksums are right
    if data[:2] != b"PK" or rng.random() < 0.3:
        return mutated(data, rng)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(n for n in records if n.endswith("data.pkl"))
    records[name] = mutated(records[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return out.getvalue()


def guard(folder: Path) -> None:
    """End the process loudly if anything is written outside of the folder, started or imported."""

    def watch(event: str, args: tuple) -> None:
        if event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR):
            allowed = Path(args[0]).resolve().is_relative_to(folder) or args[0] == os.devnull
        else:
            allowed = event not in FORBIDDEN
        if not allowed:
            traceback.print_stack()
            os._exit(3)

    sys.addaudithook(watch)


FORBIDDEN = {
    "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen", "socket.connect",
    "pickle.find_class",
}  # fmt: skip


def main(name: str, cases: int, seed: int, folder: Path) -> None:
    read = READERS[name](folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    original = {path: path.read_bytes() for path in files}
    for path in files:
        read(path)  # as it is, it is read; and what is imported late is imported now
    guard(folder.resolve())
    before, refused = peak_mib(), 0
    for case in range(cases):
        rng = random.Random(f"{seed} {case}")
        path = rng.choice(files)
        path.unlink()  # it may be mapped
        path.write_bytes(deeper(original[path], rng))
        started = time.monotonic()
        try:
            read(path)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error).strip() and len(str(error)) < 3000, str(error)[:5000]
        except BaseException:
            print(f"case {case} of seed {seed}, {path.name}", file=sys.stderr)
            raise
        assert time.monotonic() - started < SECONDS, (case, path)
        path.unlink()
        path.write_bytes(original[path])
    assert peak_mib() - before < GROWTH_MIB, peak_mib() - before
    print(f"{name}: {refused} of {cases} refused, {peak_mib() - before:.0f} MiB more")


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
