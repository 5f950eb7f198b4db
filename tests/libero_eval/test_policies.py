"""Every registered policy keeps the Policy contract; the controls do what they say."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation
from invact_vla.openvla.checkpoints.checkpoint import save_pretrained
from invact_vla.openvla.inference.generate import greedy_decode
from invact_vla.openvla.inference.policy import OpenVLAPolicy
from libero_eval.env.protocol import get_protocol
from libero_eval.policies import (
    CheckpointConfig,
    NoopConfig,
    NoopPolicy,
    PolicyConfig,
    RandomPolicy,
    RandomPolicyConfig,
    ReplayConfig,
    SelftestConfig,
    SelftestPolicy,
)
from libero_eval.policies.replay import demos_by_init
from libero_eval.policy_source import EachEpisode, PolicyRequest, PolicySource
from libero_eval.rollout.command import RolloutConfig
from tests.openvla.small import debug_config, tiny, tiny_folder, with_statistics
from tests.paths import REPOSITORY

OBSERVATION = Observation(np.zeros((8, 8, 3), np.uint8), None, np.zeros(8, np.float32), "stay")


def test_members() -> None:
    known = {"checkpoint", "expert", "noop", "random", "replay", "selftest"}
    assert known <= set(PolicyConfig.get_known_choices())


def test_noop_holds_still_with_an_open_gripper() -> None:
    policy = NoopPolicy()
    policy.reset(0)
    values = policy.act(OBSERVATION).values
    assert len(values) == policy.chunk and np.all(values[:, :6] == 0) and np.all(values[:, 6] == -1)


def test_random_depends_on_the_seed_alone() -> None:
    first, second = RandomPolicy(4), RandomPolicy(4)
    first.reset(1)
    first.act(OBSERVATION)
    first.reset(7)
    second.reset(7)
    for _ in range(3):
        chunk = first.act(OBSERVATION).values
        assert np.array_equal(chunk, second.act(OBSERVATION).values)
        assert chunk.shape == (4, 7) and len(np.unique(chunk, axis=0)) == 1


def test_policies_parse_from_a_command_line_and_differ_in_hash() -> None:
    path = REPOSITORY / "configs" / "libero" / "rollout_debug.yaml"
    arguments = ["--config_path", str(path), "--policy.type", "random", "--policy.chunk", "2"]
    config = parse_config(RolloutConfig, arguments)
    assert config.policy == RandomPolicyConfig(chunk=2) and config.tasks == (0,)
    hashes = {NoopConfig().hash(), RandomPolicyConfig().hash(), config.policy.hash()}
    assert len(hashes) == 3
    assert NoopConfig().hash() == NoopConfig().hash()


def test_the_number_format_is_a_part_of_a_policy_and_the_device_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny_folder(tmp_path / "vla")

    def hash_of(**options: str) -> str:
        return CheckpointConfig(folder=folder, **options).hash()  # type: ignore[arg-type]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plain = hash_of(device="cpu")
    assert plain == hash_of(device="cpu", dtype="fp32") != hash_of(device="cpu", dtype="bf16")
    assert CheckpointConfig(folder=folder, device="cpu").runs_on() == "cpu, float32"
    with pytest.raises(UserError, match="--device cpu"):
        CheckpointConfig(folder=folder, device="cuda").runs_on()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    assert hash_of(device="cuda") == hash_of(device="cpu", dtype="bf16")  # what auto means there
    assert hash_of(device="cuda", dtype="fp32") == plain
    assert CheckpointConfig(folder=folder).runs_on() == "cuda:0 (Card), bfloat16"
    assert RandomPolicyConfig().runs_on() is None


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint folder .*nowhere"):
        CheckpointConfig(folder=tmp_path / "nowhere").hash()


def with_keys(folder: Path, *keys: str) -> CheckpointConfig:
    """A checkpoint whose statistics bear these names."""
    config = with_statistics(debug_config())
    stats = config.norm_stats["libero_10"]
    save_pretrained(tiny(replace(config, norm_stats=dict.fromkeys(keys, stats))), folder)
    return CheckpointConfig(folder=folder)


def test_a_checkpoint_of_another_suite_is_refused_unless_one_insists(tmp_path: Path) -> None:
    config = CheckpointConfig(folder=tiny_folder(tmp_path / "model"))
    assert config.for_protocol(get_protocol("libero_10/openvla")) == config
    goal = get_protocol("libero_goal/openvla")
    with pytest.raises(
        UserError,
        match=r"post-trained on libero_10, the protocol is of libero_goal.*libero_10/openvla",
    ):
        config.for_protocol(goal)
    insisting = replace(config, statistics="libero_10")
    assert insisting.for_protocol(goal) == insisting and insisting.hash() != config.hash()
    with pytest.raises(UserError, match="no action statistics 'bridge'"):
        replace(config, statistics="bridge").for_protocol(goal)


def test_the_suites_own_statistics_are_taken_of_several(tmp_path: Path) -> None:
    config = with_keys(tmp_path / "model", "bridge_orig", "libero_10_no_noops", "libero_goal")
    chosen = config.for_protocol(get_protocol("libero_10/openvla"))
    assert chosen == replace(config, statistics="libero_10_no_noops")
    assert isinstance(chosen.load(), PolicySource)
    with pytest.raises(UserError, match=r"several statistics.*--policy\.statistics"):
        config.load()
    with pytest.raises(UserError, match=r"post-trained on libero_10, libero_goal, the protocol"):
        config.for_protocol(get_protocol("libero_90/openvla"))


@pytest.mark.parametrize("keys", [("bridge_orig",), ("bridge_orig", "fractal")])
def test_statistics_of_another_robot_are_refused(tmp_path: Path, keys: tuple[str, ...]) -> None:
    config = with_keys(tmp_path / "model", *keys)
    with pytest.raises(
        UserError, match=r"none is of libero_10.*say so with --policy\.statistics bridge_orig"
    ):
        config.for_protocol(get_protocol("libero_10/openvla"))
    replace(config, statistics="bridge_orig").for_protocol(get_protocol("libero_10/openvla"))
    own = replace(get_protocol("libero_10/openvla"), suite=str(tmp_path))
    if len(keys) == 1:
        assert config.for_protocol(own) == config, "own data, own tasks"
    else:
        with pytest.raises(UserError, match=r"choose, as with --policy\.statistics bridge_orig"):
            config.for_protocol(own)


def test_a_policy_of_another_robot_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", debug_config(action_dim=6))
    with pytest.raises(
        UserError, match=r"answers with 6 numbers, LIBERO's robot takes dx, .*gripper"
    ):
        CheckpointConfig(folder=folder).for_protocol(get_protocol("libero_10/openvla"))


def test_one_set_of_statistics_for_all_of_libero(tmp_path: Path) -> None:
    config = with_keys(tmp_path / "model", "libero_4_suites")
    assert config.for_protocol(get_protocol("libero_10/openvla")) == config


def test_a_camera_that_is_not_shown_is_refused_before_the_run(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "model", debug_config(cameras=("agentview", "wrist")))
    config = CheckpointConfig(folder=folder)
    with pytest.raises(UserError, match=r"wrist camera, which libero_10/openvla.*libero_10/oft"):
        config.for_protocol(get_protocol("libero_10/openvla"))
    assert config.for_protocol(get_protocol("libero_10/oft")) == config


def test_a_folder_alone_means_a_checkpoint_and_may_be_a_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_folder(run / "model")
    config = parse_config(RolloutConfig, ["--out", "x", "--policy.folder", str(run)])
    assert config.policy == CheckpointConfig(folder=run)
    assert config.policy.checkpoint_folder() == run / "model"
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty.*config\.json"):
        CheckpointConfig(folder=tmp_path / "empty").for_protocol(get_protocol("libero_10/openvla"))
    for words, expected in (
        (["--policy", str(run)], config.policy),
        (["--policy", "noop"], NoopConfig()),
        (["--policy", "random", "--policy.chunk", "3"], RandomPolicyConfig(chunk=3)),
        (["--policy=noop"], NoopConfig()),
    ):
        assert parse_config(RolloutConfig, ["--out", "x", *words]).policy == expected
    for words in (["--policy", "nowhere"], ["--assets.folder", "x"]):
        with pytest.raises(UserError, match="type") as error:
            parse_config(RolloutConfig, ["--out", "x", "--policy.folder", "y", *words])
        assert "dict" not in str(error.value) and "class" not in str(error.value)


@pytest.mark.parametrize("config", [NoopConfig(), RandomPolicyConfig(), SelftestConfig(chunk=3)])
def test_episodes_never_share_a_policy(config: PolicyConfig) -> None:
    """Acting in two episodes in turn gives what each gives alone."""
    source = config.load()
    assert not source.reads_simulator
    alone = []
    for seed in (1, 2):
        policy = source.open(None)
        policy.reset(seed)
        alone.append([policy.act(OBSERVATION).values for _ in range(4)])
    first, second = source.open(None), source.open(None)
    assert first is not second
    first.reset(1)
    second.reset(2)
    for one, two in zip(*alone, strict=True):
        together = source.act([(first, OBSERVATION), (second, OBSERVATION)])
        assert np.array_equal(together[0].values, one) and np.array_equal(together[1].values, two)


class Fragile(PolicySource):
    """Answers batches, unless one instruction is bad."""

    batched = True

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def open(self, sim: object) -> NoopPolicy:
        return NoopPolicy()

    def act(self, requests: list[PolicyRequest]) -> list[ActionChunk]:  # type: ignore[override]
        self.sizes.append(len(requests))
        if any(o.instruction == "bad" for _, o in requests):
            raise RuntimeError("bad instruction")
        return [policy.act(o) for policy, o in requests]


def test_one_bad_request_fails_alone() -> None:
    source = Fragile()
    requests = [(source.open(None), replace(OBSERVATION, instruction=i)) for i in ("a", "bad", "c")]
    first, second, third = source.act_apart(requests)
    assert isinstance(first, ActionChunk) and isinstance(third, ActionChunk)
    assert isinstance(second, RuntimeError)
    assert source.sizes == [3, 1, 1, 1]
    broken = EachEpisode(lambda: SelftestPolicy(chunk=2))
    answers = broken.act_apart([(broken.open(None), replace(OBSERVATION, agentview=TINY))])
    assert isinstance(answers[0], Exception)


GOLDEN_FIRST = [49234.0, 489479.0, 2952282.0, -2712892.0, -220095.0, -15754.0, -4194304.0]
GOLDEN_LAST = [226181.0, -316614.0, -468698.0, 1356894.0, 1529716.0, 377462.0, -4194304.0]
TINY = np.zeros((2, 2, 3), np.uint8)  # smaller than what the self-test policy reads


def selftest_values(observation: Observation, seed: int = 5, calls: int = 3) -> np.ndarray:
    policy = SelftestPolicy(chunk=8)
    policy.reset(seed)
    return np.concatenate([policy.act(observation).values for _ in range(calls)])


def picture() -> Observation:
    frame = (np.arange(64 * 64 * 3) * 37 % 251).astype(np.uint8).reshape(64, 64, 3)
    return Observation(frame, None, np.linspace(-0.5, 1, 8).astype(np.float32), "open the drawer")


def test_selftest_is_the_same_everywhere() -> None:
    """Golden values: actions in units of 2^-22; renew them only on purpose."""
    values = selftest_values(picture()) * 2**22
    assert values[0].tolist() == GOLDEN_FIRST and values[-1].tolist() == GOLDEN_LAST


def test_selftest_reads_everything_and_moves() -> None:
    seen = picture()
    values = selftest_values(seen)
    frame = seen.agentview.copy()
    frame[40, 17, 2] += 1
    state = seen.state.copy()
    state[4] += 0.01
    changed = [
        selftest_values(replace(seen, agentview=frame)),
        selftest_values(replace(seen, state=state)),
        selftest_values(replace(seen, instruction="open the door")),
        selftest_values(seen, seed=6),
    ]
    assert all(not np.array_equal(values, other) for other in changed)
    assert np.abs(values[:, :3]).max() > 0.2 and len(np.unique(values[:, 6])) <= 2


def write_demos(folder: Path, task: str, demos: dict[str, dict[str, object]]) -> Path:
    path = folder / f"{task}_demo.hdf5"
    with h5py.File(path, "w") as file:
        for name, (attributes) in demos.items():
            group = file.create_group(f"data/{name}")
            number = int(name.split("_")[1])
            group["actions"] = np.full((5, 7), number / 10)
            group["states"] = np.zeros((5, 9))
            group.attrs.update(attributes)
    return path


def test_replay_by_attribute(tmp_path: Path) -> None:
    write_demos(tmp_path, "t", {"demo_0": {"init_index": 4}, "demo_1": {"layout_seed": 1}})
    config = ReplayConfig(folder=tmp_path, chunk=3)
    sim = SimpleNamespace(suite="libero_10", task_id=0, task="t", init_index=4)
    policy = config.load().open(sim)
    policy.reset(0)
    chunks = [policy.act(OBSERVATION).values for _ in range(3)]
    assert np.array_equal(np.concatenate(chunks)[:5], np.zeros((5, 7), np.float32))
    assert chunks[-1][:, :6].tolist() == [[0.0] * 6] * 3
    sim.init_index = 5
    with pytest.raises(UserError, match=r"no demonstration from init state 5 of t: it has .*\[4\]"):
        policy.reset(0)
    with pytest.raises(UserError, match=r"no demonstrations .*other_demo"):
        config.load().open(SimpleNamespace(suite="libero_10", task_id=1, task="other"))
    with pytest.raises(UserError, match="reads the simulator"):
        config.load().open(None)


def test_replay_by_comparing_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LIBERO's own files name no init state: their first states are looked up, times ignored."""
    states = np.random.default_rng(0).normal(size=(6, 9))
    monkeypatch.setattr("libero_eval.env.init_states.init_states", lambda suite, task: states)
    later, elsewhere, other_scene = states[3].copy(), states[2].copy(), np.zeros(7)
    later[0] += 1
    elsewhere[5] += 0.01
    attributes = [{"init_state": s} for s in (elsewhere, later, other_scene)]
    demos: dict[str, dict[str, object]] = {f"demo_{i}": dict(a) for i, a in enumerate(attributes)}
    path = write_demos(tmp_path, "t", demos)
    assert demos_by_init(path, "libero_10", 0) == {3: "demo_1"}


