"""One scene as a MuJoCo model: room, table, hand, every kind of object. What is not on stage is
hidden.

Which objects are seen and touched, where fixtures and clutter stand, and all colors are set at run
time, so a scene is compiled once and serves all its takes.
"""

from functools import lru_cache
from typing import Any

import numpy as np

from latent_actions.synthetic.config import TIDY, Variety
from latent_actions.synthetic.engine import load_mujoco
from latent_actions.synthetic.hand import (
    FINGER_JOINTS,
    FOREARM,
    TARGET,
    WRIST,
    HandLook,
    Side,
    actuators_mjcf,
    hand_mjcf,
)
from latent_actions.synthetic.objects import FIXTURES, FREE, KINDS, distractor_mjcf, object_mjcf
from latent_actions.synthetic.scenes import Scene, make_scene
from latent_actions.synthetic.textures import SIZE, Color

TIMESTEP_S = 0.005
HIDDEN_GROUP, SHOWN_GROUP = 4, 0
LOOKS = ("a", "b", "dark", "skin")
TABLE_BIT, OBJECT_BIT, FINGER_BIT, PALM_BIT = 1, 2, 4, 8
DARK = (0.12, 0.12, 0.13)
CHANGED = (  # fields of the model that a stage changes
    "geom_rgba", "geom_size", "geom_group", "geom_contype", "geom_conaffinity",
    "body_gravcomp", "body_pos", "body_quat",
)  # fmt: skip

DEFAULTS = """  <default>
    <geom condim="3" friction="0.9 0.01 0.001"/>
    <default class="a"><geom material="a" contype="2" conaffinity="7"/></default>
    <default class="b"><geom material="b" contype="2" conaffinity="7"/></default>
    <default class="dark"><geom material="dark" contype="2" conaffinity="7"/></default>
    <default class="skin"><geom material="skin" contype="4" conaffinity="0" mass="0.005"/></default>
    <default class="palm"><geom material="skin" contype="8" conaffinity="0" mass="0.005"/></default>
    <default class="finger">
      <joint type="hinge" damping="0.0025" armature="0.00006" range="-0.3 1.8" limited="true"/>
    </default>
    <default class="fixture"><joint damping="0.6" armature="0.002" frictionloss="0.05"/></default>
  </default>
"""


