"""Each check of the doctor alone, both outcomes, on tiny inputs."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.core.schema import ActionChunk, Observation
from invact_vla.openvla.config import TextHeadConfig
from libero_eval.doctor import answers as answers_module
from libero_eval.doctor import demonstrations, fingerprints
from libero_eval.doctor.answers import Answers, clearly_better
from libero_eval.doctor.checks import CHECKS
from libero_eval.doctor.checks.behavior import image, skill, variants, words, wrist
from libero_eval.doctor.checks.checkpoint import (
    action_statistics,
    chunk,
    loads,
    prompt,
    quantiles,
    tokens,
    training,
)
from libero_eval.doctor.checks.demonstration import conventions, orientation, replay
from libero_eval.doctor.checks.setup import NEEDS, cameras, horizon, numbers, render, versions
from libero_eval.doctor.command import DoctorConfig, ask, main, subject_of
from libero_eval.doctor.context import DiagnosticContext
from libero_eval.doctor.demonstrations import Demonstration, Demonstrations
from libero_eval.doctor.finding import Check, Finding, failed, passed, table
from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.manifest import environment_manifest
from libero_eval.env.protocol import get_protocol
from libero_eval.policies import CheckpointConfig, NoopConfig
from libero_eval.policy_source import EachEpisode
from tests.libero_eval.own_tasks import write_task
from tests.openvla.small import debug_config, tiny, tiny_folder, with_statistics

STEPS, SIZE = 60, 16


def made_up(task_id: int, seed: int = 0) -> Demonstration:
    """A hand that circles, its place shown as the brightness of image corners."""
    rng = np.random.default_rng([seed, task_id])
    phase = np.linspace(0, 6 + task_id, STEPS) + rng.random()
    actions = np.zeros((STEPS, 7))
    actions[:, 0], actions[:, 1] = np.sin(phase), np.cos(1.3 * phase)
    actions[:, 2] = np.sin(2 * phase + task_id) * 0.8
    actions[:, 6] = np.where(np.arange(STEPS) > STEPS // 2, 1.0, -1.0)
    times = np.arange(0, STEPS, 5)
    return Demonstration(
        suite="libero_10",
        task_id=task_id,
        name=f"task {task_id}/demo_0",
        instruction=f"do task {'ab'[task_id % 2]}",
        actions=actions,
        executed=actions,
        fingers=0.06 - 0.02 * np.roll(actions[:, 6], 4),
        ee_pos=np.cumsum(actions[:, :3] * 0.02, axis=0),
        times=times,
        frames={c: _frames(actions[times], c) for c in ("agentview", "wrist")},
        robot=np.zeros((len(times), 8), np.float32),
        states=None,
        start=None,
        layout_seed=None,
        init_index=None,
        poses=None,
    )


def _frames(actions: np.ndarray, camera: str) -> np.ndarray:
    """As stored (turned by 180 degrees): the actions as gray levels in the upper left corner."""
    frames = np.full((len(actions), SIZE, SIZE, 3), 40, np.uint8)
    levels = np.rint(127 + 100 * actions[:, [0, 1, 2, 6]]).astype(np.uint8)
    for i in range(4):
        if (camera == "wrist") == (i >= 2):
            frames[:, -2:, -2 * i - 2 : SIZE - 2 * i] = levels[:, i, None, None, None]
    return frames


class Reader:
    """A policy that reads what `_frames` wrote; `sign` and `scale` are its mistakes."""

    needs: tuple[str, ...] = ("agentview", "wrist")
    chunk = 1

    def __init__(self, see: Callable[[Observation], Observation], sign: int, scale: float) -> None:
        self._see, self._sign, self._scale = see, sign, scale

    def reset(self, seed: int) -> None:
        del seed

    def act(self, observation: Observation) -> ActionChunk:
        seen = self._see(observation)
        assert seen.wrist is not None
        views = (seen.agentview, seen.agentview, seen.wrist, seen.wrist)
        read = [(v[0, 2 * i, 0].astype(float) - 127) / 100 for i, v in enumerate(views)]
        values = np.zeros((1, 7), np.float32)
        values[0, :3] = np.array(read[:3]) * self._scale
        values[0, 2] *= 1.0 if seen.instruction == observation.instruction else 0.0
        values[0, 6] = self._sign * np.sign(read[3])
        return ActionChunk(np.clip(values, -1, 1))


def demos(*tasks: int, scripted: bool = False) -> Demonstrations:
    found = tuple(made_up(task) for task in tasks or (0, 1))
    actions = np.concatenate([d.actions for d in found])
    return Demonstrations(demos=found, all_actions=actions, longest=STEPS, scripted=scripted)


def context(
    policy: Any = None, protocol: str = "libero_10/oft", **fields: Any
) -> DiagnosticContext:
    result = DiagnosticContext(
        policy=policy, protocol=get_protocol(protocol), pack=ProceduralPack(), frames=20
    )
    for name, value in {"demos": demos(), **fields}.items():
        setattr(result, name, value)
    return result


def reader(
    see: Callable[[Observation], Observation] = lambda o: o, sign: int = 1, scale: float = 1.0
) -> DiagnosticContext:
    source = EachEpisode(lambda: Reader(see, sign, scale))
    return context(NoopConfig(), source=source)


def checkpoint(folder: Path, **invact: Any) -> DiagnosticContext:
    config = with_statistics(debug_config(**{"constrain_actions": True, **invact}))
    return context(CheckpointConfig(folder=tiny_folder(folder / "vla", config)))


def turned(observation: Observation) -> Observation:
    return replace(observation, agentview=observation.agentview[::-1].copy())


# -- the machine


def test_versions() -> None:
    good = environment_manifest("none")
    assert versions(context(manifest=good)).status == "pass", "this environment is as pinned"
    for package, version, status in (
        ("mujoco", "3.3.3", "fail"), ("mujoco", "3.1.6", "fail"), ("robosuite", "1.5.2", "fail"),
        ("transformers", "4.57.1", "fail"), ("bddl", "3.6.0", "warn"), ("numpy", "2.9", "pass"),
    ):  # fmt: skip
        stale = {**good, "packages": {**good["packages"], package: version}}
        finding = versions(context(manifest=stale))
        assert finding.status == status, package
        if status != "pass":
            assert package in finding.found and "pip install" in finding.advice
    assert numbers("3.10.0rc1") == (3, 10, 0) and not NEEDS[0].suits("not installed")


def test_fingerprints_see_what_matters(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scene = np.repeat(np.repeat(rng.integers(60, 200, (8, 8, 3), np.uint8), 16, 0), 16, 1)
    frames = [scene, scene[:, ::-1]]
    reference = fingerprints.fingerprint(frames)
    assert reference.shape == fingerprints.SHAPE
    assert fingerprints.difference(reference, reference).mean == 0

    def seen(change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return fingerprints.fingerprint([change(f) for f in frames])

    noise = rng.integers(-2, 3, scene.shape)
    same = seen(lambda f: np.clip(f + noise, 0, 255).astype(np.uint8))
    assert fingerprints.difference(same, reference).same, "another rasteriser's last digits"

    def darker(frame: np.ndarray) -> np.ndarray:
        floor = frame.astype(float)
        floor[64:] *= 0.85
        return floor.astype(np.uint8)

    def untextured(frame: np.ndarray) -> np.ndarray:
        bare = frame.copy()
        bare[:40, :40] = 128
        return bare

    for change in (darker, untextured, lambda f: f[::-1]):
        assert not fingerprints.difference(seen(change), reference).same
    assert "darker" in str(fingerprints.difference(seen(darker), reference))
    assert fingerprints.turned_like(seen(lambda f: f[::-1]), reference) == "upside down"
    assert fingerprints.turned_like(seen(darker), reference) is None
    path = tmp_path / "references.json"
    fingerprints.write_references({"libero_10/0": reference}, "procedural", "egl", path)
    fingerprints.write_references({"libero_10/1": same}, "procedural", "egl", path)
    kept = fingerprints.read_references(path)
    found = fingerprints.reference(kept, "procedural", "osmesa", "libero_10/0")
    assert found is not None and found[1] == "egl"
    np.testing.assert_array_equal(found[0], reference)
    assert fingerprints.reference(kept, "official", "egl", "libero_10/0") is None


def test_references_are_those_of_the_pack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Task 9 as rendered now, against the package's reference, and against a darkened one."""
    everything = fingerprints.read_references()
    entries = everything["procedural"]
    backend = next(iter(entries))
    only = {"procedural": {backend: {"libero_10/9": entries[backend]["libero_10/9"]}}}
    monkeypatch.setattr(fingerprints, "read_references", lambda: only)
    examined = context()
    finding = render(examined)
    assert finding.status == "pass", f"{finding.found}: write fingerprints again if this is meant"
    bright = fingerprints.reference(only, "procedural", backend, "libero_10/9")
    assert bright is not None
    monkeypatch.setattr(
        fingerprints,
        "reference",
        lambda *_: (np.clip(bright[0] * 1.2, 0, 255).astype(np.uint8), examined.backend),
    )
    finding = render(examined)
    assert finding.status == "fail" and "darker" in finding.found
    examined.close()
    other = context(pack=ProceduralPack(seed=3))
    assert render(other).status == "skip"


