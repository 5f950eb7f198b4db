"""RLDS data sets of strangers: forged records, lying descriptions, and files that lie elsewhere."""

import io
import json
import resource
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from invact_vla.core.errors import UserError
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.readers import open_dataset, rlds, tfrecord
from invact_vla.data.readers.tfrecord import masked_crc32c
from tests.data.rlds_files import RECORDS, STEPS, example, features, framed, huge, png, write_rlds
from tests.odd_values import ODD_VALUES, changed

pytest.importorskip("tensorflow_datasets")
SECONDS, GROWTH_MIB = 2.0, 300


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_rlds(tmp_path)


def read(folder: Path) -> None:
    dataset = open_dataset(DatasetConfig(path=folder, gripper="open_is_one"))
    for index in range(len(dataset.episodes)):
        numbers = dataset.numbers(index)
        assert numbers.actions.shape == (STEPS, 7)
        dataset.frames(index, "agentview")


def refused(folder: Path) -> str:
    """The one line that the data set is refused with, soon and without much memory."""
    before, started = peak_mib(), time.process_time()
    with pytest.raises(UserError) as raised:
        read(folder)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 1500
    assert time.process_time() - started < SECONDS and peak_mib() - before < GROWTH_MIB
    return str(raised.value)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def change(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def test_as_it_is_it_is_read(folder: Path) -> None:
    read(folder)
    assert open_dataset(DatasetConfig(path=folder)).episodes[0].instruction == "open the drawer"


@pytest.mark.parametrize("length", [0, 1, 10**4, 3 * 10**8, 2**31, 2**63, 2**64 - 1])
@pytest.mark.parametrize("is_signed", [True, False])
def test_lengths_of_records(folder: Path, length: int, is_signed: bool) -> None:
    """With the right checksum or with that of the true length."""
    path = folder / RECORDS
    whole, forged = path.read_bytes(), struct.pack("<Q", length)
    crc = struct.pack("<I", masked_crc32c(forged)) if is_signed else whole[8:12]
    path.write_bytes(forged + crc + whole[12:])
    refused(folder)


def test_records_without_end_and_empty_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / RECORDS
    whole = path.read_bytes()
    for cut in (1, 11, 12, 40, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused(folder)
    path.write_bytes(framed(b"") * 50)
    refused(folder)
    monkeypatch.setattr(tfrecord, "MAX_RECORDS", 40)
    assert "more than 40 records" in refused(folder)


def test_messages_that_lie_about_their_parts(folder: Path) -> None:
    path = folder / RECORDS
    whole = example()
    for forged in (
        b"\x0a\xff\xff\xff\xff\x7f" + whole, b"\x0a" + b"\xff" * 30, b"\x80" * 400, whole[:-20],
        b"\x0a\x00" * 20_000, whole.replace(b"steps/action", b"steps/actio\xff"),
        whole.replace(b"steps/action", b"steps/bction"),
    ):  # fmt: skip
        path.write_bytes(framed(forged))
        refused(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"action": [0.5] * 13}, {"action": [b"x"] * STEPS}, {"action": [0.5] * 7},
        {"language_instruction": [b"x" * 5000] * STEPS}, {"language_instruction": [1e9] * STEPS},
        {"image": [b"x"] * STEPS}, {"image": [png()] * 2}, {"image": [1.0] * STEPS},
        {"image": [png(), png(8, 8)] * (STEPS // 2)}, {"state": [0.5]}, {"state": [b"x"]},
    ],
)  # fmt: skip
def test_features_of_another_kind(tmp_path: Path, changes: dict[str, Any]) -> None:
    refused(write_rlds(tmp_path, example(**changes)))


def jpeg(width: int, height: int) -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (64, 64)).save(encoded, "JPEG")
    data = encoded.getvalue()
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


@pytest.mark.parametrize(
    "picture",
    [huge(5000, 5000), huge(12_000, 12_000), huge(2**31 - 1, 2**31 - 1), jpeg(65_000, 65_000)],
    ids=["25 MP", "144 MP", "endless", "jpeg"],
)
def test_pictures_of_huge_size(
    tmp_path: Path, picture: bytes, recwarn: pytest.WarningsRecorder
) -> None:
    """Refused by our bound; what Pillow has to say of them does not reach the user."""
    refused(write_rlds(tmp_path, example(image=[picture] * STEPS)))
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]


