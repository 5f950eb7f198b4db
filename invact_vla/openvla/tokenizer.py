"""Text <-> ids: Llama-2's published SentencePiece model, or a small BPE trained here; and ids of whole
sequences, built directly and never through text.

    BOS prompt | separator | targets | EOS        labels: targets and EOS, -100 elsewhere

The small one keeps Llama's conventions: UNK 0, BOS 1, EOS 2, the padding id right after the
vocabulary, words marked by a leading U+2581. Its last ids are left free for the actions. Source of the
sequences: OpenVLA (github.com/openvla/openvla); the separator is the lone word boundary (29871) that
SentencePiece puts before the original's action string.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from invact_vla.core.errors import UserError
from invact_vla.core.files import read_json, write_json
from invact_vla.core.limits import read_text, refuse_pointer, short
from invact_vla.openvla.config import IGNORED, PROMPT

UNK, BOS, EOS = 0, 1, 2
BOUNDARY = "\N{LOWER ONE EIGHTH BLOCK}"  # the word-boundary mark of SentencePiece
JSON_FILE, MODEL_FILE = "tokenizer.json", "tokenizer.model"


class Tokenizer:
    """ids of a text, BOS first. vocab_size: text pieces and action ids; pad_token_id comes next.
    separator_id: the lone word boundary (29871 in Llama-2), or None."""

    def __init__(
        self, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str],
        files: dict[str, bytes], vocab_size: int, separator_id: int | None,
    ) -> None:  # fmt: skip
        self._encode, self._decode, self._files = encode, decode, files
        self.vocab_size = self.pad_token_id = vocab_size
        self.separator_id = separator_id

    def encode(self, text: str) -> list[int]:
        """BOS and the ids of the text."""
        return [BOS, *self._encode(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; special ids are left out."""
        return self._decode([int(i) for i in ids if i > EOS])

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files, and the configs that other programs expect beside them."""
        for name, content in self._files.items():
            (Path(folder) / name).write_bytes(content)
        is_llama = MODEL_FILE in self._files
        write_json(Path(folder) / "tokenizer_config.json", {
            "tokenizer_class": "LlamaTokenizer" if is_llama else "PreTrainedTokenizerFast",
            "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<PAD>",
            "padding_side": "right", "model_max_length": 2048, "invact_vocab_size": self.vocab_size,
        })  # fmt: skip


def load_tokenizer(folder: Path, vocab_size: int) -> Tokenizer:
    """The tokenizer of a checkpoint folder. vocab_size: that of the model, action ids included."""
    pieces, path = Path(folder) / MODEL_FILE, Path(folder) / JSON_FILE
    if pieces.is_file():
        refuse_pointer(pieces)
        return _sentencepiece(pieces)
    if path.is_file():
        return _from_json(read_text(path), vocab_size, str(path))
    raise UserError(f"no tokenizer in {folder}: expected {MODEL_FILE} or {JSON_FILE}")


def added_rows(folder: Path) -> frozenset[int]:
    """Ids of the tokens that were added to a folder's tokenizer, such as `<PAD>`: their rows of the
    embedding are not free. Empty where the folder names none."""
    ids: set[int] = set()
    try:
        if (folder / "added_tokens.json").is_file():
            ids |= set(map(int, read_json(folder / "added_tokens.json").values()))
        if (folder / JSON_FILE).is_file():
            tokens = read_json(folder / JSON_FILE).get("added_tokens") or ()
            ids |= {int(token["id"]) for token in tokens}
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise UserError(
            f"{folder}: its added tokens are no names with numbers ({short(error)}): fetch the "
            "tokenizer's files again"
        ) from error
    return frozenset(ids)


def train_tokenizer(texts: Iterable[str], vocab_size: int, n_action_bins: int = 256) -> Tokenizer:
    """Train a BPE of at most vocab_size - n_action_bins pieces. Same texts, same pieces.

    All printable ASCII is in the alphabet, so that an instruction with unseen words has ids too.
    """
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Engine

    pieces = vocab_size - n_action_bins
    alphabet = [*map(chr, range(33, 127)), "\n", BOUNDARY]
    least = len(alphabet) + 3
    if pieces < least:
        raise UserError(
            f"vocab_size {vocab_size} leaves {pieces} text pieces beside {n_action_bins} actions; "
            f"at least {least} are needed"
        )
    engine = Engine(models.BPE(unk_token="<unk>", fuse_unk=True))
    words = pre_tokenizers.Metaspace(prepend_scheme="always")
    marks = pre_tokenizers.Split(Regex(r"[^A-Za-z0-9\u2581]"), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence([words, marks])
    engine.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=pieces,
        special_tokens=[AddedToken(t, special=True) for t in ("<unk>", "<s>", "</s>")],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    engine.train_from_iterator(sorted(texts), trainer)
    return _from_json(engine.to_str(), vocab_size, "trained tokenizer")


def _from_json(text: str, vocab_size: int, source: str) -> Tokenizer:
    from tokenizers import Tokenizer as Engine

    try:
        engine = Engine.from_str(text)
    except Exception as error:  # tokenizers raises nothing narrower
        raise UserError(f"{source}: not a tokenizer file: {short(str(error))}") from error
    return Tokenizer(
        encode=lambda t: engine.encode(t, add_special_tokens=False).ids,
        decode=engine.decode,
        files={JSON_FILE: text.encode()},
        vocab_size=vocab_size,
        separator_id=engine.token_to_id(BOUNDARY),
    )


def _sentencepiece(path: Path) -> Tokenizer:
    import sentencepiece

    content = path.read_bytes()
    engine = sentencepiece.SentencePieceProcessor()
    try:
        engine.LoadFromSerializedProto(content)
    except RuntimeError as error:
        raise UserError(f"{path}: not a SentencePiece model: {short(str(error))}") from error
    size = engine.GetPieceSize()
    boundary = engine.PieceToId(BOUNDARY)
    return Tokenizer(
        encode=engine.EncodeAsIds,
        decode=lambda ids: engine.DecodeIds([i for i in ids if i < size]),
        files={MODEL_FILE: content},
        vocab_size=size,
        separator_id=None if boundary == engine.unk_id() else boundary,
    )


def prompt_of(instruction: str, template: str = PROMPT) -> str:
    """OpenVLA's prompt: lower case, no full stop added."""
    return template.replace("{instruction}", instruction.lower())