# -- demonstrations


def test_conventions() -> None:
    assert conventions(context()).status == "pass"
    demo = made_up(0)
    inverted = demo.executed * [1, 1, 1, 1, 1, 1, -1]
    assert demo.ee_pos is not None
    absolute = np.concatenate([demo.ee_pos, demo.executed[:, 3:]], axis=1)
    for wrong, word in (
        (inverted, "inverted gripper"), (absolute, "absolute"), (demo.executed * 3, "unnormalized"),
    ):  # fmt: skip
        examined = context(demos=replace(demos(), demos=(replace(demo, executed=wrong),)))
        finding = conventions(examined)
        assert finding.status == "fail" and word in finding.advice


# -- the checkpoint's declarations


def with_file(
    examined: DiagnosticContext, name: str, change: Callable[[Any], None]
) -> DiagnosticContext:
    assert examined.folder is not None
    path = examined.folder / name
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))
    return context(examined.policy)


STATISTICS = "dataset_statistics.json"


def own_quantiles(value: Any, share: float = 1.0) -> None:
    """Write those of the demonstrations, times a share."""
    own = demos().all_actions[:, :6] * share
    low, high = np.quantile(own, 0.01, axis=0), np.quantile(own, 0.99, axis=0)
    value["libero_10"]["action"].update(
        q01=[*low.tolist(), 0.0], q99=[*high.tolist(), 1.0], mask=[True] * 6 + [False]
    )


