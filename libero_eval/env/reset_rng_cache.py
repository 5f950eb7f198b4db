"""What the public serial loop's resets draw, kept on disk so that any reset runs alone at once.

RngState reset i, NumPy's global generator is in the state that i resets left it in. The states of a
task are stored once a machine: a fresh process then makes reset 40 without the 40 before it.
"""

import hashlib
import io
import logging
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.cache_folder import cache_folder
from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, hash_file, hash_json

logger = logging.getLogger(__name__)

WORDS = 624  # of the Mersenne Twister
# what placement depends on: bodies, their sites and sizes, and where joints may go
MODEL_FIELDS = (
    "body_pos", "body_quat", "geom_pos", "geom_quat", "geom_size", "geom_contype",
    "geom_conaffinity", "jnt_range", "site_pos", "site_size", "qpos0",
)  # fmt: skip
COLUMNS = ("words", "positions", "pairs", "rebuilds")  # of a file, one row a reset
PACKAGES = ("hf-libero", "mujoco", "numpy", "robosuite")


@dataclass(frozen=True)
class RngState:
    """How the generator stands before a reset. words: uint32 (624,). position: next word. pair:
    (whether half of a normal pair waits, that half). rebuilds: how often the public loop has rebuilt
    the model until then."""

    words: np.ndarray
    position: int
    pair: tuple[int, float]
    rebuilds: int

    @classmethod
    def now(cls, rebuilds: int) -> "RngState":
        """The state of the global generator."""
        _, words, position, *pair = np.random.get_state()
        return cls(
            np.array(words, np.uint32), int(position), (int(pair[0]), float(pair[1])), rebuilds
        )

    def restore(self) -> None:
        """Put the global generator into this state."""
        np.random.set_state(("MT19937", self.words, self.position, *self.pair))


class ResetStore:
    """The states before the resets of one task, as far as they are known."""

    def __init__(self, env: Any, reset_seed: int) -> None:
        """env: LIBERO's problem environment, from `scene.build_env`."""
        self.path = cache_folder("resets") / f"{reset_key(env, reset_seed)}.npz"

    def load(self) -> list[RngState]:
        """The stored states, in order; none if there is no file, or it is damaged."""
        try:
            data = self.path.read_bytes()
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name] for name in (*COLUMNS, "digest")}
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s is damaged (%s): its resets are run again", self.path, error)
            return []
        if not _is_valid(arrays):
            logger.warning("%s is damaged (wrong content): its resets are run again", self.path)
            return []
        rows = zip(*(arrays[name] for name in COLUMNS), strict=True)
        return [RngState(w, int(p), (int(h), float(g)), int(r)) for w, p, (h, g), r in rows]

    def save(self, known: list[RngState]) -> None:
        """Store the states, unless the file holds as many; a failed write is only logged."""
        if len(self.load()) >= len(known):
            return
        arrays: dict[str, Any] = {
            "words": np.stack([before.words for before in known]),
            "positions": np.array([before.position for before in known]),
            "pairs": np.array([before.pair for before in known]),
            "rebuilds": np.array([before.rebuilds for before in known]),
        }
        arrays["digest"] = np.array(_digest(arrays))
        try:
            with atomic_file(self.path) as temporary:
                np.savez(temporary, **arrays)
        except (OSError, UserError) as error:  # a full disk is a UserError
            logger.warning("cannot store resets in %s: %s", self.path, error)


def reset_key(env: Any, reset_seed: int) -> str:
    """16 digits over all that the draws depend on: task file, model, seed, library versions."""
    model = env.sim.model._model
    digest = hashlib.sha256(bytes(model.names))
    for field in MODEL_FIELDS:
        values = env.pristine[field] if field in env.pristine else getattr(model, field)
        digest.update(np.ascontiguousarray(values).tobytes())
    return hash_json(
        {
            "task": hash_file(Path(env.bddl_file_name)),
            "model": digest.hexdigest(),
            "seed": reset_seed,
            "packages": {name: version(name) for name in PACKAGES},
        }
    )


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """Of all columns."""
    columns = [np.ascontiguousarray(arrays[name]) for name in COLUMNS]
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()


def _is_valid(arrays: dict[str, np.ndarray]) -> bool:
    words = arrays["words"]
    count = len(words) if words.ndim else 0
    shapes = {
        "words": (count, WORDS),
        "positions": (count,),
        "pairs": (count, 2),
        "rebuilds": (count,),
    }
    fits = all(arrays[name].shape == shape for name, shape in shapes.items())
    return fits and words.dtype == np.uint32 and str(arrays["digest"]) == _digest(arrays)
