"""A performance: a chain of actions on one object, planned from a random stream and played in a
world.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from latent_actions.synthetic.hand import WRIST, Side
from latent_actions.synthetic.motions import HandPath, HandTrack, Key
from latent_actions.synthetic.objects import (
    DOOR_OPEN_RAD,
    DRAWER_TRAVEL_M,
    FIXTURES,
    KINDS,
    LID_OPEN_RAD,
)
from latent_actions.synthetic.plans.setting import Setting
from latent_actions.synthetic.vocabulary import ACTIONS, COLORS, FAMILIES
from latent_actions.synthetic.world import World, yaw_quaternion

SUBSTEP_S = 0.006  # longest simulation step
SETTLE_STEPS = 40  # fingers close and objects come to rest before the first frame
OPENED = {"drawer": DRAWER_TRAVEL_M, "chest": LID_OPEN_RAD * 0.86, "cabinet": DOOR_OPEN_RAD}
SHOULDER = np.array([0.30, -0.62, 0.14])  # of a right-handed performer


@dataclass(frozen=True)
class Performance:
    """What happens between two cuts. spans: (start_s, end_s) of each action, from the cut; colors:
    of the object and its partner; origin, yaw: of the object at the start."""

    family: str
    actions: tuple[str, ...]
    kind: str
    partner: str | None
    colors: tuple[str, str]
    spans: tuple[tuple[float, float], ...]
    path: HandPath
    origin: np.ndarray
    partner_origin: np.ndarray
    yaw: float

    @property
    def duration_s(self) -> float:
        return self.spans[-1][1]

    @property
    def held(self) -> bool:
        """The hand has hold of the object at the start."""
        return ACTIONS[self.actions[0]].held


def plan_performance(
    rng: np.random.Generator, family_name: str, side: Side, fps: float,
    duration_s: tuple[float, float], chain: tuple[str, ...] | None = None, slower: float = 1.0,
) -> Performance:  # fmt: skip
    """Draw a performance of a family: object, place, style, speed. Times are whole frames.

    duration_s: range of the duration of one action (repeated ones take half as long again). slower:
    times as long, and repeated that many times more.
    """
    family = FAMILIES[family_name]
    chain = chain or family.chains[rng.integers(len(family.chains))]
    kind = family.kinds[rng.integers(len(family.kinds))]
    partner = family.partners[0] if family.partners else None
    colors = rng.permutation(len(COLORS))[:2]
    setting = _draw_setting(rng, family_name, chain[0], kind, partner, side)
    setting.cycles *= slower
    first = setting.spot.copy()
    bend = rng.normal(0, 1, 3) * (0.10, 0.05, 0.08)
    keys: list[Key] = []
    spans = []
    t = 0.0
    for name in chain:
        action = ACTIONS[name]
        setting.home = _draw_home(rng, side)
        plan = action.plan(setting)
        seconds = rng.uniform(*duration_s) * (1.4 if action.repeated else 1.0) * slower
        seconds = max(1, round(seconds * fps)) / fps
        timed = [replace(key, t=t + key.t * seconds) for key in plan]
        keys += timed if not keys else timed[1:]
        spans.append((t, t + seconds))
        t += seconds
    base = setting.partner.copy()
    first_action = ACTIONS[chain[0]]
    if first_action.held:
        first = keys[0].position - _turned(KINDS[kind].grasp, setting.yaw)
    elif first_action.stacked:
        first = base.copy()
    if family_name == "stack" and partner:
        base[2] -= KINDS[partner].height
    names = list(COLORS)
    return Performance(
        family=family_name, actions=chain, kind=kind, partner=partner,
        colors=(names[colors[0]], names[colors[1]]), spans=tuple(spans),
        path=HandPath(keys, side, bend), origin=first, partner_origin=base, yaw=setting.yaw,
    )  # fmt: skip


def _draw_setting(
    rng: np.random.Generator, family: str, first: str, kind: str, partner: str | None, side: Side
) -> Setting:
    """Where things stand and in what style the hand moves."""
    mirror = 1.0 if side == "right" else -1.0
    amplitude = rng.uniform(0.85, 1.2)
    spot = np.array([rng.uniform(-0.07, 0.07), rng.uniform(-0.04, 0.07), 0.0])
    # start a long way on the side that it will come from
    shift = {
        "slide_left": (0.13, 0), "slide_right": (-0.13, 0), "push": (0, -0.10), "pull": (0, 0.10),
    }  # fmt: skip
    spot[:2] += np.array(shift.get(first, (0, 0))) * amplitude
    base = spot.copy()
    if family == "stack" and partner:
        base[2] += KINDS[partner].height
    fixture = kind in FIXTURES
    yaw = 0.0 if fixture and family in ("open_close", "door") else rng.uniform(-0.5, 0.5)
    setting = Setting(
        side=side, kind=KINDS[kind], spot=spot, yaw=yaw, partner=base, amplitude=amplitude,
        offset=rng.uniform(-1, 1, 3) * (0.05, 0.03, 0.02), tilt_deg=rng.uniform(-8, 8),
        turn_rad=rng.uniform(-0.25, 0.25) + 0.15 * mirror, home=_draw_home(rng, side),
        cycles=rng.uniform(2.5, 3.5), name=kind, phase=rng.uniform(0, 2 * np.pi),
        flip=1 if rng.random() < 0.5 else -1,
    )  # fmt: skip
    setting.held_at = setting.grasp() + np.array([0.05 * mirror, -0.10, 0.17]) * amplitude
    if family == "shake":
        setting.held_at = setting.grasp() + np.array([0.0, 0.0, 0.16])
    if family == "tap" or fixture:
        setting.turn_rad *= 0.6
    return setting


def _draw_home(rng: np.random.Generator, side: Side) -> np.ndarray:
    """Where the empty hand waits: low in front of the body, on its own side or across."""
    mirror = 1.0 if side == "right" else -1.0
    return np.array(
        [mirror * rng.uniform(0.0, 0.24), rng.uniform(-0.26, -0.18), rng.uniform(0.08, 0.16)]
    )


def _turned(vector: tuple[float, float, float], yaw: float) -> np.ndarray:
    x, y, z = vector
    return np.array([x * np.cos(yaw) - y * np.sin(yaw), x * np.sin(yaw) + y * np.cos(yaw), z])


def set_phase(world: World, performance: Performance) -> set[str]:
    """Put the objects of a performance into a freshly reset world; returns the names on stage."""
    names = {performance.kind} | ({performance.partner} if performance.partner in KINDS else set())
    pairs = [(performance.kind, performance.origin, performance.yaw)]
    if performance.partner in KINDS:
        pairs.append((str(performance.partner), performance.partner_origin, 0.0))
    for name, origin, yaw in pairs:
        world.show(name)
        if name in FIXTURES:
            world.model.body_pos[world.body[name]] = origin
            world.model.body_quat[world.body[name]] = yaw_quaternion(yaw)
            opened = ACTIONS[performance.actions[0]].opened
            world.data.qpos[world.qpos(name)] = OPENED.get(name, 0.0) if opened else 0.0
        else:
            world.data.qpos[world.qpos(name)] = np.concatenate([origin, yaw_quaternion(yaw)])
    return names


def play(
    world: World, performance: Performance, fps: float, frames: int, lead_s: float = 0.0
) -> Iterator[int]:
    """Simulate a performance; yields 0..frames-1 when the world stands at frame / fps - lead_s.

    The stage must be set. Before 0 the hand stands still. Between frames the hand follows its path
    through a soft weld.
    """
    substeps = int(np.ceil(1 / (fps * SUBSTEP_S)))
    world.model.opt.timestep = 1 / (fps * substeps)
    times = np.arange(frames * substeps) * world.model.opt.timestep - lead_s
    track = performance.path.sample(times)
    forearm = forearm_quaternions(track.wrist, world.side)
    events = performance.path.events()
    _start(world, performance, track, forearm)
    for step, time in enumerate(times):
        if step % substeps == 0:
            yield step // substeps
        while events and events[0][0] <= time + 1e-9:
            _apply(world, performance.kind, events.pop(0)[1])
        _command(world, track, forearm, step)
        world.mujoco.mj_step(world.model, world.data)


def _start(world: World, performance: Performance, track: HandTrack, forearm: np.ndarray) -> None:
    """Hand on the first pose, object in it if held, all at rest."""
    adr = int(world.model.jnt_qposadr[world.model.body_jntadr[world.body[WRIST]]])
    world.data.qpos[adr : adr + 7] = np.concatenate([track.wrist[0], track.quaternion[0]])
    world.data.qpos[world.finger_qpos] = track.fingers[0] * 0.6
    _command(world, track, forearm, 0)
    world.mujoco.mj_forward(world.model, world.data)
    if performance.held:
        _apply(world, performance.kind, "attach")
    for _ in range(SETTLE_STEPS):
        world.mujoco.mj_step(world.model, world.data)


def _command(world: World, track: HandTrack, forearm: np.ndarray, step: int) -> None:
    data = world.data
    data.mocap_pos[world.target] = data.mocap_pos[world.forearm] = track.wrist[step]
    data.mocap_quat[world.target] = track.quaternion[step]
    data.mocap_quat[world.forearm] = forearm[step]
    data.ctrl[:] = track.fingers[step]


def _apply(world: World, kind: str, event: str) -> None:
    """Switch the weld between hand and object: on, keeping their present relative pose, or off."""
    model, data, mujoco = world.model, world.data, world.mujoco
    weld = model.equality(f"grasp_{kind}").id
    data.eq_active[weld] = event == "attach"
    world.feel_fingers(kind, event == "attach")
    if event == "detach":
        return
    wrist, thing = world.body[WRIST], int(model.eq_obj2id[weld])
    inverse, relative, offset = np.empty(4), np.empty(4), np.empty(3)
    mujoco.mju_negQuat(inverse, data.xquat[wrist])
    mujoco.mju_mulQuat(relative, inverse, data.xquat[thing])
    mujoco.mju_rotVecQuat(offset, data.xpos[thing] - data.xpos[wrist], inverse)
    model.eq_data[weld, 0:3] = 0
    model.eq_data[weld, 3:6], model.eq_data[weld, 6:10] = offset, relative


def forearm_quaternions(wrist: np.ndarray, side: Side) -> np.ndarray:
    """Turns, (N, 4) w first, that point the forearm's y axis from the shoulder to the wrist, (N,
    3).
    """
    mirror = np.array([1.0 if side == "right" else -1.0, 1.0, 1.0])
    direction = wrist - SHOULDER * mirror
    direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
    y_axis = np.array([0.0, 1.0, 0.0])
    quaternion = np.concatenate(
        [
            1 + direction @ y_axis[:, None],
            np.cross(np.broadcast_to(y_axis, direction.shape), direction),
        ],
        1,
    )
    return quaternion / np.linalg.norm(quaternion, axis=1, keepdims=True)


def wrist_motion(world: World) -> tuple[np.ndarray, np.ndarray]:
    """(pose (7,): position m, quaternion w first; velocity (6,): linear m/s, angular rad/s), world
    axes.
    """
    body = world.body[WRIST]
    velocity = np.empty(6)
    world.mujoco.mj_objectVelocity(
        world.model, world.data, world.mujoco.mjtObj.mjOBJ_BODY, body, velocity, 0
    )
    pose = np.concatenate([world.data.xpos[body], world.data.xquat[body]])
    return pose, np.concatenate([velocity[3:], velocity[:3]])
