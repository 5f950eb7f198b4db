"""The command: configs, run folders, shards, rules that end a run, and what may not be mixed."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from libero_eval.env import gl
from libero_eval.env.assets.pack import AssetPack
from libero_eval.executors import ProcessesConfig
from libero_eval.results.rows import merge, read_episodes
from libero_eval.rollout import command as rollout
from libero_eval.rollout import merge as merge_shards
from libero_eval.rollout.command import RolloutConfig, jobs_of, protocol_of
from libero_eval.rollout.early_stop import EarlyStop
from libero_eval.rollout.merge import MergeShardsConfig
from tests.libero_eval.point_sim import (
    WalkerConfig,
    open_point_sim,
)


def test_config_lists_episodes_and_names_deviations(tmp_path: Path) -> None:
    config = RolloutConfig(
        out=tmp_path, policy=WalkerConfig(), tasks=(4, 0), episodes=2, max_steps=100, first_init=5
    )
    assert [(job.task_id, job.init_index, job.film) for job in jobs_of(config)] == [
        (4, 5, True), (4, 6, False), (0, 5, True), (0, 6, False),
    ]  # fmt: skip
    protocol = protocol_of(config)
    assert protocol.key == "libero_10/openvla, max_steps 100" and protocol.max_steps == 100
    standard = RolloutConfig(out=tmp_path, policy=WalkerConfig(), max_steps=520)
    assert protocol_of(standard).key == "libero_10/openvla"
    assert len(jobs_of(standard)) == 500
    with pytest.raises(
        UserError, match=r"50 init states, 0\.\.49; asked for 47\.\.51: give --episodes 3"
    ):
        jobs_of(replace(config, first_init=47, episodes=5))
    with pytest.raises(UserError, match=r"asked for 60\.\.60: lower --first_init"):
        jobs_of(replace(config, first_init=60, episodes=1))
    with pytest.raises(UserError, match=r"task 4 .*asked for 0\.\.59"):
        jobs_of(replace(config, first_init=0, more={4: 60}))
    with pytest.raises(ValueError, match="1 init state or more"):
        replace(config, more={4: 0})
    assert len(jobs_of(replace(config, first_init=47, episodes=3))) == 6
    for bad in ({"tasks": (10,)}, {"tasks": (1, 1)}):
        with pytest.raises(UserError):
            jobs_of(RolloutConfig(out=tmp_path, policy=WalkerConfig(), **bad))  # type: ignore[arg-type]


def test_shards_are_a_partition_and_anything_else_is_refused(tmp_path: Path) -> None:
    config = RolloutConfig(out=tmp_path, policy=WalkerConfig(), episodes=3)
    whole = jobs_of(config)
    for count in (1, 3, 7, 30):
        parts = [jobs_of(replace(config, shard=f"{i}/{count}")) for i in range(count)]
        assert [job for part in parts for job in part] == whole
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for bad in ("4/4", "1", "-1/2", "a/b", "0/0", "1/2/3"):
        with pytest.raises(ValueError, match="expected i/n"):
            replace(config, shard=bad)
    with pytest.raises(UserError, match=r"shard \d+/31 of 30 episodes is empty"):
        for index in range(31):
            jobs_of(replace(config, shard=f"{index}/31"))
    with pytest.raises(ValueError, match="either workers or an executor"):
        replace(config, workers=2, executor=ProcessesConfig())


@AssetPack.register_subclass("blank")
@dataclass(frozen=True, kw_only=True)
class BlankPack(AssetPack):
    """An empty assets folder."""

    folder: Path  # made if it is new

    def build(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        return self.folder


def config_of(tmp_path: Path, **options: object) -> RolloutConfig:
    return RolloutConfig(
        out=tmp_path / "run", assets=BlankPack(folder=tmp_path / "blank"), tasks=(0, 1),
        episodes=4, max_steps=12, **options,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def toy_world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "OpenLibero", lambda *_: open_point_sim)
    monkeypatch.setattr(gl, "probe", lambda: "egl")


@pytest.mark.usefixtures("toy_world")
def test_a_finished_run_is_skipped_and_its_key_names_what_matters(tmp_path: Path) -> None:
    config = config_of(tmp_path, policy=WalkerConfig())
    folder = rollout.main(config)
    content = (folder / "episodes.jsonl").read_bytes()
    summary = read_json(folder / "summary.json")
    assert (summary["k"], summary["n"], summary["tasks"]["1"]) == (8, 8, {"success": 4})
    assert read_json(folder / "manifest.json")["packages"]["mujoco"]
    assert len(list((folder / "videos").iterdir())) == 2
    assert rollout.main(replace(config, workers=2)) == folder
    assert (folder / "episodes.jsonl").read_bytes() == content
    with pytest.raises(UserError, match="another config"):
        rollout.main(replace(config, seed=1))


@pytest.mark.usefixtures("toy_world")
def test_shards_run_apart_and_are_merged(tmp_path: Path) -> None:
    config = config_of(tmp_path, policy=WalkerConfig())
    whole = read_episodes(rollout.main(config))
    folders = [
        rollout.main(replace(config, out=tmp_path / f"s{i}", shard=f"{i}/3")) for i in range(3)
    ]
    out = merge_shards.main(MergeShardsConfig(shards=tuple(folders), out=tmp_path / "merged"))
    assert read_episodes(out) == merge(folders) and read_json(out / "summary.json")["n"] == len(
        whole
    )
    assert merge_shards.main(MergeShardsConfig(shards=tuple(folders), out=out)) == out, (
        "done already"
    )
    with pytest.raises(UserError, match="no shards"):
        merge_shards.main(MergeShardsConfig(out=tmp_path / "none"))
    merged = merge(folders)
    assert [row.episode for row in merged] == [row.episode for row in whole]
    assert [row.state_hash for row in merged] == [row.state_hash for row in whole]
    with pytest.raises(UserError, match="lack the shards 1/3"):
        merge(folders[::2])
    with pytest.raises(UserError, match=r"is in both .*s0 and .*s0"):
        merge([folders[0], *folders])
    other = rollout.main(replace(config, out=tmp_path / "other", shard="1/3", seed=9))
    with pytest.raises(UserError, match="not one run: seed is 0 and 9"):
        merge([folders[0], other, folders[2]])
    assert len(merge([folders[0], other, folders[2]], may_differ=["seed"])) == len(whole)
    (folders[1] / "done.json").unlink()
    with pytest.raises(UserError, match="not a finished rollout"):
        merge(folders)


@pytest.mark.usefixtures("toy_world")
def test_a_rule_ends_the_run_and_its_statement_is_kept(tmp_path: Path) -> None:
    rule = EarlyStop(width=0.9, per_round=1)
    config = replace(config_of(tmp_path, policy=WalkerConfig(), early_stop=rule), episodes=40)
    folder = rollout.main(config)
    verdict, summary = (read_json(folder / name) for name in ("early_stop.json", "summary.json"))
    assert verdict["stopped"] and "wide" in verdict["why"]
    assert len(read_episodes(folder)) == len(verdict["counted"]) == summary["n"] < 80
    assert summary["interval"] == [verdict["low"], verdict["high"]]
    counts = Counter(task for task, _ in verdict["counted"])
    assert counts[0] == counts[1]
    with pytest.raises(ValueError, match="a shard sees a part"):
        replace(config, shard="0/2")


@pytest.mark.usefixtures("toy_world")
def test_a_rule_that_was_not_met_hides_no_error(tmp_path: Path) -> None:
    rule = EarlyStop(width=0.01, per_round=1)
    config = config_of(tmp_path, policy=WalkerConfig(fault="raise"), early_stop=rule)
    with pytest.raises(UserError, match="2 of 8 episodes ended as errors"):
        rollout.main(config)
    assert not (tmp_path / "run" / "done.json").exists()


@pytest.mark.usefixtures("toy_world")
def test_rows_of_another_environment_are_not_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path, policy=WalkerConfig())
    folder = rollout.main(config)
    (folder / "done.json").unlink()
    manifest = read_json(folder / "manifest.json")
    monkeypatch.setattr(rollout, "manifest_hash", lambda _: "newer")
    monkeypatch.setattr(rollout, "environment_manifest", lambda _: {"python": "9"})
    with pytest.raises(UserError, match=r"begun with another manifest_hash .* now newer"):
        rollout.main(config)
    assert read_json(folder / "manifest.json") == manifest


@pytest.mark.usefixtures("toy_world")
def test_a_run_with_errors_is_not_finished_and_goes_on_later(tmp_path: Path) -> None:
    marker = tmp_path / "repaired"
    config = config_of(tmp_path, policy=WalkerConfig(fault="raise", marker=marker))
    with pytest.raises(UserError, match="2 of 8 episodes ended as errors"):
        rollout.main(config)
    assert not (tmp_path / "run" / "done.json").exists()
    assert read_json(tmp_path / "run" / "summary.json")["rate"] is None
    marker.touch()
    folder = rollout.main(config)
    assert (folder / "done.json").exists()
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    assert len(read_episodes(folder)) == 8 and len(lines) == 8 + 2 + 2
