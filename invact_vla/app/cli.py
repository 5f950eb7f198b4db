"""The `invact` command: finds the stage, parses its config, runs it; names who makes what is missing.

Stages are imported only when they are called, so `invact --help` is quick and labeling never loads a
simulator.
"""

import functools
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from invact_vla.app.experiment import REPOSITORY
from invact_vla.config.command import parse_config, run
from invact_vla.config.yaml_text import read_yaml
from invact_vla.core.errors import UserError

# command: module.config class: what it does
_TABLE = """
demo: invact_vla.app.experiment.ExperimentConfig: the whole pipeline in miniature, up to a report
ladder: invact_vla.app.experiment.ExperimentConfig: run all stages and variants of one experiment
report: invact_vla.app.report.stage.ReportConfig: write the HTML report of an experiment
bench: invact_vla.app.bench.BenchConfig: measured ratios, side by side in one run
data synth: latent_actions.synthetic.generate.SynthConfig:
    render synthetic human video as Ego-Exo4D and SSV2 trees
data index: latent_actions.video.index.IndexConfig:
    index the clips of a dataset and list skipped files
data phyworld: latent_actions.video.phyworld.PhyWorldConfig:
    balls that move, fall and collide, drawn from formulas in PhyWorld's layout
data check: invact_vla.data.check.DataCheckConfig:
    describe demonstrations and list what is wrong with them
encoder train: latent_actions.train_encoder.EncoderTrainConfig: train an InvAct encoder
encoder eval: latent_actions.retrieval.evaluate.EvalConfig:
    retrieval benchmarks of encoders, with chance and oracle
encoder compare: latent_actions.retrieval.compare.CompareEncodersConfig:
    compare encoders over several seeds
encoder search: latent_actions.retrieval.search.SearchConfig: clips nearest to a clip or a video
encoder baseline: latent_actions.retrieval.baselines.check.BaselineCheckConfig:
    sanity-check a baseline encoder's embeddings
encoder vila: latent_actions.retrieval.baselines.vila.VilaTrainConfig: train the VILA baseline
encoder levels: latent_actions.retrieval.metric.LevelsConfig:
    chance and oracle of a verb histogram (JSON file)
latent train: latent_actions.labelers.laq.train.LaqTrainConfig: train LAPA's latent action quantizer
latent label: latent_actions.labelers.label.LabelConfig: label clip pairs with codes
latent report: latent_actions.report.command.LatentReportConfig:
    does a code mean an action? compare label stores before training on them
latent export: latent_actions.labelers.export.ExportConfig:
    labels as LAPA's jsonl or as a Hugging Face data set
latent verify: latent_actions.labelers.verify.LaqVerifyConfig:
    check a latent action model against stored reference outputs
vla init: invact_vla.recipes.init.InitConfig: create the shared initial checkpoint
vla pretrain: invact_vla.recipes.pretrain.PretrainConfig: pretrain OpenVLA on latent-action tokens
vla posttrain: invact_vla.recipes.posttrain.PosttrainConfig:
    fine-tune OpenVLA on robot demonstrations
vla merge: invact_vla.openvla.adapters.merge.MergeConfig:
    merge a LoRA adapter into its base checkpoint
vla export: invact_vla.recipes.export.ExportConfig:
    write a checkpoint as stock OpenVLA code reads it, and push it to the hub
vla plan: invact_vla.recipes.plan.VLAPlanConfig: memory, disk and time of each stage, beforehand
vla verify: invact_vla.openvla.checkpoints.verify.VerifyConfig:
    check an OpenVLA checkpoint or adapter against stored reference outputs
libero doctor: libero_eval.doctor.command.DoctorConfig: check a checkpoint before a rollout
libero check: libero_eval.env.assets.check.CheckConfig: load, settle and render all LIBERO tasks
libero demos: libero_eval.demos.command.DemosConfig: write scripted demonstrations as LIBERO HDF5
libero demonstrate: libero_eval.rollout.expert_rates.DemonstrateConfig: success of the expert
libero rollout: libero_eval.rollout.command.RolloutConfig: roll a policy out in LIBERO
libero serve: libero_eval.rollout.serve.ServeConfig: serve a policy to rollouts elsewhere
libero merge: libero_eval.rollout.merge.MergeShardsConfig:
    merge the shards of a rollout into one run
libero report: libero_eval.report.run.ReportConfig: tables and an HTML page of a rollout
libero compare: libero_eval.report.compare.CompareConfig: paired tests between rollouts
libero plan: libero_eval.report.plan.PlanConfig: how many episodes a difference needs
bench gpu: invact_vla.app.gpu.GpuConfig: tests and figures of a GPU, 8 minutes at most
bench train: invact_vla.openvla.bench.train.BenchTrainConfig:
    time of a training step, beside a plain PyTorch loop
bench encoder: latent_actions.encoder.bench.BenchEncoderConfig: time of block commitment, ratios
bench decode: latent_actions.video.bench_decode.BenchDecodeConfig:
    clips per second of the installed video decoders
bench label: latent_actions.labelers.laq.bench.BenchLabelConfig:
    clips per second of labeling, beside LAPA's public procedure
bench vla: invact_vla.openvla.bench.action.BenchVlaConfig: time of an action, ratios
bench rollout: libero_eval.bench.rollout.BenchRolloutConfig:
    benchmark simulator throughput against LIBERO's reference loop
"""
_ROWS = re.findall(r"^(\S.*?): (\S+)\.(\w+):\s+(.*)", _TABLE, re.MULTILINE)
COMMANDS = {name: (module, config, purpose) for name, module, config, purpose in _ROWS}
GROUPS = {
    "": "a whole experiment",
    "data": "videos and demonstrations",
    "encoder": "the InvAct encoder, baselines, retrieval benchmarks",
    "latent": "latent actions: LAPA's quantizer and labels of clip pairs",
    "vla": "OpenVLA: pretraining, post-training, conversion",
    "libero": "LIBERO: rollouts, reports, scripted demonstrations",
    "bench": "speed, measured here",
}
SAY_THEMSELVES = ("demo", "ladder", "report", "latent report")  # where their product lies
DEFAULT_CONFIGS = {"demo": "configs/ladder/demo.yaml"}


