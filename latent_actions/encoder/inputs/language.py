"""Language grounding: frozen text features, one linear map to the embedding, two losses.

The default features need no download: hashed words and character trigrams, L2-normalized. What is
learned is the linear map W_t alone, so the text side stays small. K texts, F features, D embedding.
"""

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder, read_json, write_json
from invact_vla.training.device import CPU, Device, resolve_device
from invact_vla.untrusted.torch_files import read_safetensors
from latent_actions.encoder.losses import multi_positive_infonce

FEATURES = 512  # F, buckets of the hash
_WORDS = re.compile(r"[a-z0-9]+")
_SUBJECT = re.compile(
    r"^(c|the (person|man|woman)|a (person|man|woman)|he|she|they)\s+", re.IGNORECASE
)


def text_features(texts: Sequence[str], size: int = FEATURES) -> np.ndarray:
    """Hashed words (weight 1) and trigrams of padded words (weight 0.5), signed: float32 (K, F),
    unit rows.
    """
    rows = np.zeros((len(texts), size), np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in _WORDS.findall(text.lower()):
            padded = f"<{word}>"
            pieces = [(word, 1.0)] + [(padded[i : i + 3], 0.5) for i in range(len(padded) - 2)]
            for piece, weight in pieces:
                code = zlib.crc32(piece.encode())
                row[code % size] += weight * (1 if code >> 31 else -1)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def verb_sentence(verb: str) -> str:
    """The bare verb in a sentence: nouns, which name the scene, stay out."""
    return f"a person {verb}s something" if " " not in verb else f"a person does {verb} something"


def without_subject(text: str) -> str:
    """A description without its leading subject ("C picks a cup" -> "picks a cup")."""
    return _SUBJECT.sub("", text.strip())


class LanguageHead(nn.Module):
    """W_t and the verbs it can name. verbs: train verbs, in order of their class index."""

    def __init__(self, verbs: Sequence[str], embedding: int, features: int = FEATURES) -> None:
        super().__init__()
        self.verbs = tuple(verbs)
        self.project = nn.Linear(features, embedding, bias=False)
        sentences = [verb_sentence(verb) for verb in self.verbs]
        known = torch.from_numpy(text_features(sentences, features))
        self.register_buffer("verb_features", known.to(self.project.weight.device))

    def forward(self, features: Tensor) -> Tensor:
        """(K, F) -> (K, D) of unit length, fp32."""
        return F.normalize(self.project(features).float(), dim=-1)

    def classify(self, embedding: Tensor, temperature: float) -> Tensor:
        """Logits over the verbs, z . c_k / temperature: (B, D) -> (B, K)."""
        return embedding @ self(self.verb_features).T / temperature

    def save_pretrained(self, folder: Path) -> None:
        """Write config.json and model.safetensors."""
        with atomic_folder(Path(folder)) as temporary:
            size = {"embedding": self.project.out_features, "features": self.project.in_features}
            write_json(temporary / "config.json", {"verbs": list(self.verbs), **size})
            save_file(
                {"project.weight": self.project.weight.detach().contiguous()},
                temporary / "model.safetensors",
            )

    @classmethod
    def from_pretrained(cls, folder: Path, device: Device = CPU) -> "LanguageHead":
        """Read what save_pretrained wrote; UserError on any other content. device: as in
        training/device.py."""
        config = read_json(Path(folder) / "config.json")
        if not isinstance(config, dict) or not _is_head(config):
            raise UserError(
                f"{folder}/config.json is not that of a language head: expected a list `verbs` and "
                f"numbers `embedding` and `features` of 1..{_WIDEST}"
            )
        head = cls(config["verbs"], config["embedding"], config["features"])
        state = read_safetensors(Path(folder) / "model.safetensors")
        expected = {"project.weight": head.project.weight.shape}
        if {name: value.shape for name, value in state.items()} != expected:
            raise UserError(f"{folder}/model.safetensors does not fit its config.json")
        head.project.weight.data.copy_(state["project.weight"])
        return head.to(resolve_device(device)).eval()


_WIDEST, _MOST_VERBS = 1 << 14, 10_000


def _is_head(config: dict[str, Any]) -> bool:
    """Whether the sizes of a file can be those of a head."""
    verbs = config.get("verbs")
    sizes = [config.get("embedding"), config.get("features")]
    return (
        isinstance(verbs, list)
        and 0 < len(verbs) <= _MOST_VERBS
        and all(isinstance(verb, str) for verb in verbs)
        and all(type(size) is int and 0 < size <= _WIDEST for size in sizes)
    )


def video_text_loss(embedding: Tensor, text: Tensor, verb: Tensor, temperature: float) -> Tensor:
    """L_vt: half video to text, half back; every text of the same verb is a positive.

    embedding (B, D), text (B, D), both of unit length, verb int64 (B,) -> scalar."""
    similarity = embedding @ text.T / temperature
    positive = verb[:, None] == verb[None]
    forth = multi_positive_infonce(similarity, positive)
    return 0.5 * (forth + multi_positive_infonce(similarity.T, positive))