def test_statistics(tmp_path: Path) -> None:
    examined = checkpoint(tmp_path)
    finding = action_statistics(examined)
    assert finding.status == "warn" and "transitions" in finding.expected, "it does not say"
    name = STATISTICS
    examined = with_file(examined, name, lambda s: s["libero_10"].update(num_transitions=500))
    assert action_statistics(examined).status == "pass"
    assert quantiles(examined).status == "fail", "random numbers are not the demonstrations'"
    assert quantiles(context(examined.policy, demos=demos(scripted=True))).status == "skip"

    assert quantiles(with_file(examined, name, own_quantiles)).status == "pass"
    for key, index, value, word in (
        ("q99", 1, -1.0, "number 1 goes from"), ("q99", 2, float("nan"), "to nan: expected finite"),
        ("q99", 0, 40.0, "outside"), ("q01", 6, -1.0, "gripper"), ("mask", 6, True, "mask"),
    ):  # fmt: skip
        normal_file = with_file(examined, name, own_quantiles)

        def spoil(s: Any, key: str = key, index: int = index, value: Any = value) -> None:
            s["libero_10"]["action"][key][index] = value

        finding = action_statistics(with_file(normal_file, name, spoil))
        assert finding.status == "fail" and word in finding.found


def test_missing_statistics(tmp_path: Path) -> None:
    examined = checkpoint(tmp_path)
    assert examined.folder is not None
    (examined.folder / "dataset_statistics.json").unlink()
    examined = with_file(examined, "config.json", lambda c: c.update(norm_stats={}))
    finding = action_statistics(examined)
    assert finding.status == "fail" and "no action statistics" in finding.found


