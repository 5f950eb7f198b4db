"""`invact encoder train`: clips to an InvAct encoder.

<out>/encoder/         config.json, model.safetensors, README.md (InvActEncoder.from_pretrained)
<out>/language/        the text side
<out>/frames/          decoded clips, made once (or `frames`)
<out>/metrics.jsonl    losses and routing diagnostics
<out>/retrieval.json   precision@10 on the validation scenes, beside two baselines
<out>/committed.png    which patches the action token holds

With `accelerate launch --num_processes W` (or a config of configs/accelerate) W processes share each
batch and the loss is that of the whole batch; rank 0 writes.
"""

from pathlib import Path

import numpy as np

from invact_vla.core.files import write_json
from invact_vla.core.run_folder import Run, open_run
from invact_vla.training.device import stage_device
from invact_vla.training.distributed import init_distributed, main_process_first, run_on_main
from latent_actions.encoder.displacement_fit import displacement_r2
from latent_actions.encoder.encoder import InvActEncoder
from latent_actions.encoder.inputs.clips import ClipTable, pair_views
from latent_actions.encoder.model import InvActModel
from latent_actions.encoder.model_card import model_card
from latent_actions.encoder.train import EncoderTrainConfig, train
from latent_actions.encoder.validate import check_clips, unseen_verbs
from latent_actions.encoder.visualize import committed_picture
from latent_actions.retrieval.encoders import evaluated, references
from latent_actions.retrieval.evaluate import evaluate, format_scores

_PICTURED = 8  # validation clips in committed.png


def main(config: EncoderTrainConfig) -> Path:
    """Train, evaluate, write the products; returns the run folder."""
    init_distributed(config.device)
    parents = config.data.parents() | ({} if config.start is None else {"start": config.start})
    run = run_on_main(
        lambda: open_run(
            config.out, config, inputs=parents, overwrite=config.overwrite, seed=config.seed
        )
    )
    if run.finished:
        return run.folder
    table = main_process_first(
        lambda: config.data.table(
            config.model.frames, config.frames or run.folder / "frames", config.workers
        )
    )
    check_clips(table, config.loss.contrast)
    model = train(config, table, run.folder, stage_device(run, config.device))
    run_on_main(lambda: _finish(config, table, model, run))
    return run.folder


def _finish(config: EncoderTrainConfig, table: ClipTable, model: InvActModel, run: Run) -> None:
    """Evaluate and write the products."""
    encoder = model.encoder
    others = references(config.model, config.seed, encoder.device)
    result = evaluate([evaluated(encoder, "encoder"), *others], table, "val")
    result["unseen_verbs"] = unseen_verbs(table)
    if encoder.config.displacement:
        target, rows = config.displacement.target, table.rows_of("val")
        result["displacement_r2"] = displacement_r2(encoder, table, rows, target)
    encoder.card = model_card(config, table, result, sum(p.numel() for p in encoder.parameters()))
    encoder.save_pretrained(run.folder / "encoder")
    model.language.save_pretrained(run.folder / "language")
    if encoder.commit_blocks:
        _draw(encoder, table, run.folder / "committed.png")
    write_json(run.folder / "retrieval.json", result)
    print(format_scores(result))
    names = ("levels", "unseen_verbs", "displacement_r2")
    found = {name: result[name] for name in names if name in result}
    run.finish({**result["encoders"]["encoder"], **found})


def _draw(encoder: InvActEncoder, table: ClipTable, path: Path) -> None:
    """Committed tokens of a few validation moments, ego and exo."""
    pairs = pair_views(table, table.rows_of("val"))
    picks = np.linspace(0, len(pairs.ego) - 1, min(_PICTURED // 2, len(pairs.ego))).astype(int)
    rows = np.stack([pairs.ego[picks], pairs.exo[picks]], axis=1).reshape(-1)
    frames = table.read(rows)
    committed_picture(frames, encoder.committed(frames), path)