def usage(groups: Sequence[str] = tuple(GROUPS)) -> str:
    """The commands of some groups, a line each."""
    width = max(map(len, COMMANDS))
    lines = [
        "usage: invact COMMAND [--config_path configs/<area>/<name>.yaml] [--option value ...]"
    ]
    for group in groups:
        lines += ["", f"{group or 'invact'}: {GROUPS[group]}" if len(groups) > 1 else GROUPS[group]]
        for name, (_, _, purpose) in COMMANDS.items():
            if (name if name in GROUPS else _group(name)) == group:
                lines.append(f"  invact {name:<{width}}  {purpose}")
    return "\n".join([*lines, "", "`invact COMMAND --help` explains every option."])


def _group(name: str) -> str:
    return name.rpartition(" ")[0]


def find_command(args: Sequence[str]) -> tuple[str, list[str]]:
    """Split `latent label --x 1` into the command and the rest."""
    for length in (2, 1):
        name = " ".join(args[:length])
        if len(args) >= length and name in COMMANDS:
            return name, list(args[length:])
    known = [name for name in COMMANDS if _group(name) == args[0]] or list(COMMANDS)
    raise UserError(f"unknown command {' '.join(args[:2])!r}: expected one of {', '.join(known)}")


def prepare(name: str, args: Sequence[str]) -> Callable[[], object]:
    """Import the stage of a command and parse its arguments; calling the result runs it."""
    module_name, config_name, purpose = COMMANDS[name]
    module = importlib.import_module(module_name)
    if name in DEFAULT_CONFIGS and not any(a.startswith("--config_path") for a in args):
        args = ["--config_path", str(module.find_config(Path(DEFAULT_CONFIGS[name]))), *args]
    config = parse_config(getattr(module, config_name), args, f"invact {name}", purpose)
    return lambda: module.main(config)


def _asked_groups(words: list[str]) -> list[str]:
    """The groups whose commands `invact`, `invact --help`, `invact libero [--help]` list; else none."""
    named = [word for word in words if word not in ("-h", "--help")]
    if not named:
        return list(GROUPS)
    is_whole = named[0] in GROUPS and (named[0] not in COMMANDS or len(words) > 1)
    return [named[0]] if is_whole and len(named) == 1 else []


def maker_of(path: Path) -> str | None:
    """The command whose run folder holds `path`; None if no config writes there, or if the run is
    finished, so that the path cannot be what it would make."""
    found = [(out, command) for out, command in makers() if path == out or out in path.parents]
    if not found:
        return None
    out, command = max(found, key=lambda maker: len(maker[0].parts))
    return None if (out / "done.json").exists() else command


@functools.cache
def makers() -> list[tuple[Path, str]]:
    """(run folder, command) of every config that names its run folder."""
    found = []
    for path in sorted((REPOSITORY / "configs").glob("*/*.yaml")):
        command, out = command_of(path), read_yaml(path).get("out")
        if command is not None and isinstance(out, str):
            found.append((Path(out), command))
    return found


def command_of(config: Path) -> str | None:
    """The command in the header of a config; None if it names none."""
    header = [line[1:].strip() for line in config.read_text().splitlines() if line.startswith("#")]
    name = config.relative_to(REPOSITORY).as_posix()
    pattern = rf"invact ((?:[a-z]+ ){{1,2}})(?:(?!\binvact )[^`])*?--config_path {re.escape(name)}"
    found = re.search(pattern, " ".join(header))
    return f"invact {found[1]}--config_path {name}" if found else None


def with_maker(error: UserError) -> UserError:
    """The error, with the command that makes the missing path that it names."""
    text = str(error)
    for word in re.findall(r"[\w./-]*/[\w./-]*\w", text):
        command = None if Path(word).exists() else maker_of(Path(word))
        if command is not None:
            return UserError(f"{text}; `{command}` makes it")
    return error


def main(args: Sequence[str] | None = None) -> None:
    """Entry point; exits with 0, 2 for user errors, or the code that the command returns."""
    words = list(sys.argv[1:] if args is None else args)
    if groups := _asked_groups(words):
        print(usage(groups))
        sys.exit(0)

    def action() -> object:
        name, rest = find_command(words)
        try:
            result = prepare(name, rest)()
        except UserError as error:
            raise with_maker(error) from error
        if isinstance(result, Path) and name not in SAY_THEMSELVES:
            print(f"done: {result}", file=sys.stderr)
        return result

    sys.exit(run(action))


if __name__ == "__main__":
    main()
