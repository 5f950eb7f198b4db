"""`invact vla init`: fresh weights and a tokenizer, the common start of every variant of an experiment.

<out>/model/    checkpoint folder (HF layout) with latent tokens in unused vocabulary rows
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json
from invact_vla.core.limits import read_text, some
from invact_vla.core.run_folder import open_run
from invact_vla.openvla.checkpoints.checkpoint import fresh, save_pretrained
from invact_vla.openvla.checkpoints.config_file import load_model_config, with_latent_tokens
from invact_vla.openvla.checkpoints.folder import MODEL
from invact_vla.openvla.tokenizer import prompt_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """A model size and the texts that its tokenizer is trained on."""

    out: Path = Path("runs/vla_init")  # folder of the run
    seed: int = 0  # of the weights
    overwrite: bool = False  # replace a run with another config
    model: Path = Path("configs/vla/model_cpu.yaml")  # size
    texts: tuple[Path, ...] = ()  # .txt (a line each) or SSV2 label .json files
    codebook_size: int = 8  # latent codes to find room for


def main(config: InitConfig) -> Path:
    """Build, save, and return the run folder."""
    texts = [prompt_of(text) for path in config.texts for text in read_texts(path)]
    if config.texts and not texts:
        raise UserError(f"no words in {some(map(str, config.texts))}: expected a task in each line")
    inputs = {f"texts{i}": path for i, path in enumerate(config.texts)} | {"size": config.model}
    run = open_run(config.out, config, inputs, config.overwrite, config.seed)
    if run.finished:
        return run.folder
    model_config = with_latent_tokens(load_model_config(config.model), config.codebook_size)
    pretrained = fresh(model_config, texts, config.seed)
    save_pretrained(pretrained, run.folder / MODEL)
    parameters = sum(p.numel() for p in pretrained.model.parameters())
    logger.info("%s: %.2f million parameters", run.folder, parameters / 1e6)
    run.finish({"parameters": parameters, "texts": len(texts)})
    return run.folder


def read_texts(path: Path) -> list[str]:
    """Lines of a text file, or the `label` of every record of an SSV2 label file."""
    if path.suffix == ".json":
        records = read_json(path)
        found = records if isinstance(records, list) else [None]
        labels = [
            str(r["label"]) for r in found if isinstance(r, dict) and type(r.get("label")) is str
        ]
        if len(labels) < len(found):
            raise UserError(f"{path}: expected a list of records with a `label` of words each")
        return labels
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]
