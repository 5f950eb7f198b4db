"""The `invact` command: finds the stage, parses its config, runs it.

Stages are imported only when they are called, so `invact --help` is quick and labelling never loads a
simulator.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from invact_vla.errors import UserError
from invact_vla.training.cli import parse_config, run

# command -> (module, config class or None when it takes one path, what it does)
COMMANDS: dict[str, tuple[str, str | None, str]] = {
    "demo": ("invact_vla.ladder", "LadderConfig", "the whole ladder in miniature, ends with a report"),
    "ladder": ("invact_vla.ladder", "LadderConfig", "all stages and arms of one experiment"),
    "report": ("invact_vla.report.stage", "ReportConfig", "the HTML report of a ladder folder"),
    "bench": ("invact_vla.bench", "BenchConfig", "measured ratios, side by side in one run"),
    "data synth": (
        "latent_actions.video.synthetic.generate", "SynthConfig",
        "render synthetic human video as Ego-Exo4D and SSV2 trees",
    ),
    "data index": (
        "latent_actions.video.index", "IndexConfig", "the clips of a source, and what was dropped",
    ),
    "data phyworld": (
        "latent_actions.video.phyworld.generate", "PhyWorldConfig",
        "balls that move, fall and collide, drawn from formulas in PhyWorld's layout",
    ),
    "data check": (
        "invact_vla.data.check", "DataCheckConfig", "what is in demonstrations, and what is wrong",
    ),
    "encoder train": ("latent_actions.invact.train", "EncoderTrainConfig", "train InvAct"),
    "encoder eval": ("latent_actions.retrieval.evaluate", "EvalConfig", "retrieval P@10 of encoders"),
    "encoder compare": (
        "latent_actions.retrieval.compare", "CompareConfig", "arms side by side, several seeds each",
    ),
    "encoder search": (
        "latent_actions.retrieval.search", "SearchConfig", "clips nearest to a clip or a video",
    ),
    "encoder baseline": (
        "latent_actions.retrieval.baselines.check", "BaselineCheckConfig", "a baseline and its vectors",
    ),
    "encoder vila": (
        "latent_actions.retrieval.baselines.vila_train", "VilaTrainConfig", "train our VILA",
    ),
    "encoder levels": (
        "latent_actions.retrieval.levels", None, "chance and oracle of a verb histogram (JSON file)",
    ),
    "latent train": ("latent_actions.methods.laq.train", "LaqTrainConfig", "train the LAPA LAQ"),
    "latent label": ("latent_actions.label", "LabelConfig", "label clip pairs with codes"),
    "latent verify": (
        "latent_actions.methods.laq.verify", None, "hold a LAQ folder against its expected outputs",
    ),
    "vla init": ("invact_vla.init", "InitConfig", "fresh weights and tokenizer: the start of all arms"),
    "vla pretrain": ("invact_vla.pretrain", "PretrainConfig", "OpenVLA on latent tokens"),
    "vla posttrain": ("invact_vla.posttrain", "PosttrainConfig", "OpenVLA on robot actions"),
    "vla merge": (
        "invact_vla.openvla.merge", "MergeConfig", "merge a LoRA adapter into its base checkpoint",
    ),
    "vla export": (
        "invact_vla.export", "ExportConfig",
        "write a checkpoint as stock OpenVLA code reads it, and push it to the hub",
    ),
    "vla plan": ("invact_vla.plan", "PlanConfig", "memory, disk and time of each stage, beforehand"),
    "vla verify": (
        "invact_vla.openvla.verify", "VerifyConfig",
        "check an OpenVLA checkpoint or adapter against stored reference outputs",
    ),
    "libero doctor": (
        "libero_eval.doctor.command", "DoctorConfig", "why would this checkpoint score 0 %?",
    ),
    "libero check": ("libero_eval.assets.check", "CheckConfig", "load, settle and render all tasks"),
    "libero demos": ("libero_eval.demos", "DemosConfig", "scripted demonstrations as LIBERO HDF5"),
    "libero demonstrate": (
        "libero_eval.demonstrator.evaluate", "DemonstrateConfig", "success of the demonstrator",
    ),
    "libero rollout": ("libero_eval.rollout", "RolloutConfig", "a policy in LIBERO, episode by episode"),
    "libero serve": ("libero_eval.remote.serve", "ServeConfig", "a policy for rollouts elsewhere"),
    "libero merge": ("libero_eval.merge", "MergeConfig", "the shards of a rollout as one run"),
    "libero report": ("libero_eval.report.run", "ReportConfig", "tables and a page of a rollout"),
    "libero compare": ("libero_eval.report.compare", "CompareConfig", "paired tests between rollouts"),
    "libero plan": ("libero_eval.report.plan", "PlanConfig", "how many episodes a difference needs"),
    "bench gpu": ("invact_vla.gpu", "GpuConfig", "tests and figures of a GPU, 8 minutes at most"),
    "bench train": (
        "invact_vla.openvla.bench_train", "BenchTrainConfig",
        "time of a training step, beside a plain PyTorch loop",
    ),
    "bench encoder": ("latent_actions.bench", "BenchEncoderConfig", "time of block commitment, ratios"),
    "bench vla": ("invact_vla.openvla.bench", "BenchVlaConfig", "time of an action, ratios"),
    "bench rollout": (
        "libero_eval.bench", "BenchRolloutConfig", "simulator speed beside the public loop",
    ),
}  # fmt: skip
DEFAULT_CONFIGS = {"demo": "configs/ladder/demo.yaml"}


def usage() -> str:
    """All commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  invact {name:<{width}}  {entry[2]}" for name, entry in COMMANDS.items()]
    return "\n".join(
        [
            "usage: invact COMMAND [--config_path configs/<area>/<name>.yaml] [--field value ...]",
            *lines,
            "`invact COMMAND --help` explains every option.",
        ]
    )


def find_command(args: Sequence[str]) -> tuple[str, list[str]]:
    """Split `latent label --x 1` into the command and the rest."""
    for length in (2, 1):
        name = " ".join(args[:length])
        if len(args) >= length and name in COMMANDS:
            return name, list(args[length:])
    raise UserError(
        f"unknown command {' '.join(args[:2])!r}: expected one of {', '.join(COMMANDS)}"
    )


def prepare(name: str, args: Sequence[str]) -> Callable[[], object]:
    """Import the stage of a command and parse its arguments; calling the result runs it."""
    module_name, config_name, purpose = COMMANDS[name]
    module = importlib.import_module(module_name)
    if config_name is None:
        if len(args) != 1 or args[0] in ("-h", "--help"):
            raise UserError(f"invact {name} takes one path ({purpose}), got {list(args)}")
        return lambda: module.main(Path(args[0]))
    if name in DEFAULT_CONFIGS and not any(a.startswith("--config_path") for a in args):
        args = ["--config_path", str(module.find_config(Path(DEFAULT_CONFIGS[name]))), *args]
    config = parse_config(getattr(module, config_name), args, f"invact {name}")
    return lambda: module.main(config)


def main(args: Sequence[str] | None = None) -> None:
    """Entry point; exits with 0, 2 for user errors, or the code that the command returns."""
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        sys.exit(0)

    def action() -> object:
        name, rest = find_command(words)
        return prepare(name, rest)()

    sys.exit(run(action))


if __name__ == "__main__":
    main()
