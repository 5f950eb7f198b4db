"""Tokens of instructions for stage 1: T5's, as published, or hashed words that need no download."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from latent_actions.encoder.inputs.language import text_features
from latent_actions.published_model import published_model

MAX_WORDS = 24  # tokens of an instruction that are kept


def instruction_tokens(
    texts: Sequence[str], width: int, folder: Path | None, device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Lower-case instructions without punctuation -> tokens float32 (N, L, width) and which of them are
    no padding, bool (N, L). folder: of a T5 encoder in transformers' layout with its tokenizer, whose
    width must be `width`; None: one hashed vector per word."""
    plain = [re.sub(r"[^\w\s]", "", text.lower()).strip() for text in texts]
    unique = sorted(set(plain))
    if folder is None:
        found = {text: text_features(text.split()[:MAX_WORDS] or [""], width) for text in unique}
    else:
        found = _t5(unique, folder, device)
    length = max((len(rows) for rows in found.values()), default=1)
    tokens = np.zeros((len(plain), length, width), np.float32)
    seen = np.zeros((len(plain), length), bool)
    for row, text in enumerate(plain):
        tokens[row, : len(found[text])], seen[row, : len(found[text])] = found[text], True
    return tokens, seen


@torch.no_grad()
def _t5(texts: Sequence[str], folder: Path, device: torch.device) -> dict[str, np.ndarray]:
    from transformers import AutoTokenizer, T5EncoderModel

    model = published_model(T5EncoderModel, str(folder), device)
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    found = {}
    for text in texts:
        ids = torch.tensor([tokenizer(text).input_ids[:MAX_WORDS]], device=device)
        found[text] = model(input_ids=ids).last_hidden_state[0].float().cpu().numpy()
    return found