def world_mjcf(scene: Scene, side: Side, size: int, more: str = "") -> str:
    """The whole model as MJCF, for frames of up to size x size pixels. more: bodies besides."""
    looks = "".join(f'<material name="{look}"/>' for look in LOOKS)
    surfaces = "".join(
        f'<texture name="{name}" type="2d" builtin="flat" width="{SIZE}" height="{SIZE}"/>'
        f'<material name="{name}" texture="{name}" texrepeat="{repeat} {repeat}" specular="0"/>'
        for name, repeat in (("table", 2), ("wall", 3), ("floor", 4))
    )
    grasps = "".join(
        f'<weld name="grasp_{name}" body1="{WRIST}" active="false" solref="0.015 1" '
        f'body2="{name if name in FREE else name + "_part"}"/>'
        for name in KINDS
    )
    clutter = "".join(
        distractor_mjcf(f"clutter{number}", FREE[item.kind])
        for number, item in enumerate(scene.clutter)
    )
    objects = "".join(object_mjcf(name, kind) for name, kind in KINDS.items())
    light = " ".join(f"{c:.4f}" for c in scene.light_color)
    direction = " ".join(f"{c:.4f}" for c in scene.light_direction)
    # few polygons and no multisampling: 0.7 ms a frame at 112 px on one core, 12 ms with the
    # defaults
    return f"""<mujoco>
  <option timestep="{TIMESTEP_S}" integrator="implicitfast" cone="pyramidal"/>
  <size memory="4M"/>
  <visual>
    <global offwidth="{size}" offheight="{size}"/>
    <quality numslices="8" numstacks="4" numquads="1" offsamples="0" shadowsize="0"/>
    <headlight ambient="{scene.ambient:.3f} {scene.ambient:.3f} {scene.ambient:.3f}"
               diffuse="0.25 0.25 0.25" specular="0 0 0"/>
    <map znear="0.03" zfar="8"/>
  </visual>
  <statistic extent="1" center="0 0 0"/>
  <compiler angle="radian" autolimits="true" eulerseq="zyx"/>
{DEFAULTS}  <asset>{looks}{surfaces}</asset>
  <worldbody>
    <light directional="true" castshadow="false" pos="0 0 3" dir="{direction}" diffuse="{light}"
           specular="0.1 0.1 0.1"/>
    <geom name="table" type="box" size="0.75 0.55 0.03" pos="0 0.05 -0.03" material="table"
          contype="{TABLE_BIT}" conaffinity="0"/>
    <geom name="floor" type="plane" size="3 3 0.1" pos="0 0 -0.75" material="floor" contype="0"
          conaffinity="0"/>
    <geom name="wall" type="box" size="2.5 0.02 1.5" pos="0 1.1 0.5" material="wall" contype="0"
          conaffinity="0"/>
    <geom name="back_wall" type="box" size="2.5 0.02 1.5" pos="0 -1.3 0.5" material="wall"
          contype="0" conaffinity="0"/>
    <geom name="left_wall" type="box" size="0.02 2 1.5" pos="-1.4 0 0.5" material="wall" contype="0"
          conaffinity="0"/>
    <geom name="right_wall" type="box" size="0.02 2 1.5" pos="1.4 0 0.5" material="wall" contype="0"
          conaffinity="0"/>
    <camera name="view" pos="0 -0.5 0.5"/>
    {hand_mjcf(side)}
    {objects}
    {clutter}
    {more}
  </worldbody>
  <equality>
    <weld name="hand" body1="{TARGET}" body2="{WRIST}" solref="0.012 1" torquescale="2"/>
    {grasps}
  </equality>
  <actuator>{actuators_mjcf()}</actuator>
</mujoco>"""