@pytest.mark.parametrize("every", [19, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_odd_values_in_descriptions(folder: Path, name: str, every: int) -> None:
    path = folder / name
    whole, before = json.loads(path.read_text()), peak_mib()
    cases = [case for odd in ODD_VALUES for case in changed(whole, odd)]
    for case in [*cases[::every], [], {}, None, "x"]:
        change(path, case)
        started = time.process_time()
        try:
            read(folder)
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 1500, case
        assert time.process_time() - started < SECONDS, case
    assert peak_mib() - before < GROWTH_MIB


def of_action(value: dict[str, Any]) -> dict[str, Any]:
    steps = value["featuresDict"]["features"]["steps"]["sequence"]["feature"]
    return steps["featuresDict"]["features"]["action"]


@pytest.mark.parametrize(
    "shape", [["8"], ["0"], ["-1"], ["1000000000"], ["9223372036854775807"], ["7", "7"], []]
)
def test_shapes_that_are_not_those_of_the_records(folder: Path, shape: list[str]) -> None:
    value = features()
    of_action(value)["tensor"]["shape"] = {"dimensions": shape}
    change(folder / "features.json", value)
    with pytest.raises((UserError, AssertionError)):
        read(folder)
    if shape:
        refused(folder)


def test_compressed_numbers_are_not_unpacked(folder: Path) -> None:
    value = features()
    of_action(value)["tensor"]["encoding"] = "zlib"
    change(folder / "features.json", value)
    assert "compressed" in refused(folder)


@pytest.mark.parametrize("form", ["proto", "snake", "legacy", "json in proto", "proto in legacy"])
def test_no_module_is_imported_by_its_name(
    folder: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code that lies where Python looks is not run because a data set names it."""
    (tmp_path / "evil_module.py").write_text("open('ran', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    evil, value = "evil_module.Feature", features()
    legacy = {"type": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
              "content": {"steps": {"type": evil, "content": {}}}}  # fmt: skip
    action = of_action(value)
    if form == "proto":
        action["pythonClassName"] = evil
    elif form == "snake":
        action["python_class_name"] = evil
        del action["pythonClassName"]
    elif form == "legacy":
        value = legacy
    elif form == "json in proto":
        value = {"pythonClassName": legacy["type"],
                 "jsonFeature": {"json": json.dumps(legacy["content"])}}  # fmt: skip
    else:
        action["pythonClassName"] = evil
        value = {"type": legacy["type"], "content": json.dumps(value["featuresDict"]),
                 "proto_cls": "tensorflow_datasets.FeaturesDict"}  # fmt: skip
    change(folder / "features.json", value)
    refused(folder)
    assert not (tmp_path / "ran").exists() and "evil_module" not in sys.modules


@pytest.mark.parametrize(
    "split",
    ["../../x", "/etc/passwd", "**/**/**/**/**/**", "\0", "a/../../../x", "x" * 999, "[", ""],
)
def test_names_of_splits_that_lead_out(folder: Path, tmp_path: Path, split: str) -> None:
    (tmp_path / "x.tfrecord").write_bytes((folder / RECORDS).read_bytes())
    (folder / "toy-a").mkdir()
    change(folder / "dataset_info.json", {"splits": [{"name": split, "shardLengths": ["1"]}]})
    assert "does not describe splits" in refused(folder)


@pytest.mark.parametrize("name", [RECORDS, "features.json", "dataset_info.json"])
def test_links_out_of_the_folder(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert "outside of it" in refused(folder)


def test_a_version_folder_that_is_a_link(tmp_path: Path) -> None:
    folder = write_rlds(tmp_path / "hidden")
    (tmp_path / "given/toy").mkdir(parents=True)
    (tmp_path / "given/toy/1.0.0").symlink_to(folder)
    assert "outside of it" in refused(tmp_path / "given")


def test_more_steps_than_a_demonstration_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_rlds(
        tmp_path, example(action=[0.0] * 7 * 300, language_instruction=[b"x"] * 300)
    )
    monkeypatch.setattr(rlds, "MAX_STEPS", 200)
    assert "300 steps" in refused(folder)
    monkeypatch.setattr(rlds, "MAX_NUMBERS", 1 << 10)
    assert "an episode of more than 0 MiB" in refused(folder)