@dataclass(frozen=True)
class SequenceBuilder:
    """Ids of prompts and training sequences for one tokenizer."""

    tokenizer: Tokenizer
    separator_id: int | None
    template: str = PROMPT

    def prompt(self, instruction: str) -> list[int]:
        """BOS, the prompt, and the separator unless the prompt ends with it."""
        ids = self.tokenizer.encode(prompt_of(instruction, self.template))
        if self.separator_id is not None and ids[-1] != self.separator_id:
            ids.append(self.separator_id)
        return ids

    def example(self, instruction: str, targets: Sequence[int]) -> tuple[list[int], list[int]]:
        """(ids, labels) of one training sequence."""
        return self.continued(self.prompt(instruction), targets)

    @staticmethod
    def continued(prompt: list[int], targets: Sequence[int]) -> tuple[list[int], list[int]]:
        """(ids, labels) of a prompt, its targets and EOS."""
        answer = [*(int(t) for t in targets), EOS]
        return prompt + answer, [IGNORED] * len(prompt) + answer


def collate(
    examples: Sequence[tuple[Sequence[int], Sequence[int]]],
    pad_token_id: int,
    multiple_of: int = 8,
    max_length: int = 2048,
) -> dict[str, Tensor]:
    """Pad (ids, labels) on the right -> input_ids, attention_mask, labels, each int64 (B, L).

    L is rounded up to a multiple, since a CPU prepares its kernels anew for each new length.
    """
    longest = max(len(ids) for ids, _ in examples)
    if longest > max_length:
        raise ValueError(f"sequence of {longest} ids, longer than {max_length}")
    length = min(-(-longest // multiple_of) * multiple_of, max_length)
    input_ids = np.full((len(examples), length), pad_token_id, np.int64)
    labels = np.full((len(examples), length), IGNORED, np.int64)
    mask = np.zeros((len(examples), length), np.int64)
    for row, (ids, targets) in enumerate(examples):
        input_ids[row, : len(ids)] = ids
        labels[row, : len(ids)] = targets
        mask[row, : len(ids)] = 1
    arrays = {"input_ids": input_ids, "attention_mask": mask, "labels": labels}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}
