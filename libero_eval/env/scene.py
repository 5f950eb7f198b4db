"""A LIBERO task as a robosuite environment that resets fast and order-free.

LIBERO rebuilds the MuJoCo model at every reset (~0.5 s) and draws fixture poses from the global
NumPy generator, so that episode i depends on all resets before it. Here the model is built once; a
reset restores what a rebuilt model would hold and runs the same calls in the same order, which ends
in the same bits; and the draws of episode i are those that the public serial loop (seed once, then
one reset an episode) would have made.
"""

import hashlib
import importlib
import io
import logging
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from invact_vla.core.cache_folder import cache_folder
from invact_vla.core.errors import UserError
from invact_vla.core.files import atomic_file, hash_file, hash_json
from libero_eval.env import gl, libero_home
from libero_eval.env.tasks import bddl_file, is_own, problem_name
from libero_eval.policy_source import REFUSED

logger = logging.getLogger(__name__)

CONTROL_HZ = 20
# what placement depends on: bodies, their sites and sizes, and where joints may go
PLACEMENT_FIELDS = (
    "body_pos", "body_quat", "geom_pos", "geom_quat", "geom_size", "geom_contype",
    "geom_conaffinity", "jnt_range", "site_pos", "site_size", "qpos0",
)  # fmt: skip
PACKAGES = ("hf-libero", "mujoco", "numpy", "robosuite")
# what resets and object states write into the model: fixture poses, visibility of sites
MODEL_FIELDS = ("body_pos", "body_quat", "site_rgba", "site_size", "geom_rgba")


@contextmanager
def numpy_seed(seed: int | None) -> Iterator[None]:
    """Seed NumPy's global generator (LIBERO draws from it) inside the block, then restore it."""
    before = np.random.get_state()
    if seed is not None:
        np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


def build_env(
    suite: str, task: str, assets: Path, edit_model: Callable[[str], str] | None = None
) -> Any:
    """LIBERO's problem environment of a task, with the settings of its OffScreenRenderEnv.

    edit_model: changes the scene's MJCF before it is compiled.

    No renderer and no observables: frames come from `camera.Camera`, and reading robosuite's
    observables at every physics step is a tenth of its time.
    """
    if not gl.is_set():
        gl.probe()  # robosuite loads a GL library when it is imported
    libero_home.prepare(assets)
    import robosuite
    from libero.libero.envs.bddl_base_domain import TASK_MAPPING

    mujoco: Any = importlib.import_module("mujoco")
    mujoco.set_mju_user_warning(_log_warning)
    bddl = str(bddl_file(suite, task))
    problem = problem_name(Path(bddl)).lower()
    if problem not in TASK_MAPPING:
        raise UserError(
            f"{REFUSED}: {bddl} is of problem {problem}, LIBERO has {', '.join(sorted(TASK_MAPPING))}"
        )
    base = TASK_MAPPING[problem]

    def initialize_sim(self: Any, xml_string: str | None = None) -> None:
        if edit_model is not None:
            xml_string = edit_model(xml_string or self.model.get_xml())
        base._initialize_sim(self, xml_string)
        self.sim.forward()  # robosuite's render context does so: it warms up the contact solver
        model = self.sim.model._model
        self.pristine = {field: getattr(model, field).copy() for field in MODEL_FIELDS}

    # LIBERO checks that the class bears the name of the problem
    kind = type(base.__name__, (base,), {"_initialize_sim": initialize_sim})
    controller = robosuite.load_controller_config(default_controller="OSC_POSE")
    try:
        with numpy_seed(0):
            env = kind(
                bddl, robots=["Panda"], controller_configs=controller, gripper_types="default",
                initialization_noise=None, use_camera_obs=False, has_renderer=False,
                has_offscreen_renderer=False, control_freq=CONTROL_HZ, horizon=1000, hard_reset=True,
                camera_names=["agentview"],
            )  # fmt: skip
        _check_goal(env)
    except Exception as error:
        if not is_own(suite):
            raise
        raise UserError(
            f"{REFUSED}: LIBERO cannot build {bddl}: {type(error).__name__}: {error}; check that its "
            "objects, fixtures and regions are LIBERO's"
        ) from error
    env._observables = {}
    env.property_samplers = list(env.object_property_initializers)
    return env


def _check_goal(env: Any) -> None:
    """ValueError for a goal that is empty, which LIBERO takes for reached, or cannot be evaluated."""
    goal = env.parsed_problem["goal_state"]
    if not goal:
        raise ValueError("its goal is empty: every episode would be a success")
    for predicate in goal:
        with suppress(Exception):
            if env._eval_predicate(predicate) is not None:
                continue
        raise ValueError(f"its goal cannot be evaluated: {predicate}")


def _log_warning(message: str) -> None:
    """MuJoCo's warnings go to the log, not to a MUJOCO_LOG.TXT in the working folder."""
    level = logging.DEBUG if "XML contains" in message else logging.WARNING
    logger.log(level, "MuJoCo: %s", message)


