"""LAQ on two processes: equal codebooks, since all re-seed from the same outputs; rank 0 writes."""

from pathlib import Path

import pytest
import torch

from latent_actions.labelers.laq.checkpoint import from_pretrained
from tests.latent_actions.encoder.test_distributed import rows, torchrun

SCRIPT = """
import sys
from pathlib import Path
import torch
from invact_vla.training.distributed import init_distributed, gather, rank_info
from invact_vla.training.loop import fit
from latent_actions.labelers.guard.collapse import CollapseConfig
from latent_actions.labelers.laq.checkpoint import save_pretrained
from latent_actions.labelers.guard.guarded import after_step, guarded_loss
from latent_actions.labelers.laq.task import LaqTask, batches
from tests.latent_actions.labelers.test_codebook_usage import TINY, loop, moving_squares

init_distributed("cpu")
torch.manual_seed(0)
task = LaqTask(TINY, CollapseConfig(window=5, dead_code_threshold=0.2), 20, 0)
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
fit(task, guarded_loss, batches(moving_squares(128), 16, 0), loop(20), folder, after_step, device="cpu")
books = gather(task.laq.vq.codebooks.data[None])
assert all(torch.equal(books[0], book) for book in books), "codebooks differ between ranks"
assert int(task.guard.counts.sum()) == 5 * 16 * 4, "codes of all ranks are counted"
if rank_info().index == 0:
    save_pretrained(task.laq, folder / "model")
"""


@pytest.mark.slow
def test_ranks_keep_equal_codebooks_and_train_as_one(tmp_path: Path) -> None:
    for processes in (1, 2):
        script = tmp_path / "train.py"
        script.write_text(SCRIPT)
        done = torchrun(processes, str(script), str(tmp_path / f"run{processes}"))
        assert done.returncode == 0, done.stderr
    first = [rows(tmp_path / f"run{n}")[0] for n in (1, 2)]
    assert first[0]["perplexity_min"] == pytest.approx(first[1]["perplexity_min"], rel=0.2)
    models = [from_pretrained(tmp_path / f"run{n}" / "model") for n in (1, 2)]
    spread = [float(torch.pdist(m.vq.codebooks.detach()).mean()) for m in models]
    assert spread[0] == pytest.approx(spread[1], rel=0.5)