class World:
    """A compiled scene with its data, and addresses of what is moved at run time."""

    def __init__(self, scene: Scene, side: Side, size: int, more: str = ""):
        self.mujoco = load_mujoco()
        self.scene = scene
        self.side: Side = side
        self.model: Any = self.mujoco.MjModel.from_xml_string(world_mjcf(scene, side, size, more))
        self.data: Any = self.mujoco.MjData(self.model)
        self._fill_textures()
        self.body = {name: self.model.body(name).id for name in (*KINDS, TARGET, WRIST, FOREARM)}
        self.target = int(self.model.body_mocapid[self.body[TARGET]])
        self.forearm = int(self.model.body_mocapid[self.body[FOREARM]])
        self.look = self._take_looks()
        self.owner = self._owners()
        self.finger_qpos = np.array(
            [
                self.model.joint(self.model.actuator_trnid[i, 0]).qposadr[0]
                for i in range(FINGER_JOINTS)
            ]
        )
        self._hide_objects()
        self.pristine = {name: getattr(self.model, name).copy() for name in CHANGED}

    def reset(self, hand: HandLook, colors: dict[str, tuple[Color, Color]]) -> None:
        """Back to the compiled state: nothing on stage, clutter in place, the given colors."""
        model = self.model
        for name, value in self.pristine.items():
            getattr(model, name)[:] = value
        self.mujoco.mj_resetData(model, self.data)
        for number, item in enumerate(self.scene.clutter):
            body = model.body(f"clutter{number}").id
            model.body_pos[body] = (item.x, item.y, 0)
            model.body_quat[body] = yaw_quaternion(item.yaw)
            self._paint(f"clutter{number}", item.colors)
        for name, pair in colors.items():
            self._paint(name, pair)
        model.geom_rgba[self.look == "skin", :3] = hand.skin
        model.geom_rgba[model.geom("variant_sleeve").id, :3] = hand.sleeve
        model.geom_size[self.owner == "hand", 0] *= hand.thickness
        for number, name in enumerate(FREE):  # apart from each other, far below the room
            self.data.qpos[self.qpos(name)] = (number, 0, -5, 1, 0, 0, 0)

    def show(self, name: str) -> None:
        """Put an object on stage: visible, and touchable if it is solid."""
        rows = self.owner == name
        self.model.geom_group[rows] = SHOWN_GROUP
        fixture = name in FIXTURES
        if not KINDS[name].solid:
            return
        if not fixture:
            self.model.body_gravcomp[self.body[name]] = 0
        # a free object feels fingers only while it is held; a fixture always, and the palm too
        self.model.geom_contype[rows] = 0 if fixture else OBJECT_BIT
        self.model.geom_conaffinity[rows] = (
            FINGER_BIT | PALM_BIT if fixture else TABLE_BIT | OBJECT_BIT
        )

    def feel_fingers(self, name: str, on: bool) -> None:
        """Let the fingers wrap around a free object (while it is held), or pass through it.

        Fingers that reach for an object would knock it over before the grasp is there.
        """
        if name in FREE:
            rows = self.owner == name
            bits = TABLE_BIT | OBJECT_BIT | (FINGER_BIT if on else 0)
            self.model.geom_conaffinity[rows] = bits

    def qpos(self, name: str) -> slice:
        """Place of a free object (7 numbers) or a fixture's joint (1 number) in qpos."""
        joint = self.model.joint(f"{name}_free" if name in FREE else f"{name}_joint")
        start = int(joint.qposadr[0])
        return slice(start, start + (7 if name in FREE else 1))

    def geoms_of(self, names: set[str]) -> np.ndarray:
        """bool (n_geoms,): geoms of the named owners ("hand" for hand and forearm)."""
        return np.isin(self.owner, list(names))

    def _fill_textures(self) -> None:
        for name, pixels in zip(("table", "wall", "floor"), self.scene.textures, strict=True):
            texture = self.model.texture(name).id
            start = int(self.model.tex_adr[texture])
            self.model.tex_data[start : start + pixels.size] = pixels.reshape(-1)

    def _take_looks(self) -> np.ndarray:
        """Which look (a, b, dark, skin, or "") each geom has; the marker materials are taken
        off.
        """
        model = self.model
        names = np.array([model.mat(i).name for i in range(model.nmat)] + [""])
        looks = names[model.geom_matid]
        looks = np.where(np.isin(looks, LOOKS), looks, "")
        model.geom_matid[looks != ""] = -1
        model.geom_rgba[looks == "dark", :3] = DARK
        return looks

    def _owners(self) -> np.ndarray:
        """Name of the object, "hand", "clutter<k>" or "room" that each geom belongs to."""
        owners = []
        for geom in range(self.model.ngeom):
            root = self.model.body(self.model.body_rootid[self.model.geom_bodyid[geom]]).name
            owners.append(
                "hand" if root in (WRIST, FOREARM) else root if root != "world" else "room"
            )
        return np.array(owners)

    def _hide_objects(self) -> None:
        hidden = self.geoms_of(set(KINDS))
        self.model.geom_group[hidden] = HIDDEN_GROUP
        untouched = hidden | np.char.startswith(self.owner, "clutter")
        self.model.geom_contype[untouched] = self.model.geom_conaffinity[untouched] = 0

    def _paint(self, name: str, pair: tuple[Color, Color]) -> None:
        for look, color in zip(("a", "b"), pair, strict=True):
            self.model.geom_rgba[(self.owner == name) & (self.look == look), :3] = color


def yaw_quaternion(yaw: float) -> np.ndarray:
    """Turn about z, (4,) w first."""
    return np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)])


@lru_cache(maxsize=32)
def cached_world(
    *, seed: int, split: str, number: int, n_exo: int, side: Side, size: int,
    variety: Variety = TIDY, more: str = "",
) -> World:  # fmt: skip
    """The world of a scene, compiled once per process (about 10 ms). more: MJCF of bodies besides."""
    return World(make_scene(seed, split, number, n_exo, variety), side, size, more)