def test_tokens_and_prompt(tmp_path: Path) -> None:
    examined = checkpoint(tmp_path)
    assert "holding still" in tokens(examined).found, "dimension 3 is always 0.125 there"
    examined = with_file(examined, STATISTICS, own_quantiles)
    assert tokens(examined).status == "pass"
    narrow = with_file(examined, STATISTICS, lambda s: own_quantiles(s, 0.5))
    assert "too narrow" in tokens(narrow).advice
    assert prompt(examined).status == "pass"
    for template, status in (("Do: {instruction}", "warn"), ("In: do it", "fail")):
        changed = with_file(
            examined, "config.json", lambda c, t=template: c["invact"].update(prompt=t)
        )
        assert prompt(changed).status == status


def test_horizon(tmp_path: Path) -> None:
    assert horizon(context()).status == "pass"
    fields = {"protocol": get_protocol("libero_10/openvla")}
    for steps, status, word in ((50, "fail", "longest"), (70, "fail", "longest"),
                                (300, "warn", "libero_goal"), (350, "warn", "350")):  # fmt: skip
        protocol = replace(fields["protocol"], max_steps=steps)
        examined = context()
        examined.protocol = protocol
        finding = horizon(examined)
        assert finding.status == status and word in finding.expected + finding.found, steps
    other = checkpoint(tmp_path)
    other.protocol = get_protocol("libero_goal/oft")
    finding = horizon(other)
    assert finding.status == "fail" and "libero_10/oft" in finding.advice


def test_cameras_and_chunk(tmp_path: Path) -> None:
    assert cameras(reader()).status == "pass"
    finding = cameras(context(NoopConfig(), "libero_10/openvla", source=reader().source))
    assert finding.status == "fail" and "libero_10/oft" in finding.advice
    assert cameras(checkpoint(tmp_path)).status == "warn", "the protocol shows a wrist camera too"
    long = with_file(
        checkpoint(tmp_path / "long"), "config.json", lambda c: c["invact"].update(chunk=60)
    )
    assert chunk(long).status == "fail"


# -- the policy's answers


def test_clearly_better() -> None:
    rng = np.random.default_rng(0)
    worse = rng.random(24)
    assert clearly_better(worse * 0.5, worse) and not clearly_better(worse, worse)
    assert not clearly_better(worse - 0.01, worse), "always, but hardly"
    assert not clearly_better(rng.random(24) * 0.9, rng.random(24)), "could be chance"


def test_a_policy_that_looks_and_reads() -> None:
    examined = reader()
    for check in (image, wrist, words, variants, skill):
        finding = check(examined)
        assert finding.status == ("fail" if check is words else "pass"), finding
    assert "ignored" in words(examined).found


@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        ({"see": turned}, "agentview upside down"),
        ({"see": lambda o: replace(o, wrist=o.wrist[::-1, ::-1].copy())}, "wrist turned by 180"),
        ({"see": lambda o: replace(o, agentview=o.wrist, wrist=o.agentview)}, "cameras swapped"),
        (
            {
                "see": lambda o: replace(
                    o, agentview=o.agentview[:, ::-1].copy(), wrist=o.wrist[:, ::-1].copy()
                )
            },
            "agentview and wrist mirrored",
        ),
        ({"sign": -1}, "gripper sign inverted"),
    ],
)
def test_mistakes_are_named(mistake: dict[str, Any], found: str) -> None:
    finding = variants(reader(**mistake))
    assert finding.status == "fail" and found in finding.found and finding.advice


def test_a_policy_that_ignores_a_camera() -> None:
    black = np.zeros((SIZE, SIZE, 3), np.uint8)
    examined = reader(see=lambda o: replace(o, agentview=black))
    finding = image(examined)
    assert finding.status == "fail" and "agentview frame is ignored" in finding.found
    assert wrist(examined).status == "pass"
    assert image(context(NoopConfig())).status == "skip"


def test_a_policy_without_skill() -> None:
    examined = reader(scale=0.0, sign=-1)
    assert skill(examined).status == "fail"
    examined.demos = demos(scripted=True)
    examined.__dict__.pop("answers")
    assert skill(examined).status == "skip"