def soft_reset(env: Any, rebuilds: int = 1) -> int:
    """What `env.reset()` does, without rebuilding the model. Draws from NumPy's global generator.

    rebuilds: how many times the public loop has rebuilt this model so far, this reset included.
    LIBERO appends its drawer and knob samplers to one list at every rebuild, so a later reset
    draws more numbers; a failed placement makes it rebuild and draw again. Returns the new count.
    """
    from robosuite.utils.errors import RandomizationError

    model = env.sim.model._model
    while True:
        env.object_property_initializers = env.property_samplers * (1 + rebuilds)
        for field, values in env.pristine.items():
            getattr(model, field)[:] = values
        env.sim.reset()
        env.sim.forward()  # as in _initialize_sim
        env.sim.forward()  # as after it, see build_env
        for robot in env.robots:
            robot.gripper.current_action = np.zeros(robot.gripper.dof)
        try:
            env._reset_internal()
        except RandomizationError:
            rebuilds += 1
            continue
        env.sim.forward()
        env.visualize(vis_settings={name: False for name in env._visualizations})
        return rebuilds


def fixture_poses(env: Any) -> np.ndarray:
    """Poses of the fixtures' root bodies, which the flat state does not hold: float64 (F, 7)."""
    model = env.sim.model
    ids = [model.body_name2id(fixture.root_body) for fixture in env.fixtures_dict.values()]
    return np.concatenate([model.body_pos[ids], model.body_quat[ids]], axis=1)


def set_fixture_poses(env: Any, poses: np.ndarray) -> None:
    """Inverse of `fixture_poses`."""
    model = env.sim.model
    for fixture, pose in zip(env.fixtures_dict.values(), poses, strict=True):
        body = model.body_name2id(fixture.root_body)
        model.body_pos[body], model.body_quat[body] = pose[:3], pose[3:]


class RngState(NamedTuple):
    """How NumPy's global generator, a Mersenne Twister, stands before a reset."""

    words: np.ndarray  # uint32 (624,)
    positions: int  # of the next word
    pairs: tuple[int, float]  # whether half of a normal pair waits, that half
    rebuilds: int  # how often the public loop has rebuilt the model until then

    @classmethod
    def now(cls, rebuilds: int) -> "RngState":
        """The state of the global generator."""
        _, words, position, has_half, half = np.random.get_state()
        return cls(np.array(words), int(position), (int(has_half), float(half)), rebuilds)


class ResetStore:
    """The states before the resets of one task, as far as they are known, on disk."""

    def __init__(self, env: Any, reset_seed: int) -> None:
        """env: LIBERO's problem environment, from `build_env`."""
        self.path = cache_folder("resets") / f"{reset_key(env, reset_seed)}.npz"

    def load(self) -> list[RngState]:
        """The stored states, in order; none if there is no file, or it is damaged."""
        try:
            data = self.path.read_bytes()
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                columns = {name: file[name] for name in RngState._fields}
                if str(file["digest"]) != _digest(columns):
                    raise ValueError("wrong content")
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            logger.warning("%s is damaged (%s): its resets are run again", self.path, error)
            return []
        rows = zip(*columns.values(), strict=True)
        return [RngState(w, int(p), (int(h), float(g)), int(r)) for w, p, (h, g), r in rows]

    def save(self, known: list[RngState]) -> None:
        """Store the states, unless the file holds as many; a failed write is only logged."""
        if len(self.load()) >= len(known):
            return
        rows = zip(*known, strict=True)
        columns: dict[str, Any] = dict(zip(RngState._fields, map(np.array, rows), strict=True))
        try:
            with atomic_file(self.path) as temporary:
                np.savez(temporary, digest=np.array(_digest(columns)), **columns)
        except (OSError, UserError) as error:  # a full disk is a UserError
            logger.warning("cannot store resets in %s: %s", self.path, error)


def _digest(columns: dict[str, np.ndarray]) -> str:
    content = b"".join(np.ascontiguousarray(column).tobytes() for column in columns.values())
    return hashlib.sha256(content).hexdigest()


def reset_key(env: Any, reset_seed: int) -> str:
    """16 digits over all that the draws depend on: task file, model, seed, library versions."""
    model = env.sim.model._model
    digest = hashlib.sha256(bytes(model.names))
    for field in PLACEMENT_FIELDS:
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


class SerialResets:
    """The reset before episode i, as the public serial loop makes it: seed once, then reset.

    The draws place fixtures, and the objects' drawn places warm up the contact solver before the
    init state replaces them. The generator's state before every reset is kept, also on disk, so
    that a reset runs alone, in any order; only the first time are the resets before it run.
    """

    def __init__(self, env: Any, reset_seed: int) -> None:
        self._env = env
        self._store = ResetStore(env, reset_seed)
        with numpy_seed(reset_seed):
            self._before = self._store.load() or [RngState.now(rebuilds=0)]

    def run(self, episode: int) -> None:
        """Leave the environment as after the episode-th reset (from 0)."""
        known = len(self._before)
        with numpy_seed(None):
            while len(self._before) <= episode:
                self._reset(len(self._before) - 1)
            self._reset(episode)
        if len(self._before) > known:
            self._store.save(self._before)

    def _reset(self, episode: int) -> None:
        before = self._before[episode]
        np.random.set_state(("MT19937", before.words, before.positions, *before.pairs))
        rebuilds = soft_reset(self._env, before.rebuilds + 1)
        if len(self._before) == episode + 1:
            self._before.append(RngState.now(rebuilds))


class SeededResets:
    """The reset before episode i of a loop that gives the seed at every reset: reset_seed + i.

    Each is drawn as a new environment would draw it.
    """

    def __init__(self, env: Any, reset_seed: int) -> None:
        self._env, self._reset_seed = env, reset_seed

    def run(self, episode: int) -> None:
        """Leave the environment as after the episode-th reset (from 0)."""
        with numpy_seed(self._reset_seed + episode):
            soft_reset(self._env)
