"""Evaluation protocols: named constants with their source, hashed.

Numbers measured under different protocols are not comparable; a result names its protocol and
carries `Protocol.hash`, and comparisons refuse to mix hashes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json
from libero_eval.env.tasks import is_own, own_files, suite_hash, suite_name

SETTLE_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)
DEFAULT_PROTOCOL = "libero_10/openvla"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What must be equal for two success rates to be comparable."""

    suite: str  # e.g. libero_10
    name: str  # e.g. openvla
    max_steps: int  # policy steps, without the settle steps
    settle_steps: int  # steps of `settle_action` before the first observation
    settle_action: tuple[float, ...]
    trials: int  # episodes a task, init states 0..trials-1
    render_px: int  # square camera frames
    rotate: bool  # frames turned by 180 degrees
    jpeg: bool  # JPEG round trip at quality 95 before resizing
    resize_px: int  # the policy's input
    center_crop: float  # share of the area kept, 1.0 for none
    cameras: tuple[str, ...]
    # what the global NumPy generator is seeded with once a task, before the first reset (fixture
    # poses are drawn from it); with reseed before every reset, plus the episode's number
    reset_seed: int
    reseed: bool = False
    source: str

    @property
    def suite_name(self) -> str:
        """What results call the suite; the name of the folder for own tasks."""
        return suite_name(self.suite)

    @property
    def key(self) -> str:
        """The name in results: suite/name."""
        return f"{self.suite_name}/{self.name}"

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over every field except the citation.

        A field that came later counts only where it is not False, so that the hashes of results
        from before stay what they were.
        """
        fields = asdict(self)
        fields.pop("source")
        if is_own(self.suite):  # what is in the folder counts, not where it lies
            fields["suite"] = f"{self.suite_name} {suite_hash(self.suite)}"
        if not self.reseed:
            fields.pop("reseed")
        return hash_json(fields)

    def check_cameras(self, needs: Sequence[str]) -> None:
        """Raise UserError if a policy reads a camera that this protocol does not show."""
        hidden = [camera for camera in needs if camera not in self.cameras]
        if not hidden:
            return
        fits = next((n for n, kind in _KINDS.items() if set(needs) <= set(kind["cameras"])), None)
        remedy = "LIBERO has agentview and wrist"
        if fits is not None:
            remedy = f"choose a protocol that does, as with --protocol {self.suite}/{fits}"
        raise UserError(
            f"the policy reads the {' and '.join(hidden)} camera, which {self.key} does not show: "
            f"{remedy}"
        )


_BOTH = ("agentview", "wrist")
_OPENVLA: dict[str, Any] = {
    "settle_steps": 10, "settle_action": SETTLE_ACTION, "trials": 50, "render_px": 256,
    "rotate": True, "jpeg": True, "resize_px": 224, "center_crop": 0.9, "cameras": ("agentview",),
    "reset_seed": 0,
    "source": "openvla/experiments/robot/libero/run_libero_eval.py at c8f03f4: env.seed(0), reset, "
    "set_init_state, 10 dummy steps with the gripper open, then at most max_steps policy steps",
}  # fmt: skip
_KINDS: dict[str, dict[str, Any]] = {
    "openvla": _OPENVLA,
    "oft": _OPENVLA | {
        "cameras": _BOTH,
        "source": "openvla-oft/experiments/robot/libero/run_libero_eval.py at 213c5ff, horizons as "
        "OpenVLA",
    },
    "univla": _OPENVLA | {
        "source": "UniVLA (OpenDriveLab), experiments/robot/libero/run_libero_eval.py and "
        "libero_utils.py, read in the public copies EmbodiedAILab/UniVLA at 865b149, "
        "2012geek/UniVLA at d447430 and Nemo-1024/UniVLA at 87f21ce, which agree: OpenVLA's loop "
        "and images, longer horizons",
    },
    "lerobot": _OPENVLA | {
        "trials": 10, "render_px": 360, "jpeg": False, "resize_px": 360, "center_crop": 1.0,
        "cameras": _BOTH, "reset_seed": 1000, "reseed": True,
        "source": "huggingface/lerobot: src/lerobot/envs/libero.py at 0b2d0d3 (horizons, 10 settle "
        "steps, both cameras, seed given at every reset), envs/configs.py at 7427f31, v0.6.2 "
        "(frames of 360 px; evaluation seed 1000 plus the episode; the processor turns frames by "
        "180 degrees), docs/source/libero.mdx at 0669082 (10 episodes a task). Resizing is the "
        "policy's own",
    },
    "libero": _OPENVLA | {
        "settle_steps": 5, "settle_action": (0.0,) * 7, "trials": 20, "render_px": 128,
        "rotate": False, "jpeg": False, "resize_px": 128, "center_crop": 1.0, "cameras": _BOTH,
        "source": "LIBERO at 8f1084e, lifelong/evaluate.py: 5 zero-action steps, 600 steps, 20 "
        "episodes",
    },
}  # fmt: skip
# Policy steps of each suite, without the settle steps; from the files above. The longest training
# demonstrations have 193, 254, 270, 505 and 373.
_SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10", "libero_90")
_MAX_STEPS = {
    "openvla": (220, 280, 300, 520, 400),
    "oft": (220, 280, 300, 520, 400),
    "univla": (240, 300, 320, 550, 420),
    "lerobot": (280, 280, 300, 520, 400),
    "libero": (600, 600, 600, 600, 600),
}
MAX_STEPS = dict(zip(_SUITES, _MAX_STEPS["openvla"], strict=True))
PROTOCOLS: dict[str, Protocol] = {
    f"{suite}/{name}": Protocol(suite=suite, name=name, max_steps=steps, **_KINDS[name])
    for name, row in _MAX_STEPS.items()
    for suite, steps in zip(_SUITES, row, strict=True)
}


def get_protocol(key: str, suite: str | None = None) -> Protocol:
    """The protocol of a name such as libero_10/openvla; UserError with the known names.

    FOLDER/openvla, or FOLDER alone, is OpenVLA's protocol on the own tasks of a folder, with the
    horizon of libero_10. suite: in place of the key's.
    """
    if suite:
        key = f"{suite.rstrip('/')}/{key.rpartition('/')[2]}"
    if key in PROTOCOLS:
        return PROTOCOLS[key]
    default_suite, _, default_name = DEFAULT_PROTOCOL.partition("/")
    folder, _, name = key.rpartition("/")
    if name not in _KINDS or not folder:
        folder, name = key, default_name
    if not is_own(folder) or not (Path(folder).is_dir() or suite):  # a path that is misspelled
        raise UserError(
            f"unknown protocol {key!r}; known: {', '.join(sorted(PROTOCOLS))}, or FOLDER/"
            f"{default_name} for a folder of own tasks"
        )
    row = PROTOCOLS[f"{default_suite}/{name}"]
    own_files(folder)  # UserError for a folder without tasks
    return replace(row, suite=str(Path(folder).resolve()), source=f"{row.source}; own tasks")
