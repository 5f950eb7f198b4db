"""`invact vla pretrain`: any OpenVLA folder is a start, mistakes are found first, the model is safe."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json, write_json
from invact_vla.core.schema import Observation
from invact_vla.data.label_store import read_labels
from invact_vla.openvla.checkpoints.checkpoint import load_pretrained, load_weights, save_pretrained
from invact_vla.openvla.checkpoints.config_file import read_config, with_latent_tokens
from invact_vla.openvla.inference.policy import OpenVLAPolicy
from invact_vla.openvla.vocabulary import give_latent_tokens
from invact_vla.recipes import posttrain, pretrain
from invact_vla.recipes.pretrain import (
    LatentExamples,
    PretrainConfig,
    first_frames,
    most_frequent_codes,
)
from invact_vla.recipes.train import Batches
from invact_vla.training import sampling
from invact_vla.training.distributed import RankInfo
from invact_vla.training.loop import LoopConfig
from tests.openvla.small import debug_config, tiny, tiny_folder
from tests.paths import GOLDEN, needs_golden
from tests.recipes.fixtures import write_clips, write_demos, write_store

TRAIN, VAL = ["1", "2", "3"], ["4", "5"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clips(folder, [*TRAIN, *VAL])
    write_store(folder / "train.parquet", TRAIN)
    write_store(folder / "val.parquet", VAL)
    return folder


def config_of(out: Path, model: Path, clips: Path, steps: int = 4, **changes) -> PretrainConfig:
    loop = LoopConfig(
        steps=steps, batch_size=4, learning_rate=1e-3, log_every=1, checkpoint_every=2
    )
    values = {"labels": clips / "train.parquet", "held_out": clips / "val.parquet", **changes}
    return PretrainConfig(out=out, model=model, videos=clips, loop=loop, **values)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_weights(run / "model")


def test_a_checkpoint_without_latent_tokens_is_given_the_first_free_rows(tmp_path, clips, caplog):
    start = tiny_folder(tmp_path / "start")
    assert read_config(start).invact.latent_token_ids == ()
    with caplog.at_level("INFO"):
        run = pretrain.main(config_of(tmp_path / "run", start, clips))
    rows = list(range(385, 393))  # 384 pieces and the padding id come first
    said = [r.getMessage() for r in caplog.records if "gave it vocabulary rows" in r.getMessage()]
    assert len(said) == 1 and "385..392" in said[0] and "8 codes" in said[0]
    assert list(read_config(run / "model").invact.latent_token_ids) == rows
    summary = read_json(run / "summary.json")
    assert summary["latent_token_ids"] == summary["latent_token_ids_given"] == rows
    assert summary["held_out_pairs"] == 6 and 0 <= summary["held_out_accuracy"] <= 1
    shapes = {n: t.shape for n, t in load_weights(start).items()}
    assert {n: t.shape for n, t in weights_of(run).items()} == shapes, "no new parameter"
    assert read_config(run / "model").norm_stats == read_config(start).norm_stats


def test_codes_can_be_learned_from_a_start_without_tokens(tmp_path, clips):
    start = tiny_folder(tmp_path / "start")
    config = config_of(tmp_path / "run", start, clips, held_out=None, augment=False)
    loop = replace(config.loop, steps=60, batch_size=9, learning_rate=2e-2)
    run = pretrain.main(replace(config, loop=loop))
    accuracy = [float(line.split('"latent_accuracy": ')[1].split(",")[0]) for line in
                (run / "metrics.jsonl").read_text().splitlines()]  # fmt: skip
    assert accuracy[0] < 0.6 and accuracy[-1] > 0.95


def test_tokens_that_are_there_are_kept_and_further_ones_added(tmp_path, clips):
    some = replace(debug_config(), invact=debug_config(latent_token_ids=(400, 390)).invact)
    start = tiny_folder(tmp_path / "start", some)
    run = pretrain.main(config_of(tmp_path / "run", start, clips, steps=1))
    assert read_config(run / "model").invact.latent_token_ids == (400, 390, *range(385, 390), 391)
    assert read_json(run / "summary.json")["latent_token_ids_given"] == [*range(385, 390), 391]
    enough = pretrain.main(config_of(tmp_path / "again", run / "model", clips, steps=1))
    assert read_json(enough / "summary.json")["latent_token_ids_given"] == []


def test_given_rows_start_as_an_average_row_whatever_they_held() -> None:
    models = [tiny(seed=3).model for _ in range(3)]
    head, embed = "lm_head", "model.embed_tokens"
    rows, used = list(range(385, 393)), slice(0, 384)
    with torch.no_grad():
        for value, model in zip((0.0, 1e4), models, strict=False):
            for name in (head, embed):
                model.language_model.get_submodule(name).weight[rows] = value
    for model, seed in zip(models, (0, 0, 1), strict=True):
        before = {n: p.clone() for n, p in model.named_parameters()}
        assert give_latent_tokens(model, 8, seed) == tuple(rows)
        changed = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
        assert sorted(changed) == [f"language_model.{n}.weight" for n in (head, embed)]
        for name in (head, embed):
            weight = model.language_model.get_submodule(name).weight
            spread = weight[used].std(0)
            assert torch.equal(weight[:385], before[f"language_model.{name}.weight"][:385])
            assert ((weight[rows] - weight[used].mean(0)).abs() < spread).all()
            assert len(torch.unique(weight[rows], dim=0)) == 8, "codes can be distinguished"
    weight = [m.language_model.lm_head.weight[rows] for m in models]
    assert torch.equal(weight[0], weight[1]) and not torch.equal(weight[0], weight[2])


def test_rows_of_added_tokens_are_not_free(tmp_path, clips):
    start = tiny_folder(tmp_path / "start")
    write_json(start / "added_tokens.json", {"<PAD>": 384, "<ACT_0>": 385, "<ACT_1>": 387})
    run = pretrain.main(config_of(tmp_path / "run", start, clips, steps=1))
    assert read_config(run / "model").invact.latent_token_ids == (386, *range(388, 395))
    with pytest.raises(UserError, match="64 codes does not fit the 61 unused"):
        with_latent_tokens(debug_config(), 64, {384, 385, 387})


def test_a_codebook_without_room_is_refused_before_anything_is_read(tmp_path, clips):
    write_store(tmp_path / "large.parquet", TRAIN, codebook_size=64, videos=clips)
    config = config_of(
        tmp_path / "run", tiny_folder(tmp_path / "start"), clips, labels=tmp_path / "large.parquet"
    )
    with pytest.raises(UserError, match=r"64 codes does not fit the 63 unused .* 385\.\.447"):
        pretrain.main(replace(config, held_out=None))
    assert not (tmp_path / "run/frames.npy").exists()


def test_a_wrong_held_out_store_is_found_before_training(tmp_path, clips):
    start = tiny_folder(tmp_path / "start")
    stores = {
        "labeler_hash": write_store(tmp_path / "other.parquet", VAL, labeler="b", videos=clips),
        "codebook_size": write_store(
            tmp_path / "codebook.parquet", VAL, codebook_size=16, videos=clips
        ),
        "code_length": write_store(tmp_path / "length.parquet", VAL, code_length=2, videos=clips),
        "9 of 9 pairs of held_out": clips / "train.parquet",
        "3 of 9 pairs of held_out": write_store(
            tmp_path / "part.parquet", [*VAL, "1"], videos=clips
        ),
        "no label store": tmp_path / "nowhere.parquet",
        r"is a folder, with .*val\.parquet: give one": clips,
        "no video 99.webm": write_store(tmp_path / "videos.parquet", [*VAL, "99"], videos=clips),
        "holds no pairs": write_store(tmp_path / "empty.parquet", [], videos=clips),
    }
    for said, path in stores.items():
        with pytest.raises(UserError, match=said):
            pretrain.main(config_of(tmp_path / "run", start, clips, held_out=path))
        assert not (tmp_path / "run/frames.npy").exists(), said
        assert not (tmp_path / "run/metrics.jsonl").exists(), said


def test_videos_in_a_folder_below_are_pointed_at(tmp_path, clips):
    start = tiny_folder(tmp_path / "start")
    config = config_of(tmp_path / "run", start, clips)
    with pytest.raises(UserError, match=f"it lies in {clips}: give that"):
        pretrain.main(replace(config, videos=clips.parent))


def test_the_model_is_saved_before_it_is_measured(tmp_path, clips, monkeypatch):
    start = tiny_folder(tmp_path / "start")

    def fail(*_args):
        raise RuntimeError("the disk went away")

    monkeypatch.setattr(LatentExamples, "evaluate", fail)
    with pytest.raises(RuntimeError, match="went away"):
        pretrain.main(config_of(tmp_path / "run", start, clips))
    assert len(read_config(tmp_path / "run/model").invact.latent_token_ids) == 8
    assert not (tmp_path / "run/done.json").exists()


def test_killed_and_run_again_it_ends_with_the_same_weights(tmp_path, clips, monkeypatch):
    start = tiny_folder(tmp_path / "start")
    whole = pretrain.main(config_of(tmp_path / "whole", start, clips, steps=5))
    batch, calls = LatentExamples.batch, []

    def stop(self, *args):
        calls.append(args)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return batch(self, *args)

    monkeypatch.setattr(LatentExamples, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        pretrain.main(config_of(tmp_path / "part", start, clips, steps=5))
    again = pretrain.main(config_of(tmp_path / "part", start, clips, steps=5))
    expected = weights_of(whole)
    assert all(torch.equal(t, expected[n]) for n, t in weights_of(again).items())
    assert read_json(again / "summary.json") == read_json(whole / "summary.json")


def test_a_torn_file_of_frames_is_decoded_again(tmp_path, clips):
    store = read_labels(clips / "train.parquet")
    start = load_pretrained(tiny_folder(tmp_path / "start"))
    path = tmp_path / "frames.npy"
    whole = np.array(first_frames(store, clips, start.processor, path))
    saved = path.read_bytes()
    kept = path.stat().st_mtime_ns
    first_frames(store, clips, start.processor, path)
    assert path.stat().st_mtime_ns == kept
    for content in (b"", saved[: len(saved) // 2], b"version https://git-lfs.github.com/spec/v1"):
        path.write_bytes(content)
        assert np.array_equal(first_frames(store, clips, start.processor, path), whole)
    for other in (whole[:-1], whole[:, :8], whole.astype(np.float32), np.array([None])):
        np.save(path, other)
        assert np.array_equal(first_frames(store, clips, start.processor, path), whole)


@pytest.mark.parametrize("augment", [True, False])
def test_processes_share_a_batch_and_see_no_pair_twice(tmp_path, clips, monkeypatch, augment):
    config = config_of(tmp_path / "run", tiny_folder(tmp_path / "start"), clips, augment=augment)
    store, _ = pretrain.read_stores(config)
    start, _ = pretrain.load_start(config, 8, torch.device("cpu"))
    modes = most_frequent_codes(store)
    data = LatentExamples(start, store, clips, tmp_path / "frames.npy", modes)
    batches = Batches(data, config.loop, config.augment)
    whole = batches(1)
    parts = []
    for index in range(2):
        monkeypatch.setattr(sampling, "rank_info", lambda index=index: RankInfo(index, 2))
        parts.append(batches(1))
    for name, value in whole.items():
        assert torch.equal(torch.cat([p[name] for p in parts]), value), name


def test_a_model_with_a_state_token_is_refused(tmp_path, clips):
    start = tiny_folder(tmp_path / "start", debug_config(proprio_dim=8))
    with pytest.raises(UserError, match="robot's state"):
        pretrain.main(config_of(tmp_path / "run", start, clips))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [("device", "gpu", "unknown device 'gpu'"), ("dtype", "int8", "unknown dtype 'int8'")],
)
def test_device_and_dtype_are_checked(tmp_path, clips, field, value, said):
    start = tiny_folder(tmp_path / "start")
    with pytest.raises(UserError, match=said):
        pretrain.main(config_of(tmp_path / "run", start, clips, **{field: value}))


def test_weights_may_be_trained_in_bfloat16(tmp_path, clips):
    start = tiny_folder(tmp_path / "start")
    run = pretrain.main(config_of(tmp_path / "run", start, clips, steps=1, dtype="bf16"))
    assert {t.dtype for t in weights_of(run).values()} == {torch.bfloat16}


@needs_golden
def test_a_published_folder_goes_all_the_way_to_a_policy(tmp_path, clips):
    """Latent tokens, pretraining, post-training, an action; keys and shapes stay the published ones."""
    assert GOLDEN is not None
    start = GOLDEN / "openvla_published_tiny"
    run = pretrain.main(config_of(tmp_path / "pre", start, clips, steps=2))
    assert read_config(run / "model").invact.latent_token_ids == tuple(range(32001, 32009))
    demos = write_demos(tmp_path / "demos")
    loop = LoopConfig(steps=2, batch_size=4, log_every=1, checkpoint_every=2)
    policy_run = posttrain.main(
        posttrain.PosttrainConfig(
            out=tmp_path / "post", model=run / "model", demos=demos, held_out=1, loop=loop
        )
    )
    published = {n: t.shape for n, t in load_weights(start).items()}
    for made in (run, policy_run):
        assert {n: t.shape for n, t in weights_of(made).items()} == published
        assert read_config(made / "model").invact.latent_token_ids == tuple(range(32001, 32009))
    policy = OpenVLAPolicy.from_pretrained(policy_run / "model")
    observation = Observation(
        agentview=np.zeros((64, 64, 3), np.uint8),
        wrist=None,
        state=np.zeros(8, np.float32),
        instruction="put the cup on the plate",
    )
    assert policy.act(observation).values.shape == (1, 7)


def test_saving_and_loading_keeps_the_map(tmp_path):
    pretrained = tiny()
    give_latent_tokens(pretrained.model, 5, 0)
    save_pretrained(pretrained, tmp_path / "model")
    loaded = load_pretrained(tmp_path / "model")
    assert loaded.config.invact.latent_token_ids == tuple(range(385, 390))
    for name in ("lm_head", "model.embed_tokens"):
        ours, theirs = (p.model.language_model.get_submodule(name) for p in (pretrained, loaded))
        assert torch.equal(ours.weight, theirs.weight)
