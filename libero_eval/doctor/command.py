"""`invact libero doctor CHECKPOINT`: why would it score 0 %? In under two minutes, before any rollout.

    <out>/doctor.json    with --out: every check: status, expected, found, advice

Prints a line a check, failures last with what to do. Exit code 0, or 1 if a check failed.
"""

import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import draccus
from tqdm import tqdm

from invact_vla.config.command import parse_config
from invact_vla.core.errors import UserError
from invact_vla.core.run_folder import save_result
from invact_vla.data.dataset import DatasetConfig
from invact_vla.data.readers import reader_of
from libero_eval.doctor.checks import CHECKS
from libero_eval.doctor.checks.setup import write_fingerprints
from libero_eval.doctor.context import DiagnosticContext, options_of
from libero_eval.doctor.demonstrations import NoDemonstrations
from libero_eval.doctor.finding import Check, Finding, failed, skipped, table
from libero_eval.doctor.fingerprints import REFERENCES
from libero_eval.env.assets.pack import AssetPack, ProceduralPack
from libero_eval.env.protocol import DEFAULT_PROTOCOL
from libero_eval.policies import CheckpointConfig, NoopConfig
from libero_eval.rollout.command import RolloutConfig, protocol_of

_NOWHERE = Path("runs/doctor")  # of a rollout config that nothing runs


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Who is examined, and on what."""

    POSITIONAL: ClassVar[str] = "subject"  # a word without a flag

    subject: Path | None = None  # checkpoint, post-training run, rollout .yaml; none: the setup
    out: Path | None = None  # run folder for doctor.json, all findings
    # what it was trained on; none given: as its run says, or two are made
    demos: Path | None = None
    data: DatasetConfig = field(default_factory=DatasetConfig)  # how `demos` is to be understood
    protocol: str = DEFAULT_PROTOCOL  # of the rollout to come; a rollout config brings its own
    suite: str = ""  # a suite of LIBERO or a folder of own tasks, in place of the protocol's
    max_steps: int | None = None  # other horizon than the protocol's, as for a rollout
    render_px: int | None = None  # other frame size than the protocol's, as for a rollout
    assets: AssetPack = field(default_factory=ProceduralPack)  # a rollout config brings its own
    checks: tuple[str, ...] = ()  # only these; none given: all
    frames: int = 40  # frames of demonstrations that the policy is asked about
    seconds: float = 40.0  # time for comparing first frames; tasks beyond it are left out
    seed: int = 0  # which frames are chosen
    write_fingerprints: bool = False  # write down how tasks look here, and check nothing

    def __post_init__(self) -> None:
        unknown = set(self.checks) - {check.name for check in CHECKS}
        if unknown:
            known = ", ".join(check.name for check in CHECKS)
            raise ValueError(f"unknown checks {sorted(unknown)}; known: {known}")
        if self.frames < 8 or self.seconds <= 0:
            raise ValueError("need frames >= 8 and seconds > 0")


def main(config: DoctorConfig) -> int:
    """Examine; print the table, save it. Returns 1 if a check failed, else 0."""
    context = subject_of(config)
    started = time.perf_counter()
    if config.write_fingerprints:
        count = write_fingerprints(context)
        print(f"{count} fingerprints with {context.backend} written to {REFERENCES}")
        return 0
    checks = [c for c in CHECKS if not config.checks or c.name in config.checks]
    for check in tqdm(checks, desc="doctor", mininterval=5, leave=False):
        context.findings[check.name] = ask(check, context)
    context.close()
    seconds = time.perf_counter() - started
    print(table(context.findings, seconds))
    if config.out is not None:
        save_result(config.out, config, "doctor.json", report(context, config, seconds))
    return int(any(finding.status == "fail" for finding in context.findings.values()))


def subject_of(config: DoctorConfig) -> DiagnosticContext:
    """What a config asks about; UserError for a path that is neither checkpoint nor config."""
    common: dict[str, Any] = {
        "demos_path": config.demos, "options": options_of(draccus.encode(config.data)),
        "frames": config.frames, "seconds": config.seconds, "seed": config.seed,
    }  # fmt: skip
    path = config.subject
    if config.demos is not None:
        reader_of(replace(config.data, path=config.demos))  # says what else it is
    if path is not None and path.suffix in (".yaml", ".yml"):
        arguments = ["--config_path", str(path), "--out", str(_NOWHERE)]
        rollout = parse_config(RolloutConfig, arguments, "invact libero rollout")
        protocol, pack = protocol_of(rollout), rollout.assets
        return DiagnosticContext(policy=rollout.policy, protocol=protocol, pack=pack, **common)
    if path is not None and not path.is_dir():
        raise UserError(
            f"no checkpoint folder {path}: give that of a checkpoint or of a post-training run, or "
            "a rollout config (.yaml)"
        )
    policy = None if path is None else CheckpointConfig(folder=path)
    if policy is not None:
        policy.checkpoint_folder()  # says what else it is
    rollout = RolloutConfig(
        out=_NOWHERE, policy=policy or NoopConfig(), protocol=config.protocol, suite=config.suite,
        max_steps=config.max_steps, render_px=config.render_px,
    )  # fmt: skip
    protocol = protocol_of(rollout)
    return DiagnosticContext(policy=policy, protocol=protocol, pack=config.assets, **common)


def ask(check: Check, context: DiagnosticContext) -> Finding:
    """The answer to one question; what cannot be loaded is a failure that says why."""
    for name in check.needs:
        if name in context.findings and context.findings[name].status in ("fail", "blocked"):
            found = f"not asked, for `{name}` failed"
            return Finding(status="blocked", expected="", found=found)
    try:
        why_not = ""
        if check.of != "setup" and context.policy is None:
            why_not = "no policy given"
        elif check.of == "checkpoint" and context.folder is None:
            why_not = "the policy is no checkpoint folder"
        elif check.of == "policy" and context.folder is None and context.source.reads_simulator:
            why_not = "the policy reads the simulator, not observations"
        return skipped(why_not) if why_not else check.run(context)
    except NoDemonstrations as error:
        return skipped(str(error))
    except UserError as error:
        return failed("it can be examined", "an error, see the advice", str(error))


def report(context: DiagnosticContext, config: DoctorConfig, seconds: float) -> dict[str, Any]:
    """What doctor.json holds."""
    findings = context.findings
    return {
        "subject": None if config.subject is None else str(config.subject),
        "healthy": not any(f.status == "fail" for f in findings.values()),
        "failed": [name for name, f in findings.items() if f.status == "fail"],
        "protocol": {"key": context.protocol.key, "hash": context.protocol.hash},
        "packages": dict(context.manifest["packages"]),
        "seconds": round(seconds, 1),
        "checks": json.loads(json.dumps({name: asdict(f) for name, f in findings.items()})),
    }
