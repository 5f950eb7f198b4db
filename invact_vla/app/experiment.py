"""An experiment: all stages of all variants, from one YAML, side by side where they can be.

A stage is a command of `invact` with a config file and some settings; `{name}` in a setting stands for
the folder of another stage, and that is all the dependency graph there is. A stage with `seeds: [0, 1]`
stands for the stages <name>_0 and <name>_1, and `{<name>}` for both folders, with a comma between.
Each stage runs in a process of its own with its own log. A finished stage whose config and inputs are
unchanged is skipped without starting anything; a killed one continues where its last checkpoint or file
left it.
"""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json, make_folder, read_json, write_json
from invact_vla.core.limits import inside, short
from invact_vla.core.run_folder import lock_folder

REPOSITORY = Path(__file__).resolve().parents[2]
STATUS_EVERY_S = 20.0
_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")  # as of a bar that goes up a line
_STAGE_NAME = re.compile(r"[A-Za-z0-9_]{1,100}")


@dataclass(frozen=True, kw_only=True)
class StageSpec:
    """One box of the picture."""

    command: str  # the `invact` command, e.g. "encoder train"
    config: Path | None = None  # its YAML, relative to the repository or the working directory
    settings: dict[str, str] = field(default_factory=dict)  # overrides; {name} = folder of a stage
    cores: int = 1  # cores it keeps busy
    seeds: tuple[int, ...] = ()  # repeat the stage with each as its `seed`; none: once, as it is

    @property
    def needs(self) -> set[str]:
        """The stages whose folders it reads."""
        return set(re.findall(r"{(\w+)}", " ".join(self.settings.values())))


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """An experiment: named stages, and how many cores they may share."""

    stages: dict[str, StageSpec]  # name -> stage
    out: Path = Path("runs/experiment")  # folder of the experiment; each stage writes <out>/<name>
    jobs: int = 2  # cores to use
    overwrite: bool = False  # replace stages whose config or inputs have changed
    product: str = "report/report.html"  # what to look at in the end, inside `out`

    def __post_init__(self) -> None:
        if not self.stages or self.jobs < 1:
            raise ValueError("an experiment needs at least one stage, and jobs of at least 1")
        object.__setattr__(self, "stages", repeated(self.stages))
        inside(self.out, self.product)
        for name, stage in self.stages.items():
            if not _STAGE_NAME.fullmatch(name):
                raise ValueError(
                    f"a stage is called {short(repr(name))}, which is no plain folder name: use "
                    "letters, digits and underscores"
                )
            unknown = stage.needs - set(self.stages)
            if unknown:
                raise ValueError(f"stage {name} needs {sorted(unknown)}, which are not stages")
            if not stage.cores >= 1:
                raise ValueError(f"stage {name}: cores must be at least 1")
        try:
            TopologicalSorter({name: stage.needs for name, stage in self.stages.items()}).prepare()
        except CycleError as error:
            waiting = " -> ".join(error.args[1])
            raise ValueError(f"stages wait for each other: {waiting}; none could begin") from None


def repeated(stages: dict[str, StageSpec]) -> dict[str, StageSpec]:
    """Stages with `seeds` written out, a stage a seed; ValueError if a name comes up twice.

    A reference to a repeated stage becomes one to each of its repetitions, "{a_0}, {a_1}"; in another
    repeated stage "{a_seed}" is the repetition of its own seed.
    """

    def written_out(match: re.Match[str]) -> str:
        seeds = stages[match[1]].seeds if match[1] in stages else ()
        return ", ".join(f"{{{match[1]}_{seed}}}" for seed in seeds) or match[0]

    found: dict[str, StageSpec] = {}
    for name, stage in stages.items():
        settings = {k: re.sub(r"{(\w+)}", written_out, v) for k, v in stage.settings.items()}
        for seed in stage.seeds or (None,):
            own = name if seed is None else f"{name}_{seed}"
            if own in found:
                raise ValueError(f"two stages are called {own}: rename one, or give a seed once")
            given = settings
            if seed is not None:
                given = {k: v.replace("_seed}", f"_{seed}}}") for k, v in settings.items()}
                given["seed"] = str(seed)
            found[own] = replace(stage, settings=given, seeds=())
    return found


def main(config: ExperimentConfig) -> Path:
    """Run what is not finished; returns and prints the path of the product."""
    started = time.monotonic()
    for stage in config.stages.values():  # not after the hours of the stages before it
        if stage.config is not None:
            find_config(stage.config)
    make_folder(config.out)
    with closing(lock_folder(config.out)):
        Scheduler(config).run()
    product = config.out / config.product
    product = product if product.exists() else config.out
    print(f"done in {time.monotonic() - started:.0f} s: {product.resolve()}")
    return product


