"""Evaluation protocols: named constants with their source, hashed.

Numbers measured under different protocols are not comparable; a result names its protocol and
carries `Protocol.hash`, and comparisons refuse to mix hashes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from invact_vla.core.errors import UserError
from invact_vla.core.files import hash_json
from libero_eval.env import own_suite
from libero_eval.env.tasks import is_own, suite_name

SETTLE_ACTION = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0)

_OPENVLA = (
    "openvla/experiments/robot/libero/run_libero_eval.py at c8f03f4: env.seed(0), reset, "
    "set_init_state, 10 dummy steps with the gripper open, then at most max_steps policy steps"
)
_OFT = "openvla-oft/experiments/robot/libero/run_libero_eval.py at 213c5ff, horizons as OpenVLA"
_UNIVLA = (
    "UniVLA (OpenDriveLab), experiments/robot/libero/run_libero_eval.py and libero_utils.py, read in "
    "the public copies EmbodiedAILab/UniVLA at 865b149, 2012geek/UniVLA at d447430 and "
    "Nemo-1024/UniVLA at 87f21ce, which agree: OpenVLA's loop and images, longer horizons"
)
_LEROBOT = (
    "huggingface/lerobot: src/lerobot/envs/libero.py at 0b2d0d3 (horizons, 10 settle steps, both "
    "cameras, seed given at every reset), envs/configs.py at 7427f31, v0.6.2 (frames of 360 px; "
    "evaluation seed 1000 plus the episode; the processor turns frames by 180 degrees), "
    "docs/source/libero.mdx at 0669082 (10 episodes a task). Resizing is the policy's own"
)
_LIBERO = "LIBERO at 8f1084e, lifelong/evaluate.py: 5 zero-action steps, 600 steps, 20 episodes"


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What must be equal for two success rates to be comparable.

    suite, name: e.g. libero_10, openvla. max_steps: policy steps, without the settle steps.
    settle_steps: steps of `settle_action` before the first observation. trials: episodes a task,
    init states 0..trials-1. render_px: square camera frames. rotate: frames turned by 180 degrees.
    jpeg: JPEG round trip at quality 95 before resizing. resize_px: the policy's input.
    centre_crop: share of the area kept, 1.0 for none. reset_seed: what the global NumPy generator
    is seeded with once a task, before the first reset (fixture poses are drawn from it). reseed:
    seeded before every reset instead, with reset_seed plus the episode's number.
    """

    suite: str
    name: str
    max_steps: int
    settle_steps: int
    settle_action: tuple[float, ...]
    trials: int
    render_px: int
    rotate: bool
    jpeg: bool
    resize_px: int
    centre_crop: float
    cameras: tuple[str, ...]
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
            fields["suite"] = f"{self.suite_name} {own_suite.suite_hash(self.suite)}"
        if not self.reseed:
            fields.pop("reseed")
        return hash_json(fields)

    def check_cameras(self, needs: Sequence[str]) -> None:
        """Raise UserError if a policy reads a camera that this protocol does not show."""
        hidden = [camera for camera in needs if camera not in self.cameras]
        if not hidden:
            return
        suite = DEFAULT_PROTOCOL.partition("/")[0]
        rows = [row for row in PROTOCOLS.values() if row.suite == suite]
        fits = next((row for row in rows if set(needs) <= set(row.cameras)), None)
        remedy = (
            "LIBERO has agentview and wrist"
            if fits is None
            else f"choose a protocol that does, as with --protocol {self.suite}/{fits.name}"
        )
        raise UserError(
            f"the policy reads the {' and '.join(hidden)} camera, which {self.key} does not show: "
            f"{remedy}"
        )


def _openvla_family(
    suite: str, max_steps: int, name: str, cameras: tuple[str, ...], source: str
) -> Protocol:
    return Protocol(
        suite=suite, name=name, max_steps=max_steps, settle_steps=10, settle_action=SETTLE_ACTION,
        trials=50, render_px=256, rotate=True, jpeg=True, resize_px=224, centre_crop=0.9,
        cameras=cameras, reset_seed=0, source=source,
    )  # fmt: skip


def _libero_own(suite: str) -> Protocol:
    return Protocol(
        suite=suite, name="libero", max_steps=600, settle_steps=5, settle_action=(0.0,) * 7,
        trials=20, render_px=128, rotate=False, jpeg=False, resize_px=128, centre_crop=1.0,
        cameras=("agentview", "wrist"), reset_seed=0, source=_LIBERO,
    )  # fmt: skip


def _lerobot(suite: str, max_steps: int) -> Protocol:
    return Protocol(
        suite=suite, name="lerobot", max_steps=max_steps, settle_steps=10,
        settle_action=SETTLE_ACTION, trials=10, render_px=360, rotate=True, jpeg=False,
        resize_px=360, centre_crop=1.0, cameras=("agentview", "wrist"), reset_seed=1000,
        reseed=True, source=_LEROBOT,
    )  # fmt: skip


# suite -> max steps without the settle steps (longest training demonstration: 193, 254, 270, 505,
# 373), from the same file of OpenVLA's
MAX_STEPS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}

UNIVLA_MAX_STEPS = {
    "libero_spatial": 240,
    "libero_object": 300,
    "libero_goal": 320,
    "libero_10": 550,
    "libero_90": 420,
}
LEROBOT_MAX_STEPS = {**MAX_STEPS, "libero_spatial": 280}

_ROWS = [
    *(_openvla_family(s, n, "openvla", ("agentview",), _OPENVLA) for s, n in MAX_STEPS.items()),
    *(_openvla_family(s, n, "oft", ("agentview", "wrist"), _OFT) for s, n in MAX_STEPS.items()),
    *(
        _openvla_family(s, n, "univla", ("agentview",), _UNIVLA)
        for s, n in UNIVLA_MAX_STEPS.items()
    ),
    *(_lerobot(s, n) for s, n in LEROBOT_MAX_STEPS.items()),
    *(_libero_own(s) for s in MAX_STEPS),
]
PROTOCOLS: dict[str, Protocol] = {row.key: row for row in _ROWS}
DEFAULT_PROTOCOL = "libero_10/openvla"


def get_protocol(key: str, suite: str | None = None) -> Protocol:
    """The protocol of a name such as libero_10/openvla; UserError with the known names.

    FOLDER/openvla, or FOLDER alone, is OpenVLA's protocol on the own tasks of a folder, with the
    horizon of libero_10. suite: in place of the key's.
    """
    if suite:
        name = key if "/" not in key else key.rpartition("/")[2]
        key = f"{suite.rstrip('/')}/{name}"
    if key in PROTOCOLS:
        return PROTOCOLS[key]
    default_suite, _, default_name = DEFAULT_PROTOCOL.partition("/")
    names = {row.name for row in PROTOCOLS.values()}
    folder, _, name = key.rpartition("/")
    if name not in names or not folder:
        folder, name = key, default_name
    if not is_own(folder) or not (Path(folder).is_dir() or suite):  # a path that is misspelled
        raise UserError(
            f"unknown protocol {key!r}; known: {', '.join(sorted(PROTOCOLS))}, or FOLDER/"
            f"{default_name} for a folder of own tasks"
        )
    row = PROTOCOLS[f"{default_suite}/{name}"]
    own_suite.task_files(folder)
    return replace(row, suite=str(Path(folder).resolve()), source=f"{row.source}; own tasks")
