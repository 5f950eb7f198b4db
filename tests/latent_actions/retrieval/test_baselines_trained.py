"""Baselines trained here (InvAct's network with other losses, LAPA, VILA), the check command, and
the registry's YAML.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.training.loop import LoopConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.sprites import SpriteConfig
from latent_actions.encoder.losses import BatchLabels
from latent_actions.encoder.model import Batch
from latent_actions.encoder.train import EncoderTrainConfig, train
from latent_actions.labelers.laq.checkpoint import save_pretrained
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.labelers.laq.task import to_video
from latent_actions.retrieval.baselines import (
    BaselineConfig,
    LapaBaselineConfig,
    TrainedConfig,
    VilaConfig,
    load_baseline,
    name_of,
    vila,
)
from latent_actions.retrieval.baselines.check import (
    BaselineCheckConfig,
    check,
    draw_clips,
)
from latent_actions.retrieval.baselines.check import main as check_main
from latent_actions.retrieval.baselines.vila import Vila, VilaShape, VilaTrainConfig
from tests.paths import REPOSITORY

CONFIGS = sorted((REPOSITORY / "configs" / "encoder").glob("baseline_*.yaml"))
SHAPE = VilaShape(size=16, frames=4, channels=8, width=16, latent=8, offset=2)
SPRITES = SpriteConfig(moments=48, val_moments=16, train_scenes=4, val_scenes=2, size=24)


def clips(count: int = 3, frames: int = 4, size: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, frames, size, size, 3), dtype=np.uint8)


def test_trained_gives_the_encoders_own_vectors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = InvActEncoder(
        EncoderConfig(frames=4, size=16, patch=8, width=16, depth=3, heads=2, embedding=8)
    )
    encoder.save_pretrained(tmp_path / "encoder")
    found = load_baseline(TrainedConfig(encoder=tmp_path))(clips())
    assert np.allclose(found, encoder.embed(clips()), atol=1e-5)


def test_lapa_is_the_mean_code_difference_of_neighbors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LatentActionQuantizer(
        LaqConfig(dim=16, quant_dim=8, image_size=16, patch_size=2, spatial_depth=1,
                  temporal_depth=1, dim_head=8, heads=2)
    ).eval()  # fmt: skip
    save_pretrained(model, tmp_path / "model")
    found = load_baseline(LapaBaselineConfig(laq=tmp_path, frames=4))(clips())
    with torch.no_grad():
        deltas = [model(to_video(clips()[:, t : t + 2])).quantized.delta for t in range(3)]
    mean = torch.stack(deltas).mean(dim=0).flatten(1)
    assert np.allclose(found, torch.nn.functional.normalize(mean, dim=-1).numpy(), atol=1e-4)
    each = load_baseline(LapaBaselineConfig(laq=tmp_path, frames=4, pool="concat"))(clips())
    assert each.shape == (3, 3 * found.shape[1])


@pytest.mark.parametrize("name", ["vi_encoder", "ego_exo_language", "supcon"])
def test_training_configs_train(name: str, tmp_path: Path) -> None:
    """Each YAML's loss and sampler, for two steps of a small plain ViT on sprites."""
    path = REPOSITORY / "configs" / "encoder" / f"baseline_train_{name}.yaml"
    config = parse_config(EncoderTrainConfig, ["--config_path", str(path)])
    assert config.model.commit.estimator == "none"
    small = replace(config.model, frames=4, tubelet=4, size=16, width=16, depth=2, heads=2)
    small = replace(small, embedding=8)
    loop = LoopConfig(steps=2, batch_size=16, log_every=1)
    config = replace(config, out=tmp_path, data=SPRITES, model=small, loop=loop)
    table = SPRITES.table(4, tmp_path, 1)
    before = InvActEncoder(small).state_dict().keys()
    model = train(config, table, tmp_path)
    model.encoder.save_pretrained(tmp_path / "encoder")
    assert model.encoder.state_dict().keys() == before and not model.encoder.commit_blocks
    assert load_baseline(TrainedConfig(encoder=tmp_path))(clips()).shape == (3, 8)


def vila_config(out: Path) -> VilaTrainConfig:
    return VilaTrainConfig(out=out, data=SPRITES, model=SHAPE,
                           loop=LoopConfig(steps=4, batch_size=16, log_every=2))  # fmt: skip


