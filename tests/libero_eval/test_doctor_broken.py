"""A healthy checkpoint, ten ways to break it, and what the doctor says: the fault, nothing else."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from safetensors.torch import load_file, save_file

from libero_eval.doctor.checks import CHECKS
from libero_eval.doctor.command import DoctorConfig, main
from tests.libero_eval import healthy

pytestmark = pytest.mark.slow
WORLD = ("render", "orientation", "replay")  # look at the setup alone, asked of the healthy one
BRIDGE = {  # BridgeData V2's quantiles, from openvla-7b's norm_stats, rounded
    "q01": [-0.029, -0.042, -0.026, -0.081, -0.093, -0.207, 0.0],
    "q99": [0.028, 0.041, 0.040, 0.082, 0.078, 0.204, 1.0],
}


def edit(folder: Path, name: str, change: Callable[[Any], None]) -> None:
    """Change a JSON file of a checkpoint."""
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))


def declare(**invact: Any) -> Callable[[Path], None]:
    """Declare something else in config.json."""
    return lambda folder: edit(folder, "config.json", lambda c: c["invact"].update(invact))


def no_statistics(folder: Path) -> None:
    """As after a conversion that kept the weights only."""
    (folder / "dataset_statistics.json").unlink()
    edit(folder, "config.json", lambda c: c.update(norm_stats={}))


def other_statistics(folder: Path) -> None:
    """Another data set's quantiles under this one's name."""
    edit(folder, "dataset_statistics.json", lambda s: s["libero_10"]["action"].update(BRIDGE))


def weights(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change tensors of the checkpoint."""

    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    return apply


def mean_embeddings(tensors: dict[str, Any]) -> None:
    """As after a resize of the vocabulary that re-initialized the rows of words with their mean."""
    rows = tensors["language_model.model.embed_tokens.weight"]
    words = healthy.PIECES - 256
    rows[3:words] = rows[3:words].mean(0)


def no_projector(tensors: dict[str, Any]) -> None:
    """As after a merge that left out the projector."""
    tensors["projector.fc3.weight"].zero_()


@dataclass(frozen=True)
class Fault:
    """A mistake, which checks must fail (and no others), and words that name it."""

    spoil: Callable[[Path], None]
    fails: set[str]
    named: str
    changes: dict[str, Any]


def fault(
    fails: str, named: str, spoil: Callable[[Path], None] = lambda folder: None, **changes: Any
) -> Fault:
    return Fault(spoil, set(fails.split()), named, changes)


FAULTS = {
    "flipped image": fault(
        "variants", "agentview upside down", declare(image_rotation=["flip", "none"])
    ),
    "gripper sign": fault("variants", "gripper sign inverted", declare(gripper_open=0)),
    "missing statistics": fault("statistics", "no action statistics", no_statistics),
    "wrong statistics": fault("quantiles variants", "another data set's", other_statistics),
    "rotated wrist": fault(
        "variants", "wrist turned by 180 degrees", declare(image_rotation=["none", "rotate180"])
    ),
    "text ignored": fault("words", "instruction is ignored", weights(mean_embeddings)),
    "no instruction in the prompt": fault(
        "prompt variants",
        "words are never shown",
        declare(prompt="In: What should the robot do?\nOut:"),
    ),
    "image ignored": fault("image", "agentview frame is ignored", weights(no_projector)),
    "wrong horizon": fault("horizon", "the horizon of libero_spatial", max_steps=220),
    "wrong chunk": fault("chunk", "chunks of 2", declare(chunk=4)),
    "wrong camera": fault("variants", "cameras swapped", declare(cameras=["wrist", "agentview"])),
    "camera not shown": fault("cameras", "wrist is not shown", protocol="libero_10/openvla"),
}


@pytest.fixture(scope="session")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return healthy.demonstrations(tmp_path_factory.mktemp("doctor") / "demos")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, demos: Path) -> Path:
    return healthy.checkpoint(tmp_path_factory.mktemp("doctor") / "trained", demos)


def run_checks(config: DoctorConfig) -> tuple[int, dict[str, Any]]:
    """(exit code, doctor.json)."""
    code = main(config)
    return code, json.loads((config.out / "doctor.json").read_text())


def config_of(folder: Path, demos: Path, out: Path) -> DoctorConfig:
    return DoctorConfig(subject=folder, demos=demos, protocol="libero_10/oft", out=out)


def test_a_healthy_one_passes_everything(trained: Path, demos: Path, tmp_path: Path) -> None:
    code, report = run_checks(config_of(trained, demos, tmp_path))
    assert code == 0 and report["healthy"]
    status = {name: check["status"] for name, check in report["checks"].items()}
    assert status.pop("training") == "skip"  # it lies in no run folder
    assert set(status.values()) == {"pass"} and len(status) == len(CHECKS) - 1, report["checks"]
    assert report["seconds"] < 120


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_one_is_named(name: str, trained: Path, demos: Path, tmp_path: Path) -> None:
    broken = FAULTS[name]
    folder = tmp_path / "broken"
    shutil.copytree(trained, folder)
    broken.spoil(folder)
    asked = tuple(check.name for check in CHECKS if check.name not in WORLD)
    config = replace(config_of(folder, demos, tmp_path / "out"), checks=asked, **broken.changes)
    code, report = run_checks(config)
    assert set(report["failed"]) == broken.fails and code == 1
    text = json.dumps([report["checks"][check] for check in broken.fails])
    assert broken.named in text


def test_stale_mujoco_is_named(
    demos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version's metadata comes first on the path, as a second installation leaves it."""
    stale = tmp_path / "site" / "mujoco-3.1.6.dist-info"
    stale.mkdir(parents=True)
    (stale / "METADATA").write_text("Metadata-Version: 2.1\nName: mujoco\nVersion: 3.1.6\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    code, report = run_checks(DoctorConfig(demos=demos, out=tmp_path / "out"))
    assert code == 1 and report["failed"] == ["versions"]
    check = report["checks"]["versions"]
    assert check["found"] == "mujoco 3.1.6" and "mujoco==3.3.2" in check["advice"]


@pytest.mark.parametrize(
    ("dataset", "change", "fails", "named"),
    [
        ("obs/agentview_rgb", lambda a: a[:, ::-1], "orientation", "stored upside down"),
        ("obs/eye_in_hand_rgb", lambda a: a[:, ::-1, ::-1], "orientation", "turned by 180"),
        ("actions", lambda a: a * [1, 1, 1, 1, 1, 1, -1], "conventions", "inverted gripper"),
        ("actions", lambda a: a * [0.6, 0.6, 1, 1, 1, 1, 1], "replay", "other physics"),
    ],
)
def test_broken_demonstrations_are_named(
    dataset: str, change: Callable[[Any], Any], fails: str, named: str, demos: Path, tmp_path: Path
) -> None:
    import h5py

    source = sorted(demos.glob("*.hdf5"))[0]
    broken = Path(shutil.copy(source, tmp_path / source.name))
    with h5py.File(broken, "r+") as file:
        group: Any = file["data/demo_0"]
        stored = group[dataset]
        stored[...] = change(stored[()])
    checks = ("gl", "conventions", "orientation", "replay")
    code, report = run_checks(DoctorConfig(demos=broken, out=tmp_path / "out", checks=checks))
    assert code == 1 and report["failed"] == [fails]
    assert named in json.dumps(report["checks"][fails])