class Scheduler:
    """Starts stages as soon as their inputs are finished and cores are free."""

    def __init__(self, config: ExperimentConfig) -> None:
        self.config = config
        self.waiting = list(config.stages)
        self.running: dict[str, subprocess.Popen] = {}
        self.finished: set[str] = set()
        self.started: dict[str, float] = {}

    def run(self) -> None:
        last_status = time.monotonic()
        try:
            while self.waiting or self.running:
                self._start_what_can_start()
                if self.running:
                    time.sleep(0.2)
                self._collect()
                if time.monotonic() - last_status > STATUS_EVERY_S:
                    last_status = time.monotonic()
                    self._say(" | ".join(f"{n}: {self._progress(n)}" for n in self.running))
        finally:
            for process in self.running.values():
                process.terminate()

    def _start_what_can_start(self) -> None:
        free = self.config.jobs - sum(self._cores(n) for n in self.running)
        for name in list(self.waiting):
            if not self.config.stages[name].needs <= self.finished:
                continue
            if self._is_finished(name):
                self.waiting.remove(name)
                self.finished.add(name)
                self._say(f"{name}: already finished")
            elif self._cores(name) <= free:
                self.waiting.remove(name)
                free -= self._cores(name)
                self._start(name)

    def _start(self, name: str) -> None:
        self._log(name).parent.mkdir(exist_ok=True)
        self._say(f"{name}: started (log {self._log(name)})")
        with open(self._log(name), "w") as log:
            self.running[name] = subprocess.Popen(
                self._command(name), stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - this process has one thread
            )  # fmt: skip
        self.started[name] = time.monotonic()

    def _collect(self) -> None:
        for name, process in list(self.running.items()):
            code = process.poll()
            if code is None:
                continue
            del self.running[name]
            if code != 0:
                log = self._log(name)
                tail = log.read_text(errors="replace")[-2000:]
                print(f"--- end of {log} ---\n{tail}", file=sys.stderr)
                raise UserError(f"stage {name} ended with code {code}: see {log}")
            self.finished.add(name)
            write_json(self._mark(name), {"fingerprint": self._fingerprint(name)})
            self._say(f"{name}: finished in {time.monotonic() - self.started[name]:.0f} s")

    def _command(self, name: str) -> list[str]:
        stage, out = self.config.stages[name], self.config.out
        words = [sys.executable, "-m", "invact_vla.app.cli", *stage.command.split()]
        if stage.config is not None:
            words += ["--config_path", str(find_config(stage.config))]
        for key, value in stage.settings.items():
            words += [f"--{key}", re.sub(r"{(\w+)}", lambda match: str(out / match[1]), value)]
        words += ["--overwrite", "true"] if self.config.overwrite else []
        return [*words, "--out", str(out / name)]

    def _is_finished(self, name: str) -> bool:
        paths = self._mark(name), self.config.out / name / "done.json"
        is_done = all(path.exists() for path in paths)
        return is_done and read_json(paths[0])["fingerprint"] == self._fingerprint(name)

    def _fingerprint(self, name: str) -> str:
        """Config bytes, settings and the keys of the inputs: what decides whether to run again."""
        stage = self.config.stages[name]
        text = find_config(stage.config).read_text() if stage.config is not None else ""
        keys = {n: read_json(self.config.out / n / "done.json")["key"] for n in stage.needs}
        return hash_json([stage.command, text, stage.settings, keys])

    def _progress(self, name: str) -> str:
        """The last thing a stage said, cut to a status line."""
        text = _TERMINAL_CODE.sub("", self._log(name).read_text(errors="replace"))
        lines = re.split(r"[\r\n]+", text.strip())
        return lines[-1].strip()[:100]

    def _mark(self, name: str) -> Path:
        return self.config.out / "logs" / f"{name}.json"

    def _log(self, name: str) -> Path:
        return self.config.out / "logs" / f"{name}.log"

    def _cores(self, name: str) -> int:
        return min(self.config.stages[name].cores, self.config.jobs)

    def _say(self, text: str) -> None:
        if text:
            count = f"{len(self.finished)}/{len(self.config.stages)}"
            print(f"[{time.strftime('%H:%M:%S')} {count}] {text}", flush=True)


def find_config(path: Path) -> Path:
    """A config file as given, or relative to the repository."""
    for candidate in (path, REPOSITORY / path):
        if candidate.exists():
            return candidate
    raise UserError(f"no config file {path}: expected it here or in {REPOSITORY}")


def _die_with_parent() -> None:
    """Linux: a killed experiment takes its stages with it, so that none works on unseen."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