def test_vila_trains_and_embeds(tmp_path: Path) -> None:
    run = vila.main(vila_config(tmp_path / "run"))
    vectors = load_baseline(VilaConfig(run=run))(clips())
    assert vectors.shape == (3, 8) and np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    backwards = load_baseline(VilaConfig(run=run))(clips()[:, ::-1])
    assert np.abs(vectors - backwards).max() > 1e-3  # it sees order
    rows = (run / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 2 and '"prediction"' in rows[0] and '"contrast"' in rows[0]


def test_vilas_copy_follows_and_is_not_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Vila(SHAPE)
    ids = torch.tensor([0, 0, 1, 1])
    items = BatchLabels(ids, ids, ids, torch.tensor([0, 1, 0, 1]), ids)
    batch = Batch(torch.rand(4, 4, 16, 16, 3), items, ids, torch.zeros(4, 1))
    loss, _ = model(batch)
    loss.backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    parts = {name.split(".")[0] for name in trained}
    assert parts == {"encoder", "inverse", "forward_model"}
    before = [p.clone() for p in model.target.parameters()]
    with torch.no_grad():
        for parameter in model.encoder.parameters():
            parameter += 1
    model.follow()
    for old, new in zip(before, model.target.parameters(), strict=True):
        assert torch.allclose(new, old + 0.01, atol=1e-5)


def test_vilas_contrast_by_loops() -> None:
    torch.manual_seed(0)
    model, action, verb = Vila(SHAPE), torch.randn(5, 8), torch.tensor([0, 0, 0, 1, 2])
    unit = torch.nn.functional.normalize(action, dim=-1)
    terms = []
    for i in range(3):  # the two others have no partner
        weights = [float(torch.exp(unit[i] @ unit[j] / 0.1)) for j in range(5) if j != i]
        same = [float(torch.exp(unit[i] @ unit[j] / 0.1)) for j in range(3) if j != i]
        terms.append(np.log(sum(weights)) - np.log(sum(same)))
    assert float(model._contrast(action, verb)) == pytest.approx(np.mean(terms), rel=1e-4)
    assert float(model._contrast(action, torch.arange(5))) == 0


def test_a_folder_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"color": 3}')
    with pytest.raises(UserError, match="not that of a VILA"):
        load_baseline(VilaConfig(run=tmp_path))


def test_the_check_command_says_what_it_saw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Vila(SHAPE).save_pretrained(tmp_path)
    config = BaselineCheckConfig(baseline=VilaConfig(run=tmp_path), frames=4, size=32)
    found = check_main(config)
    assert found["dimensions"] == 8 and found["ms_per_clip"] > 0
    assert capsys.readouterr().out.startswith("vila: dimensions 8, ")
    drawn = draw_clips(config)
    assert drawn.shape == (4, 4, 32, 32, 3) and (drawn[:, 0] != drawn[:, -1]).any()
    assert np.array_equal(drawn, draw_clips(config))
    assert not np.array_equal(drawn, draw_clips(replace(config, seed=1)))


def test_the_check_knows_blindness_to_order() -> None:
    drawn = draw_clips(BaselineCheckConfig(baseline=VilaConfig(run=Path("x"))))

    def unit(vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def averaged(frames: np.ndarray) -> np.ndarray:
        return unit(frames.mean(axis=1).reshape(len(frames), -1))

    def motion(frames: np.ndarray) -> np.ndarray:
        half = frames.shape[1] // 2
        difference = frames[:, half:].mean(axis=1) - frames[:, :half].mean(axis=1)
        return unit(difference.reshape(len(frames), -1))

    assert check(averaged, drawn)["reversed"] == pytest.approx(1)
    assert check(motion, drawn)["reversed"] == pytest.approx(-1, abs=1e-6)
    with pytest.raises(UserError, match="the same vector"):
        check(lambda frames: np.ones((len(frames), 1)), drawn)
    with pytest.raises(UserError, match="not finite"):
        check(lambda frames: np.full((len(frames), 2), np.nan), drawn)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_parse(path: Path) -> None:
    training = path.stem.startswith("baseline_train_")
    kind = EncoderTrainConfig if training else BaselineCheckConfig
    kind = VilaTrainConfig if path.stem == "baseline_train_vila" else kind
    config = parse_config(kind, ["--config_path", str(path)])
    if not training:
        assert name_of(config.baseline) == yaml.safe_load(path.read_text())["baseline"]["type"]


def test_every_member_has_a_config() -> None:
    used = {yaml.safe_load(p.read_text()).get("baseline", {}).get("type") for p in CONFIGS}
    assert used - {None} == set(BaselineConfig.get_known_choices())
