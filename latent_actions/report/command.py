"""`invact latent report`: what label stores say of actions, before anything is trained on them.

<out>/index.html     the page: a verdict, one table, then each measurement
<out>/report.json    all numbers, with intervals, pairs and videos
<out>/report.txt     the table and the verdict, as printed
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, write_json
from invact_vla.core.run_folder import open_run, run_of
from invact_vla.core.text_table import text_table
from invact_vla.html.render import Html
from invact_vla.training.device import stage_device
from latent_actions.report.measure import MeasureConfig, Measured, Measurer, plain, transfers
from latent_actions.report.page import overview, write_report_page
from latent_actions.report.seeds import over_seeds
from latent_actions.report.stores import open_stores
from latent_actions.report.verdict import MARKS, Verdict, verdicts


@dataclass(frozen=True, kw_only=True)
class LatentReportConfig:
    """Which label stores, and what is measured of them."""

    POSITIONAL = "stores"

    # label stores (.parquet), or run folders of `invact latent label`, whose labels of "val" are taken;
    # folders NAME_0, NAME_1, ... of one labeler with several seeds are compared as one
    stores: tuple[Path, ...]
    out: Path = Path("runs/latent_report")  # run folder
    overwrite: bool = False  # replace a run folder of another report
    seed: int = 0  # decides folds, networks and draws
    videos: tuple[
        Path, ...
    ] = ()  # roots below which labeled videos lie, besides what run folders say
    max_pairs: int = 4000  # pairs of a store that are measured, whole videos of them
    measure: MeasureConfig = field(default_factory=MeasureConfig)  # what is measured
    device: str = "auto"  # where networks run: auto | cpu | cuda | cuda:N | mps

    def __post_init__(self) -> None:
        if not self.stores or self.max_pairs < 1:
            raise ValueError("stores must name at least one label store, max_pairs must be >= 1")


def main(config: LatentReportConfig) -> Path:
    """Measure, write the page and the numbers, print the verdict; returns the run folder."""
    for path in config.stores:
        if not Path(path).exists():
            raise UserError(f"no label store {path}: run `invact latent label` first")
    inputs = {f"store_{number}": run_of(Path(path)) for number, path in enumerate(config.stores)}
    run = open_run(config.out, config, inputs, config.overwrite, config.seed)
    if run.finished:
        print((run.folder / "report.txt").read_text(), end="")
        return run.folder
    stores = open_stores(config.stores, config.videos, config.max_pairs, config.measure.truth)
    torch.set_num_threads(1)
    device = stage_device(run, config.device)
    measured = Measurer(config.measure, device, config.seed).measure(stores)
    compared = over_seeds(measured)
    means = [m for m in compared if all(m is not one for one in measured)]
    found, transferred = verdicts(compared), transfers(measured)
    numbers = {
        "verdicts": [plain(v) | {"sentence": v.sentence} for v in found],
        "stores": _numbers(measured),
        "over_seeds": _numbers(means),
        "transfers": plain(transferred),
    }
    write_json(run.folder / "report.json", numbers)
    write_report_page(run.folder / "index.html", measured, compared, found, transferred)
    text = _text(compared, found)
    with atomic_file(run.folder / "report.txt") as temporary:
        temporary.write_text(text)
    print(text, end=f"{run.folder / 'index.html'}\n")
    run.finish({"verdicts": [v.sentence for v in found], "stores": [m.name for m in measured]})
    return run.folder


def _numbers(measured: list[Measured]) -> dict[str, object]:
    return {
        m.name: {
            "labeler": m.labeled.store.identity.labeler,
            "dataset": m.labeled.store.identity.dataset,
            "pairs": len(m.labeled.store),
            "notes": list(m.labeled.notes),
            "marks": {mark.name: mark.judge(m)[0] for mark in MARKS},
            **plain(m),
        }
        for m in measured
    }


def _text(measured: list[Measured], found: list[Verdict]) -> str:
    """The table and the verdict for a terminal."""
    shown = overview(measured)
    rows = [[Html(cell).striptags() for cell in row] for row in shown["rows"]]
    table = text_table(shown["head"], rows, left=(0,))
    return "\n".join([table, "", *(verdict.sentence for verdict in found), ""])
