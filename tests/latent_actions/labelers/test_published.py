"""Published LAQ weights open as they are: LAPA's .pt file, its frames, its codes."""

import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from invact_vla.core.errors import UserError
from invact_vla.data.video.frames import decode_frames
from invact_vla.data.video.video_io import write_video
from latent_actions.labelers import LapaConfig, verify
from latent_actions.labelers.labeler import FrameSpec
from latent_actions.labelers.lapa import LapaLabeler
from latent_actions.labelers.laq.checkpoint import from_pretrained, stored_config
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer
from tests.latent_actions.labelers.test_laq import make, tiny, video
from tests.paths import GOLDEN, needs_golden


def golden_pt(folder: Path, prefix: str = "", config: bool = False) -> Path:
    """The golden LAQ as LAPA publishes weights: one .pt file; recorded inputs and outputs beside it."""
    assert GOLDEN is not None
    source = GOLDEN / "lapa_laq_tiny"
    for name in (
        "inputs.safetensors",
        "expected.safetensors",
        *(["config.json"] if config else []),
    ):
        shutil.copyfile(source / name, folder / name)
    state = {prefix + k: v for k, v in load_file(source / "model.safetensors").items()}
    torch.save(state, folder / "laq_openx.pt")
    return folder / "laq_openx.pt"


@needs_golden
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("config", [False, True])
def test_verify_takes_the_pt_file_and_its_folder(prefix: str, config: bool, tmp_path: Path) -> None:
    path = golden_pt(tmp_path, prefix, config)
    assert verify.main(verify.LaqVerifyConfig(path=path)) == 0
    assert verify.main(verify.LaqVerifyConfig(path=tmp_path)) == 0


@needs_golden
def test_the_pt_file_gives_the_codes_of_the_folder(tmp_path: Path) -> None:
    assert GOLDEN is not None
    frames = np.random.default_rng(0).integers(0, 256, (9, 2, 64, 64, 3), np.uint8)
    path = golden_pt(tmp_path, "module.")
    spec = LapaConfig(laq=path).frame_spec()
    assert spec == FrameSpec(64, "squash", required=True)
    codes = LapaLabeler(path).codes(frames)
    assert np.array_equal(codes, LapaLabeler(GOLDEN / "lapa_laq_tiny").codes(frames))
    path.write_bytes(b"\0" * path.stat().st_size)  # what was read is no view of the file
    assert len(np.unique(codes, axis=0)) > 1


@pytest.mark.parametrize("length", [1, 2, 4, 64])
def test_sizes_are_read_off_the_tensors(length: int, tmp_path: Path) -> None:
    size = 32 if length == 64 else 16
    config = tiny(lapa_compat=True, fit="squash", code_seq_len=length, image_size=size)
    model = make(config)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    assert stored_config(tmp_path / "weights.pt") == config
    loaded = from_pretrained(tmp_path)
    clips = video(2, size)
    with torch.no_grad():
        assert torch.equal(loaded(clips).reconstruction, model(clips).reconstruction)


def test_other_files_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="no LAQ of LAPA's layout"):
        from_pretrained(tmp_path / "other.pt")
    state = make(tiny(lapa_compat=True)).state_dict()
    state.pop("vq.project_out.bias")
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(UserError, match=r"missing vq\.project_out\.bias"):
        from_pretrained(tmp_path / "other.pt")
    torch.save({"model": state, "args": object}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="more than tensors"):
        from_pretrained(tmp_path / "other.pt")
    with pytest.raises(UserError, match="no LAQ at"):
        from_pretrained(tmp_path / "absent.pt")


def test_published_frames_are_required_and_own_ones_advised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    published = FrameSpec(256, "squash", required=True)
    assert published.agree("lapa", None, None) == published
    assert published.agree("lapa", 256, "squash") == published
    for size, fit in ((64, None), (None, "crop")):
        with pytest.raises(
            UserError, match=r"trained on frames of 256 px, fit squash.*--pairs.size"
        ):
            published.agree("lapa", size, fit)
    own = FrameSpec(64)
    assert own.agree("invact", 32, None) == FrameSpec(32)
    assert "64 px, fit crop; asked for are 32 px" in caplog.text


@needs_golden
def test_codes_of_a_wide_video_are_those_of_the_published_procedure(tmp_path: Path) -> None:
    """Frames opened as images, resized by torchvision, scaled by ToTensor: the same codes."""
    from torchvision import transforms

    assert GOLDEN is not None
    labeler = LapaLabeler(GOLDEN / "lapa_laq_tiny")
    resize = transforms.Compose([transforms.Resize((64, 64)), transforms.ToTensor()])
    agree = 0
    for number in range(8):
        rng = np.random.default_rng(number)
        texture = Image.fromarray(rng.integers(0, 256, (9, 16, 3), np.uint8))
        image = np.asarray(texture.resize((320, 180), Image.Resampling.BICUBIC))
        frames = np.stack([image[i : i + 120, 2 * i : 2 * i + 214] for i in range(8)])
        write_video(tmp_path / "wide.mp4", frames, 12.0)
        with av.open(str(tmp_path / "wide.mp4")) as container:
            images = [frame.to_image() for frame in container.decode(video=0)]
        pair = torch.stack([resize(images[0]), resize(images[7])], dim=1)
        ours = decode_frames(tmp_path / "wide.mp4", [0, 7], 64, "squash")
        agree += np.array_equal(labeler.codes(ours[None]), labeler.model.codes(pair[None]).numpy())
    assert agree == 8


def test_a_published_config_means_squashed_frames(tmp_path: Path) -> None:
    from latent_actions.labelers.laq.checkpoint import save_pretrained

    save_pretrained(LatentActionQuantizer(tiny()), tmp_path)
    assert stored_config(tmp_path).fit == "crop"
    assert stored_config(tmp_path, lapa_compat=True).lapa_compat
    with pytest.raises(ValueError, match="fit must be one of"):
        LaqConfig(fit="stretch")  # type: ignore[arg-type]
