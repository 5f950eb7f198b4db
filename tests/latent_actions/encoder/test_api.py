"""The encoder as people use it: videos in, vectors out, folders with a card, the hub."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from invact_vla.core.errors import UserError
from invact_vla.data.video.frames import decode_all
from invact_vla.data.video.video_io import write_video
from latent_actions.encoder.commit import CommitConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.video_input import as_clips
from latent_actions.encoder.model_card import without_places
from latent_actions.train_encoder import main
from tests.latent_actions.encoder.test_train import debug


@pytest.fixture(scope="module")
def encoder():
    commit = CommitConfig(start=1, registers=2, router_width=8)
    size = {"frames": 4, "size": 16, "width": 16, "depth": 2, "heads": 2, "embedding": 8}
    torch.manual_seed(1)  # of other weights one in thirty routes the two scalings differently
    return InvActEncoder(EncoderConfig(**size, commit=commit)).eval()


@pytest.fixture(scope="module")
def video():
    return np.random.default_rng(0).integers(0, 255, (10, 32, 48, 3), np.uint8)


def test_arrays_of_clips_and_of_one_video(encoder, video):
    clips = np.stack([video[:4], video[4:8]])
    assert encoder.embed(clips).shape == (2, 8)
    one = encoder.embed(video)
    assert one.shape == (1, 8) and one.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(one), 1, atol=1e-5)
    np.testing.assert_array_equal(one, encoder.embed(video[[1, 3, 6, 8]][None]))
    assert encoder.embed(video[:1]).shape == (1, 8)  # a still: its frame is repeated


def test_a_video_file_is_one_clip_or_many(encoder, video, tmp_path):
    path = tmp_path / "long.mp4"
    write_video(path, np.repeat(video, 4, axis=0), fps=10)  # 4 s
    assert encoder.embed(path).shape == (1, 8)
    assert encoder.embed(str(path), clip_s=2.0).shape == (2, 8)
    assert encoder.embed(path, clip_s=1.5).shape == (3, 8)  # the last one is shorter
    clips = as_clips(path, 4, 16, 2.0)
    assert clips.shape == (2, 4, 16, 16, 3) and clips.dtype == np.uint8
    np.testing.assert_array_equal(encoder.embed(clips), encoder.embed(path, clip_s=2.0))


def test_a_wide_video_is_cut_alike_as_a_file_and_as_an_array(encoder, tmp_path):
    place = np.linspace(0, 3, 96) + np.linspace(0, 2, 64)[:, None]
    waves = np.sin(place + np.arange(12)[:, None, None] / 3)
    path = tmp_path / "wide.mp4"
    write_video(path, np.repeat((127 + 120 * waves)[..., None], 3, axis=-1).astype(np.uint8), 10)
    whole = decode_all(path)
    vector = encoder.embed(whole)
    np.testing.assert_array_equal(vector, encoder.embed(whole[:, :, 16:80]))
    assert (vector * encoder.embed(path)).sum() > 0.99  # they are scaled by different code
    clips = whole[None, :4]
    np.testing.assert_array_equal(encoder.embed(clips), encoder.embed(clips[:, :, :, 16:80]))


def test_a_folder_of_pictures_is_a_video(encoder, video, tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for number, frame in enumerate(video):
        Image.fromarray(frame).save(folder / f"img_{number + 1:05d}.png")
    clips = as_clips(folder, 4, video.shape[1])
    np.testing.assert_array_equal(clips, as_clips(video, 4, video.shape[1]))
    np.testing.assert_array_equal(encoder.embed(folder), encoder.embed(as_clips(folder, 4, 16)))


def test_wrong_videos_are_explained(encoder, video, tmp_path):
    with pytest.raises(UserError, match="no video file"):
        encoder.embed(tmp_path / "absent.mp4")
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(b"not a video")
    with pytest.raises(UserError, match="cannot decode"):
        encoder.embed(torn)
    with pytest.raises(ValueError, match="clip_s"):
        encoder.embed(video, clip_s=1.0)
    path = tmp_path / "v.mp4"
    write_video(path, video, fps=10)
    for clip_s in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="clip_s must be positive"):
            encoder.embed(path, clip_s=clip_s)
    with pytest.raises(UserError, match="cut into clips of 1e-09 s: 4000000000 frames"):
        encoder.embed(path, clip_s=1e-9)
    with pytest.raises(ValueError, match="batch_size must be >= 1"):
        encoder.embed(video, batch_size=0)


def channels_first(frames):
    return torch.from_numpy(frames).movedim(-1, -3)


@pytest.mark.parametrize(
    "form",
    [
        list, tuple, lambda v: [Image.fromarray(f) for f in v], torch.from_numpy, channels_first,
        lambda v: [Image.fromarray(f).convert("RGBA") for f in v], lambda v: list(channels_first(v)),
        lambda v: np.moveaxis(v, -1, 1), lambda v: v / 255, lambda v: (v / 255).astype(np.float16),
        lambda v: channels_first(v) / 255, lambda v: (channels_first(v) / 255).bfloat16(),
        lambda v: v[::-1][::-1], np.asfortranarray,
    ],
)  # fmt: skip
def test_frames_in_any_usual_form(encoder, video, form):
    np.testing.assert_array_equal(as_clips(form(video), 4, 16), as_clips(video, 4, 16))
    np.testing.assert_array_equal(encoder.embed(form(video)), encoder.embed(video))


def test_gray_pictures_and_those_of_16_bits(video):
    gray = video[..., 0]
    expected = as_clips(np.repeat(gray[..., None], 3, axis=-1), 4, 16)
    for values in (gray, gray.astype(np.uint16) * 256 + 200):
        found = as_clips([Image.fromarray(frame) for frame in values], 4, 16)
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="mode F has no known scale"):
        as_clips([Image.fromarray(gray[0].astype(np.float32))], 4, 16)


def test_lists_of_videos(encoder, video, tmp_path):
    path = tmp_path / "v.mp4"
    write_video(path, video, fps=10)
    pictures = [Image.fromarray(frame) for frame in video]
    found = encoder.embed([path, video, video[:5, :20], pictures])
    expected = [encoder.embed(v)[0] for v in (path, video, video[:5, :20], video)]
    np.testing.assert_array_equal(found, expected)
    assert encoder.embed([path, str(path)], clip_s=0.5).shape == (4, 8)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        (lambda v: v.astype(np.float32), r"float frames in \[0, 1\], got 0 to 254: divide by 255"),
        (lambda v: (v / 255 - 0.5) / 0.25, r"float frames in \[0, 1\], got -2 to"),
        (lambda v: np.full(v.shape, np.nan), r"float frames in \[0, 1\], got nan"),
        (lambda v: v.astype(np.uint16), "got uint16"),
        (lambda v: torch.from_numpy(v).long(), "got int64"),
        (lambda v: v[..., 0], r"got uint8 \(10, 32, 48\)"),
        (lambda v: np.concatenate([v, v[..., :1]], -1), r"got uint8 \(10, 32, 48, 4\)"),
        (lambda v: v[0], r"got uint8 \(32, 48, 3\)"),
        (lambda v: Image.fromarray(v[0]), r"got uint8 \(32, 48, 3\)"),
        (lambda v: [], "got none"),
        (lambda v: v[:0], "at least one frame"),
        (lambda v: v[:, :0], "at least one pixel"),
        (lambda v: [v[0], v[0, :9]], r"of one size, got \[\(9, 48, 3\), \(32, 48, 3\)\]"),
        (lambda v: [v, v[0]], "got both in one list"),
        (lambda v: [[1, 2], [3, 4]], "expected a list of frames"),
        (lambda v: None, "got object"),
        (lambda v: (frame for frame in v), "got object"),
        (lambda v: v[None, :3], r"expected \(B, 4, H, W, 3\), got \(1, 3"),
    ],
)
def test_what_are_no_frames_is_told_in_a_line(encoder, video, form, said):
    with pytest.raises(ValueError, match=said) as caught:
        encoder.embed(form(video))
    assert "\n" not in str(caught.value)


def test_the_card_is_written_by_training_and_travels(tmp_path):
    run = main(debug(tmp_path / "run"))
    text = (run / "encoder/README.md").read_text()
    head = yaml.safe_load(text.split("---")[1])
    result = yaml.safe_load((run / "retrieval.json").read_text())
    score = result["encoders"]["encoder"]["cross_scene"]
    metrics = head["model-index"][0]["results"][0]["metrics"]
    assert metrics[0]["value"] == pytest.approx(score["p_at_10"], abs=0.006)
    interval = f"[{score['low']:.1f}, {score['high']:.1f}] | {score['n']} |"
    assert interval in text and f"Chance {result['levels']['scene']['chance']:.2f}" in text
    for part in ("## Load", "## Data", "## Metrics", "## Limits", "type: sprites", "st_gumbel"):
        assert part in text
    loaded = InvActEncoder.from_pretrained(run / "encoder")
    loaded.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy/README.md").read_text() == text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/home/alice/ego/takes", "takes"), ("/home/alice", "~"), ("C:\\Users\\Alice", "~"),
        ("~/ego", "ego"), ("~alice", "~"), ("~", "~"), ("../alice/ego", "ego"), ("./ego", "ego"),
        ("runs/../../alice/ego", "ego"), ("C:\\Users\\Alice B\\ego", "ego"),
        ("\\\\host\\alice\\ego", "ego"), ("file:///home/alice/ego", "ego"),
        ("/home/alice/my data/ego", "ego"), ("root=/home/alice/ego", "root=ego"),
        ("facebook/dinov2", "facebook/dinov2"), ("data/ego", "data/ego"),
        ("left / right", "left / right"),
        ("https://host/a/b", "https://host/a/b"), ({"/home/alice/a": ["/home/alice/b"]}, {"a": ["b"]}),
    ],
)  # fmt: skip
def test_a_card_names_no_places(given, shown):
    assert without_places(given) == shown


def test_the_card_does_not_say_whose_home_it_was(tmp_path):
    home = tmp_path / "home/alice"
    run = main(replace(debug(home / "run"), frames=home / "scratch/decoded"))
    text = (run / "encoder/README.md").read_text()
    assert "alice" not in text and "frames: decoded" in text


class Hub:
    """Stands for huggingface_hub.HfApi: keeps what is uploaded."""

    def __init__(self, store):
        self.store = store

    def create_repo(self, repo_id, **options):
        from huggingface_hub import RepoUrl

        self.store["made"] = (repo_id, options)
        return RepoUrl(f"https://huggingface.co/{repo_id}")

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, **options):
        from huggingface_hub.utils import filter_repo_objects

        files = (p for p in Path(folder_path).rglob("*") if p.is_file())
        names = [p.relative_to(folder_path).as_posix() for p in files]
        kept = filter_repo_objects(names, allow_patterns=allow_patterns)
        self.store["files"] = {name: (Path(folder_path) / name).read_bytes() for name in kept}
        return f"commit of {repo_id}"


def downloader(store, folder):
    """Stands for huggingface_hub.snapshot_download: writes what was uploaded into a folder."""

    def download(name, revision=None, allow_patterns=None):
        from huggingface_hub.utils import filter_repo_objects

        assert name == "somebody/invact"
        for file in filter_repo_objects(list(store["files"]), allow_patterns=allow_patterns):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(store["files"][file])
        return str(folder)

    return download


def test_push_to_the_hub_and_back(encoder, tmp_path, monkeypatch):
    store = {}
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", lambda token: Hub(store))
    encoder.card = "# a card\n"
    assert encoder.push_to_hub("somebody/invact", private=True) == "commit of somebody/invact"
    assert store["made"][0] == "somebody/invact" and store["made"][1]["private"] is True
    assert set(store["files"]) == {"config.json", "model.safetensors", "README.md"}

    monkeypatch.setattr("huggingface_hub.snapshot_download", downloader(store, tmp_path))
    again = InvActEncoder.from_pretrained("somebody/invact")
    clip = np.zeros((1, 4, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(again.embed(clip), encoder.embed(clip))
    assert again.card == encoder.card


def test_the_model_of_frozen_features_goes_to_the_hub_too(image_model, tmp_path, monkeypatch):
    commit = CommitConfig(start=1, registers=2, router_width=8)
    size = {"frames": 4, "size": 16, "width": 16, "depth": 2, "heads": 2, "embedding": 8}
    streams = {"streams": ("diff", "features"), "fusion": "sum", "features": image_model}
    encoder = InvActEncoder(EncoderConfig(**size, **streams, commit=commit)).eval()
    store = {}
    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", lambda token: Hub(store))
    monkeypatch.setattr("huggingface_hub.snapshot_download", downloader(store, tmp_path / "far"))
    encoder.push_to_hub("somebody/invact")
    again = InvActEncoder.from_pretrained("somebody/invact")
    assert again.config.features == str(tmp_path / "far/features")
    for name, content in store["files"].items():
        assert str(Path(image_model).parent).encode() not in content, f"{name} says where it lay"
    clip = np.random.default_rng(0).integers(0, 255, (1, 4, 16, 16, 3), np.uint8)
    np.testing.assert_array_equal(again.embed(clip), encoder.embed(clip))


def test_the_hubs_refusals_are_explained(encoder, monkeypatch):
    from huggingface_hub.errors import OfflineModeIsEnabled

    def offline(*_, **__):
        raise OfflineModeIsEnabled("offline mode is enabled")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(UserError, match="the hub gave none"):
        InvActEncoder.from_pretrained("somebody/absent")
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", offline)
    with pytest.raises(UserError, match="hf auth login"):
        encoder.push_to_hub("somebody/invact")