def test_replay_of_what_is_no_demonstration(tmp_path: Path) -> None:
    (tmp_path / "t_demo.hdf5").write_bytes(b"nothing")
    with pytest.raises(UserError, match="no HDF5 file"):
        demos_by_init(tmp_path / "t_demo.hdf5", "libero_10", 0)
    with pytest.raises(UserError, match="no folder of demonstrations"):
        ReplayConfig(folder=tmp_path / "nowhere").load()


@pytest.mark.parametrize("more", [{}, {"cameras": ("agentview", "wrist"), "proprio_dim": 8}])
def test_a_checkpoint_answers_a_batch_as_it_answers_each(
    tmp_path: Path, more: dict[str, object]
) -> None:
    """Prompts of several lengths in one forward pass: the same ids, in float32 logits to 1e-5."""
    folder = tiny_folder(tmp_path / "vla", debug_config(chunk=2, **more))
    source = CheckpointConfig(folder=folder).load()
    frames = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    texts = ("pick up the book", "close it", "put both moka pots on the stove", "pick", "close it")
    seen = [
        Observation(f, f[::-1].copy(), np.linspace(0, i, 8).astype(np.float32), t)
        for i, (f, t) in enumerate(zip(frames, texts, strict=True))
    ]
    policies = [source.open(None) for _ in seen]
    assert source.batched and len({id(p) for p in policies}) == len(seen)
    together = source.act(list(zip(policies, seen, strict=True)))
    for policy, observation, chunk in zip(policies, seen, together, strict=True):
        assert np.array_equal(policy.act(observation).values, chunk.values)
    policy = policies[0]
    assert isinstance(policy, OpenVLAPolicy)
    several = decode(policy, seen)
    for i, observation in enumerate(seen):
        alone = decode(policy, [observation])
        assert torch.equal(alone[0][0], several[0][i])
        assert torch.allclose(alone[1][0], several[1][i], rtol=0, atol=1e-5)


def decode(policy: OpenVLAPolicy, seen: list[Observation]) -> tuple[torch.Tensor, torch.Tensor]:
    ids, mask = policy.head.prompts([o.instruction for o in seen])
    assert (mask is None) == (len(seen) == 1)
    pixels, state = policy.pixel_values(seen), policy.state(seen)
    return greedy_decode(
        policy.pretrained.model, ids, 14, pixels, attention_mask=mask, proprio=state
    )
