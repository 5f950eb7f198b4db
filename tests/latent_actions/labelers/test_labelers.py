"""Every labeler of the registry, through one contract: shapes, range, repeatability, identity."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from invact_vla.core.errors import UserError
from invact_vla.core.schema import LatentLabels
from invact_vla.data.label_store import LabelIdentity, LabelStore, write_labels
from invact_vla.training.loop import LoopConfig
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.encoder_config import EncoderConfig
from latent_actions.encoder.inputs.sprites import SpriteConfig
from latent_actions.labelers import (
    FeatureDifferenceConfig,
    InvActConfig,
    LabelerConfig,
    LapaConfig,
    LapoConfig,
    MvpLamConfig,
    RandomConfig,
    ShuffledConfig,
    TrueActionsConfig,
    UnivlaLabelerConfig,
    VilaLabelerConfig,
    VptConfig,
)
from latent_actions.labelers.actions import ActionsConfig
from latent_actions.labelers.cross_view import CrossViewModel, Views
from latent_actions.labelers.features import RandomFeatureConfig
from latent_actions.labelers.labeler import (
    CODE_LENGTH,
    CODEBOOK_SIZE,
    Labeler,
    TrainingPairs,
    ends,
    subfolder_or_self,
    window,
)
from latent_actions.labelers.lapa import LapaLabeler
from latent_actions.labelers.lapo import LapoModel, LapoModelConfig, to_images
from latent_actions.labelers.laq.checkpoint import save_pretrained
from latent_actions.labelers.laq.config import LaqConfig
from latent_actions.labelers.laq.evaluate import evaluate
from latent_actions.labelers.laq.model import LatentActionQuantizer
from latent_actions.labelers.quantizers import ResidualQuantizerConfig, SplitQuantizerConfig
from latent_actions.labelers.trained import FitConfig, seeded
from latent_actions.labelers.true_actions import InverseDynamicsConfig
from latent_actions.labelers.univla.config import UnivlaConfig
from latent_actions.video.records import PairRecord

PAIRS = 24


def clips(count: int = PAIRS, frames: int = 4, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, frames, 16, 16, 3), np.uint8)


def records(count: int = PAIRS) -> list[PairRecord]:
    return [
        PairRecord(
            video_id=f"ssv2/{i // 4}", video=Path(f"{i // 4}.webm"), text="moving it",
            frame=3 * (i % 4), frame_end=3 * (i % 4) + 20, fps=12.0,
        )
        for i in range(count)
    ]  # fmt: skip


def training() -> Iterator[TrainingPairs]:
    yield TrainingPairs(clips(40, seed=1), records(40))
    yield TrainingPairs(clips(40, seed=2), records(40))


def quick() -> FitConfig:
    return FitConfig(loop=LoopConfig(steps=6, batch_size=8, log_every=2, checkpoint_every=4))


def write_actions(folder: Path) -> ActionsConfig:
    folder.mkdir()
    for number in range(10):
        velocity = np.random.default_rng(number).normal(size=(40, 7))
        np.savez(folder / f"{number}.npz", velocity=velocity)
    return ActionsConfig(folder=folder)


def store(count: int = PAIRS) -> LabelStore:
    rows = records(count)
    return LabelStore(
        identity=LabelIdentity("other", "h", "ssv2/train", "d", CODEBOOK_SIZE, CODE_LENGTH),
        video_id=tuple(r.video_id for r in rows),
        path=tuple(r.video.name for r in rows),
        video_key=tuple(r.video.name for r in rows),
        frame=np.array([r.frame for r in rows]),
        frame_end=np.array([r.frame_end for r in rows]),
        text=tuple(r.text for r in rows),
        labels=LatentLabels(np.random.default_rng(0).integers(0, 8, (count, 4)), CODEBOOK_SIZE),
    )


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LabelerConfig]:
    """A small trained part of every member, on disk, and the config that points at it."""
    folder = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    laq = LaqConfig(
        dim=16, quant_dim=4, image_size=16, patch_size=2, spatial_depth=1, temporal_depth=1,
        dim_head=8, heads=2,
    )  # fmt: skip
    save_pretrained(LatentActionQuantizer(laq), folder / "laq" / "model")
    encoder = InvActEncoder(
        EncoderConfig(
            frames=4,
            size=16,
            tubelet=2,
            patch=8,
            width=16,
            depth=3,
            heads=2,
            embedding=16,
            displacement=3,
        )
    )
    encoder.save_pretrained(folder / "encoder" / "encoder")
    write_labels(folder / "labels" / "labels_train.parquet", store())
    actions = write_actions(folder / "truth")
    lam = UnivlaConfig(
        model_dim=16, latent_dim=8, num_latents=8, context_latents=8, enc_blocks=1, dec_blocks=1,
        num_heads=2, text_dim=16,
    )  # fmt: skip
    features = RandomFeatureConfig(width=8, size=16, side=2)
    small, views = (
        LapoModelConfig(size=16, width=4, latent_dim=8),
        SpriteConfig(moments=20, val_moments=4),
    )
    return {
        "feature_difference": FeatureDifferenceConfig(features=features),
        "lapo": LapoConfig(model=small, training=quick()),
        "mvp_lam": MvpLamConfig(views=views, model=small, training=quick()),
        "vila": VilaLabelerConfig(views=views, model=small, training=quick()),
        "true_actions": TrueActionsConfig(actions=actions),
        "univla": UnivlaLabelerConfig(
            features=features, model=lam, stage_1=quick(), stage_2=quick()
        ),
        "vpt": VptConfig(
            actions=actions, model=InverseDynamicsConfig(size=16, width=4), training=quick()
        ),
        "lapa": LapaConfig(laq=folder / "laq"),
        "invact": InvActConfig(encoder=folder / "encoder"),
        "shuffled": ShuffledConfig(labels=folder / "labels"),
        "random": RandomConfig(),
    }


def built(parts: dict[str, LabelerConfig], name: str, folder: Path) -> Labeler:
    return config_of(parts, name).build(folder, training)


def config_of(parts: dict[str, LabelerConfig], name: str) -> LabelerConfig:
    """The config of a member; of one without a part above its default."""
    return parts[name] if name in parts else LabelerConfig.get_choice_class(name)()


@pytest.mark.parametrize("name", sorted(LabelerConfig.get_known_choices()))
def test_contract(name: str, parts: dict[str, LabelerConfig], tmp_path: Path) -> None:
    labeler = built(parts, name, tmp_path)
    codes = labeler.codes(clips(), records())
    assert codes.shape == (PAIRS, CODE_LENGTH) and np.issubdtype(codes.dtype, np.integer)
    assert codes.min() >= 0 and codes.max() < CODEBOOK_SIZE
    assert (labeler.code_length, labeler.codebook_size) == (CODE_LENGTH, CODEBOOK_SIZE)
    assert labeler.name == name and len(labeler.hash) == 16
    assert np.array_equal(codes, labeler.codes(clips(), records()))
    # each pair has codes of its own, which depend on it alone, and on the frames it looks at
    assert len(np.unique(codes, axis=0)) > 1
    assert np.array_equal(codes[5:9], labeler.codes(clips()[5:9], records()[5:9]))
    changed = clips()
    changed[:, {0: slice(None), 2: slice(1, -1)}.get(labeler.n_frames, slice(0))] = 0
    assert np.array_equal(codes, labeler.codes(changed, records()))
    if labeler.n_frames:  # others need the records
        assert np.array_equal(codes, labeler.codes(clips()))
        changed[:, -1] = changed[::-1, -1]
        assert not np.array_equal(codes, labeler.codes(changed))
    again = built(parts, name, tmp_path)
    assert again.hash == labeler.hash
    assert np.array_equal(codes, again.codes(clips(), records()))
    assert labeler.codes(clips(0), []).shape == (0, CODE_LENGTH)
    assert all(path.exists() for path in config_of(parts, name).parents().values())


@pytest.mark.parametrize("name", ["lapo", "vila", "mvp_lam", "univla", "vpt"])
def test_the_seed_of_a_run_decides_each_training(
    name: str, parts: dict[str, LabelerConfig]
) -> None:
    drawn = seeded(parts[name], 7)
    fits = [v for v in vars(drawn).values() if isinstance(v, FitConfig)]
    assert len(fits) == (2 if name == "univla" else 1)
    assert {fit.seed for fit in fits} == {7} and {fit.loop.steps for fit in fits} == {6}
    assert seeded(drawn, 0) == parts[name]


def test_lapa_resizes_frames_of_another_size(
    parts: dict[str, LabelerConfig], tmp_path: Path
) -> None:
    labeler = built(parts, "lapa", tmp_path)
    doubled = clips().repeat(2, axis=2).repeat(2, axis=3)
    assert (labeler.codes(doubled) == labeler.codes(clips())).mean() > 0.5  # chance 0.125
    assert isinstance(labeler, LapaLabeler)
    pairs = torch.from_numpy(ends(doubled))  # what the report measures reconstruction on
    assert np.array_equal(labeler.model.look_up(pairs)[0], labeler.codes(doubled))
    assert np.isfinite(evaluate(labeler.model, ends(doubled), seed=0).r2_true)


def test_a_number_format_is_part_of_the_labeler(
    parts: dict[str, LabelerConfig], tmp_path: Path
) -> None:
    config = parts["lapa"]
    assert isinstance(config, LapaConfig)
    exact, half = (
        LapaConfig(laq=config.laq, dtype=d).build(tmp_path, training) for d in ("auto", "bf16")
    )
    assert exact.hash == built(parts, "lapa", tmp_path).hash != half.hash  # auto: fp32 on a CPU
    assert (half.codes(clips()) == exact.codes(clips())).mean() > 0.8
    with pytest.raises(UserError, match="unknown dtype"):
        LapaConfig(laq=config.laq, dtype="int8").build(tmp_path, training)


def test_invact_keeps_its_quantizer_and_shares_it(
    parts: dict[str, LabelerConfig], tmp_path: Path
) -> None:
    labeler = built(parts, "invact", tmp_path)

    def never() -> Iterator[TrainingPairs]:
        raise AssertionError("the quantizer was fitted already")

    kept = parts["invact"].build(tmp_path, never)
    config = parts["invact"]
    assert isinstance(config, InvActConfig)
    shared = InvActConfig(encoder=config.encoder, fitted=tmp_path).build(tmp_path / "else", never)
    assert kept.hash == labeler.hash == shared.hash


def test_invact_labels_embedding_displacement_or_both(
    parts: dict[str, LabelerConfig], tmp_path: Path
) -> None:
    config = parts["invact"]
    assert isinstance(config, InvActConfig)
    plain = built(parts, "invact", tmp_path / "plain")
    alone = dataclasses.replace(config, vector="displacement", quantizer=ResidualQuantizerConfig())
    both = dataclasses.replace(config, vector="both", quantizer=SplitQuantizerConfig())
    labelers = [plain, *(c.build(tmp_path / c.vector, training) for c in (alone, both))]
    assert len({labeler.hash for labeler in labelers}) == 3
    vectors = [labeler.label(clips())[1] for labeler in labelers]
    assert [v.shape[1] for v in vectors] == [16, 3, 19]
    np.testing.assert_array_equal(np.concatenate(vectors[:2], axis=1), vectors[2])
    assert labelers[2].codes(clips()).shape == (PAIRS, CODE_LENGTH)


def test_invact_refuses_too_few_frames(parts: dict[str, LabelerConfig], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="looks at 4 frames of a pair, 2 were decoded"):
        built(parts, "invact", tmp_path).codes(clips(frames=2))


def test_shuffled_keeps_the_statistics_and_breaks_the_tie(
    parts: dict[str, LabelerConfig], tmp_path: Path
) -> None:
    codes, original = (
        built(parts, "shuffled", tmp_path).codes(clips(), records()),
        store().labels.codes,
    )
    assert sorted(map(tuple, codes)) == sorted(map(tuple, original))
    assert (codes == original).all(axis=1).mean() < 0.3


def test_shuffled_refuses_unknown_pairs_and_folders(
    parts: dict[str, LabelerConfig], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="has no label to shuffle"):
        built(parts, "shuffled", tmp_path).codes(clips(28), records(28))
    with pytest.raises(UserError, match="no labels in"):
        ShuffledConfig(labels=tmp_path).build(tmp_path, training)


def test_random_differs_between_pairs_and_seeds(tmp_path: Path) -> None:
    codes = [
        RandomConfig(seed=s).build(tmp_path, training).codes(clips(), records()) for s in (0, 1)
    ]
    assert not np.array_equal(*codes) and len(np.unique(codes[0], axis=0)) > PAIRS // 2


def test_frame_choice_and_missing_folders(tmp_path: Path) -> None:
    frames = np.arange(8, dtype=np.uint8).reshape(1, 8, 1, 1, 1)
    assert ends(frames).ravel().tolist() == [0, 7]
    assert window(frames, 8).ravel().tolist() == list(range(8))
    assert window(frames, 3).ravel().tolist() == [0, 4, 7]
    with pytest.raises(UserError, match="no folder"):
        subfolder_or_self(tmp_path / "absent", "model")


def test_without_whitening_lapo_is_as_its_authors_have_it() -> None:
    torch.manual_seed(0)
    model = LapoModel(LapoModelConfig(size=16, width=4, whiten=False)).eval()
    frames = torch.from_numpy(clips(8, 2))
    vectors = model.inverse(to_images(frames, 16)).view(8, 4, 4)
    assert torch.equal(model.quantizer.codes(vectors), model.codes(frames))
    assert not any("whiten" in name for name in model.state_dict())


@pytest.mark.parametrize("kind", ["mvp_lam", "vila"])
def test_the_loss_over_views_rewards_codes_that_agree(kind: Views) -> None:
    torch.manual_seed(0)
    model = CrossViewModel(LapoModelConfig(size=16, width=4, latent_dim=8), kind).eval()
    frames, other = (torch.from_numpy(clips(8, 2, seed)) for seed in (0, 1))
    same = {"frames": frames, "other": frames, "moment": torch.arange(8)}
    step = model.training_step(same)
    metric = "contrast" if kind == "vila" else "r2_vs_copy_crossed"
    assert step.quantized.codes.shape == (16, 4) and torch.isfinite(step.loss)
    apart = model.training_step({**same, "other": other}).metrics[metric]
    if kind == "vila":
        assert step.metrics[metric] < apart
    else:  # the same view twice: the code of the other is one's own
        assert step.metrics[metric] == pytest.approx(float(step.metrics["r2_vs_copy"]), abs=1e-5)


def test_views_without_synchronized_moments_are_refused(tmp_path: Path) -> None:
    class Lonely(SpriteConfig):
        def table(self, *args, **options):
            table = super().table(*args, **options)
            return dataclasses.replace(table, view=("exo",) * len(table.view))

    with pytest.raises(UserError, match="needs moments that an ego and an exo camera saw"):
        MvpLamConfig(views=Lonely(moments=4, val_moments=1)).build(tmp_path, training)