def test_frames_need_the_cameras_that_are_read() -> None:
    blind = replace(made_up(0), frames={"agentview": made_up(0).frames["agentview"]})
    with pytest.raises(UserError, match="wrist"):
        answers_module.choose_frames(
            replace(demos(), demos=(blind,)), ("agentview", "wrist"), 8, np.random.default_rng(0)
        )


# -- the command


def test_blocked_and_broken_checks() -> None:
    examined = context()

    def broken(_: DiagnosticContext) -> Finding:
        raise UserError("expected a spoon; got a fork")

    finding = ask(Check(name="x", run=broken), examined)
    assert finding.status == "fail" and finding.advice == "expected a spoon; got a fork"
    examined.findings["x"] = finding
    after = Check(name="y", run=lambda _: passed("", ""), needs=("x",))
    finding = ask(after, examined)
    assert finding.status == "blocked" and finding.found == "not asked, for `x` failed"
    examined.findings["y"] = finding
    assert ask(Check(name="z", run=broken, needs=("y",)), examined).status == "blocked"
    assert ask(replace(after, needs=(), of="policy"), examined).found == "no policy given"
    with pytest.raises(ValueError, match="what to do"):
        failed("a", "b", "")


def test_needs_are_checks_asked_before() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names)
    for place, check in enumerate(CHECKS):
        assert set(check.needs) <= set(names[:place]), check.name


def test_table_has_failures_last() -> None:
    text = table({"bad": failed("1", "2", "mend it"), "good": passed("1", "one")}, 3.0)
    lines = text.splitlines()
    assert lines[0].startswith("ok") and lines[1].startswith("FAIL") and "mend it" in lines[3]
    assert lines[-1].startswith("FAILED CHECKS: bad")


def run_folder(folder: Path, demos: Path, steps: int, samples: int = 400) -> Path:
    """A checkpoint in the run folder of a post-training of these demonstrations; the run."""
    tiny_folder(folder / "model", with_statistics(debug_config(constrain_actions=True)))
    (folder / "config.yaml").write_text(
        f"demos: {demos}\nloop:\n  steps: {steps}\n  batch_size: 32\n"
    )
    (folder / "summary.json").write_text(json.dumps({"samples": samples}))
    (folder / "provenance.json").write_text(json.dumps({"inputs": {}}))
    return folder


def test_a_checkpoint_is_judged_by_what_it_was_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "demos").mkdir()
    run = run_folder(tmp_path / "runs" / "post", Path("demos"), 400)
    read: list[Path] = []
    monkeypatch.setattr(
        demonstrations,
        "read_demonstrations",
        lambda p, s, scripted=False: read.append(p) or demos(),
    )
    protocol, policy = get_protocol("libero_10/oft"), CheckpointConfig(folder=run)
    found = DiagnosticContext(policy=policy, protocol=protocol, pack=ProceduralPack())
    assert found.demos and read == [tmp_path / "demos"] and not found.unseen
    assert training(found).status == "pass"
    (tmp_path / "demos").rmdir()
    elsewhere = DiagnosticContext(policy=policy, protocol=protocol, pack=ProceduralPack())
    elsewhere.demos = demos(scripted=True)
    assert "give --demos of its training (demos is not here)" in elsewhere.unseen
    for check in (chunk, variants, skill, quantiles):
        assert check(elsewhere).status == "skip"


@pytest.mark.parametrize(
    ("steps", "samples", "barely"), [(20, 50, True), (400, 10**6, True), (400, 9000, False)]
)
def test_a_short_training_is_called_so(
    tmp_path: Path, steps: int, samples: int, barely: bool
) -> None:
    run = run_folder(tmp_path / "post", tmp_path, steps, samples)
    found = context(CheckpointConfig(folder=run))
    finding = training(found)
    assert finding.status == ("fail" if barely else "pass")
    assert ("barely trained" in finding.found) == barely and "weights" not in finding.advice
    found.findings["training"] = finding
    needing = [c for c in CHECKS if "training" in c.needs]
    assert {c.name for c in needing} >= {"image", "wrist", "words", "chunk", "variants", "skill"}
    if barely:
        assert all(ask(check, found).status == "blocked" for check in needing)


