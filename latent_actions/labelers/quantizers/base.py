"""Quantizers: from embeddings to a few discrete codes and back, fitted once, all alike in use.

    quantizer = config.fit(embeddings)      # embeddings: float (N, D)
    codes = quantizer.encode(embeddings)    # int64 (N, K), each in [0, C)
    vectors = quantizer.decode(codes)       # float32 (N, D), what the codes remember

The default is 4 codes of 8, LAPA's token budget. Every member keeps its state as named arrays,
so that saving and loading are written once. Axis letters: N items, D width, K positions, C codes.
"""

import abc
from dataclasses import dataclass
from pathlib import Path

import draccus
import numpy as np
from safetensors.numpy import save_file

from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_folder, hash_json, read_json, write_json
from invact_vla.core.limits import short
from invact_vla.untrusted.model_config import decode_config
from invact_vla.untrusted.torch_files import read_safetensors

Arrays = dict[str, np.ndarray]
MOST = 1 << 16  # positions, and values of a code


@dataclass(frozen=True, kw_only=True)
class QuantizerConfig(draccus.ChoiceRegistry, abc.ABC):
    """A way to cut an embedding space into C^K cells."""

    positions: int = 4  # codes per label, K
    codes: int = 8  # values of each code, C
    seed: int = 0  # decides the k-means starts

    def __post_init__(self) -> None:
        if not 1 <= self.positions <= MOST or not 2 <= self.codes <= MOST:
            raise ValueError(
                f"positions must be in 1..{MOST} and codes in 2..{MOST}, got {self.positions}, "
                f"{self.codes}"
            )

    @classmethod
    def default_choice_name(cls) -> str:
        """The member meant when a config names none."""
        return "pq"

    def fit(self, embeddings: np.ndarray) -> "Quantizer":
        """Fit on float (N, D) embeddings of training pairs only. Too few are a UserError."""
        embeddings = _checked(embeddings)
        different = len(np.unique(embeddings, axis=0))
        if different < self.codes:
            raise UserError(
                f"the quantizer needs at least {self.codes} different embeddings, got "
                f"{len(embeddings)} of which {different} differ: label more pairs, or, where the "
                "encoder has collapsed, train it with a lower loop.learning_rate"
            )
        return Quantizer(self, self._fit(embeddings))

    @abc.abstractmethod
    def _fit(self, embeddings: np.ndarray) -> Arrays:
        """The arrays that encode and decode need."""

    @abc.abstractmethod
    def _encode(self, arrays: Arrays, embeddings: np.ndarray) -> np.ndarray:
        """float64 (N, D) -> int64 (N, K)."""

    @abc.abstractmethod
    def _decode(self, arrays: Arrays, codes: np.ndarray) -> np.ndarray:
        """int64 (N, K) -> float64 (N, D)."""

    @abc.abstractmethod
    def _shapes(self, arrays: Arrays) -> dict[str, tuple[int, ...]]:
        """What the shapes of its arrays must be. Raises LookupError or ValueError for others' arrays."""

    def check(self, arrays: Arrays) -> None:
        """ValueError for arrays that `fit` cannot have made."""
        try:
            expected = self._shapes(arrays)
        except LookupError as error:
            raise ValueError(f"no array {error}") from error
        found = {name: array.shape for name, array in arrays.items()}
        if found != expected:
            raise ValueError(f"arrays of shapes {expected} expected, got {found}")
        if not all(np.isfinite(array).all() for array in arrays.values()):
            raise ValueError("NaN or infinity in its arrays")


@dataclass(frozen=True)
class Quantizer:
    """A fitted quantizer: its config and its arrays."""

    config: QuantizerConfig
    arrays: Arrays

    @property
    def code_length(self) -> int:
        """K, codes per label."""
        return self.config.positions

    @property
    def codebook_size(self) -> int:
        """C, values of a code."""
        return self.config.codes

    @property
    def width(self) -> int:
        """D, the width of the embeddings it was fitted on."""
        return self.arrays["mean"].shape[0]

    @property
    def hash(self) -> str:
        """16 digits that name the config and every number of the state."""
        numbers = {
            k: [v.dtype.str, list(v.shape), v.tobytes().hex()] for k, v in self.arrays.items()
        }
        return hash_json(
            {"config": draccus.encode(self.config, QuantizerConfig), "arrays": numbers}
        )

    def encode(self, embeddings: np.ndarray) -> np.ndarray:
        """float (N, D) -> int64 (N, K), each in [0, C)."""
        embeddings = _checked(embeddings)
        if embeddings.shape[1] != self.width:
            raise UserError(
                f"the quantizer was fitted on {self.width} dimensions, got {embeddings.shape[1]}: "
                "fit it again on embeddings of this encoder"
            )
        return self.config._encode(self.arrays, embeddings)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        """int (N, K) -> float32 (N, D): the center of the cell."""
        codes = np.asarray(codes)
        if codes.ndim != 2 or codes.shape[1] != self.code_length:
            raise ValueError(f"codes: expected (N, {self.code_length}), got {codes.shape}")
        if codes.size and (codes.min() < 0 or codes.max() >= self.codebook_size):
            raise ValueError(f"codes: expected [0, {self.codebook_size})")
        return self.config._decode(self.arrays, codes).astype(np.float32)

    def explained_variance(self, embeddings: np.ndarray) -> float:
        """Share of the variance that survives: 1 - |x - decode(encode(x))|^2 / |x - mean|^2."""
        embeddings = _checked(embeddings)
        error = ((embeddings - self.decode(self.encode(embeddings))) ** 2).sum()
        return float(1 - error / np.maximum(((embeddings - embeddings.mean(0)) ** 2).sum(), 1e-12))


def save_quantizer(quantizer: Quantizer, folder: Path) -> None:
    """Write quantizer.json and quantizer.safetensors, atomically as a folder."""
    with atomic_folder(folder) as temporary:
        write_json(temporary / "quantizer.json", draccus.encode(quantizer.config, QuantizerConfig))
        arrays = {k: np.ascontiguousarray(v) for k, v in quantizer.arrays.items()}
        save_file(arrays, temporary / "quantizer.safetensors")


def load_quantizer(folder: Path) -> Quantizer:
    """Read what save_quantizer wrote; anything else is a UserError."""
    folder = Path(folder)
    file = folder / "quantizer.json"
    config = decode_config(QuantizerConfig, read_json(file), f"{file} is not a quantizer config")
    tensors = read_safetensors(folder / "quantizer.safetensors")
    try:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        config.check(arrays)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{folder}/quantizer.safetensors does not fit its config ({short(error)}): fit it again"
        ) from error
    return Quantizer(config, arrays)


def principal_axes(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """mean (D,), axes (R, D) in order of falling variance, variance (R,). Signs are fixed."""
    mean = embeddings.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(embeddings - mean, rowvar=False).reshape(len(mean), -1))
    order = np.argsort(-values, kind="stable")
    axes = vectors[:, order].T
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])
    return mean, axes * signs[:, None], np.maximum(values[order], 0.0)


def _checked(embeddings: np.ndarray) -> np.ndarray:
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2 or not np.all(np.isfinite(embeddings)):
        raise ValueError(f"embeddings: expected finite (N, D), got {embeddings.shape}")
    return embeddings
