"""A LIBERO task as a robosuite environment that resets fast and order-free.

LIBERO rebuilds the MuJoCo model at every reset (~0.5 s) and draws fixture poses from the global
NumPy generator, so that episode i depends on all resets before it. Here the model is built once; a
reset restores what a rebuilt model would hold and runs the same calls in the same order, which ends
in the same bits; and the draws of episode i are those that the public serial loop (seed once, then
one reset an episode) would have made.
"""

import importlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from invact_vla.core.errors import UserError
from libero_eval.env import gl, libero_home, own_suite
from libero_eval.env.reset_rng_cache import ResetStore, RngState
from libero_eval.env.tasks import is_own
from libero_eval.policy_source import REFUSED

logger = logging.getLogger(__name__)

CONTROL_HZ = 20
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

    _mujoco().set_mju_user_warning(_log_warning)
    bddl = str(libero_home.bddl_file(suite, task))
    problem = own_suite.problem_name(Path(bddl)).lower()
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
    with numpy_seed(0), _own_mistakes(suite, bddl):
        env = kind(
            bddl,
            robots=["Panda"],
            controller_configs=robosuite.load_controller_config(default_controller="OSC_POSE"),
            gripper_types="default",
            initialization_noise=None,
            use_camera_obs=False,
            has_renderer=False,
            has_offscreen_renderer=False,
            control_freq=CONTROL_HZ,
            horizon=1000,
            hard_reset=True,
            camera_names=["agentview"],
        )
    env._observables = {}
    env.property_samplers = list(env.object_property_initializers)
    return env


@contextmanager
def _own_mistakes(suite: str, bddl: str) -> Iterator[None]:
    """What LIBERO cannot build of an own task is the task's mistake, named with its file."""
    try:
        yield
    except Exception as error:
        if not is_own(suite):
            raise
        raise UserError(
            f"{REFUSED}: LIBERO cannot build {bddl}: {type(error).__name__}: {error}; check that its "
            "objects, fixtures and regions are LIBERO's"
        ) from error


def _mujoco() -> Any:
    """The extension module `mujoco`, which has no types."""
    return importlib.import_module("mujoco")


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

    while True:
        env.object_property_initializers = env.property_samplers * (1 + rebuilds)
        try:
            _reset_once(env)
            return rebuilds
        except RandomizationError:
            rebuilds += 1


def _reset_once(env: Any) -> None:
    model = env.sim.model._model
    for field, values in env.pristine.items():
        getattr(model, field)[:] = values
    env.sim.reset()
    env.sim.forward()  # as in _initialize_sim
    env.sim.forward()  # as after it, see build_env
    for robot in env.robots:
        robot.gripper.current_action = np.zeros(robot.gripper.dof)
    env._reset_internal()
    env.sim.forward()
    env.visualize(vis_settings={name: False for name in env._visualizations})


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
        before.restore()
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