def test_without_a_record_of_training_both_causes_are_named() -> None:
    source = EachEpisode(NoopPolicyThatLooks)
    finding = image(context(NoopConfig(), source=source))
    assert finding.status == "fail" and finding.advice.startswith("it is barely trained")


class NoopPolicyThatLooks:
    """Reads a camera and ignores it."""

    needs: tuple[str, ...] = ("agentview",)
    chunk = 1

    def reset(self, seed: int) -> None:
        del seed

    def act(self, observation: Observation) -> ActionChunk:
        return ActionChunk(np.full((1, 7), 0.1, np.float32))


def test_tasks_that_libero_does_not_have() -> None:
    own = replace(
        made_up(0), task_id=None, name="mine/demo_0", states=np.zeros((12, 5)), start=np.zeros(5)
    )
    found = context(demos=replace(demos(), demos=(own,)))
    for check in (orientation, replay):
        finding = check(found)
        assert (
            finding.status == "skip" and "mine/demo_0 is of no task of libero_10" in finding.found
        )
    assert own.scene == own.instruction
    blind = replace(own, ee_pos=None, fingers=None)
    assert conventions(context(demos=replace(demos(), demos=(blind,)))).status == "pass"


def test_a_suite_of_own_tasks(tmp_path: Path) -> None:
    write_task(tmp_path / "mine", "one")
    found = context(protocol=str(tmp_path / "mine"))
    assert horizon(found).status == "pass" and render(found).status == "skip"
    del found.demos
    check = next(check for check in CHECKS if check.name == "conventions")
    finding = ask(check, found)
    assert finding.status == "skip" and "give them as --demos" in finding.found


@pytest.mark.parametrize(("lowest", "said"), [(0, "[0.00, 1.00]"), (-1, "never positive")])
def test_a_gripper_of_half_the_range_is_no_healthy_one(lowest: int, said: str) -> None:
    class Unit(NoopPolicyThatLooks):
        def act(self, observation: Observation) -> ActionChunk:
            values = np.zeros((1, 7), np.float32)
            values[0, 6] = lowest + (observation.agentview[0, 0, 0] > 120)
            return ActionChunk(values)

    finding = loads(context(NoopConfig(), source=EachEpisode(Unit)))
    assert finding.status == "fail" and said in finding.found


def test_heads_without_action_tokens_are_not_asked_for_them(tmp_path: Path) -> None:
    config = with_statistics(debug_config(head=TextHeadConfig()))
    found = context(CheckpointConfig(folder=tiny_folder(tmp_path / "vla", config)))
    assert tokens(found).status == "skip" and chunk(found).status == "skip"


def test_demonstrations_that_are_none_are_no_fault_of_the_policy(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    for path in (tmp_path, tmp_path / "notes.txt", tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no demonstrations"):
            subject_of(DoctorConfig(demos=path))


def test_subjects(tmp_path: Path) -> None:
    rollout = tmp_path / "rollout.yaml"
    rollout.write_text("policy: {type: noop}\nprotocol: libero_goal/oft\nmax_steps: 99\n")
    subject = subject_of(DoctorConfig(subject=rollout, out=tmp_path))
    assert subject.policy == NoopConfig() and subject.protocol.max_steps == 99
    assert subject_of(DoctorConfig()).policy is None
    with pytest.raises(UserError, match="no checkpoint folder"):
        subject_of(DoctorConfig(subject=tmp_path / "nowhere"))
    with pytest.raises(UserError, match="unknown checks"):
        parse_config(DoctorConfig, ["--checks", "[gl, luck]"])


def test_command_writes_its_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = DoctorConfig(out=tmp_path, checks=("gl", "versions"))
    assert main(config) == 0
    assert "healthy" in capsys.readouterr().out
    report = json.loads((tmp_path / "doctor.json").read_text())
    assert report["healthy"] and set(report["checks"]) == {"gl", "versions"}
    assert report["protocol"]["key"] == "libero_10/openvla"


def test_untrained_checkpoint_is_loaded_through_the_registry(tmp_path: Path) -> None:
    examined = checkpoint(tmp_path)
    assert examined.policy_needs == ("agentview",) and tiny().config.invact.chunk == 1
    assert len(examined.answers.configured) == len(examined.answers.frames) == 20
    assert isinstance(examined.answers, Answers)
