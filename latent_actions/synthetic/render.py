"""Pictures and masks of a world, on the CPU's software GL."""

from typing import Any

import numpy as np

from latent_actions.synthetic.cameras import CameraTrack
from latent_actions.synthetic.engine import load_mujoco, no_gl
from latent_actions.synthetic.world import World

BACKGROUND, HAND, OBJECT = 0, 1, 2
MAX_GEOMS = 256


class Renderer:
    """Draws worlds at size x size; one GL context per process, one drawing context per world."""

    def __init__(self, size: int):
        self.mujoco = load_mujoco()
        from mujoco.gl_context import GLContext

        self.size = size
        try:
            self.gl = GLContext(size, size)
            self.gl.make_current()
        except (RuntimeError, ImportError) as error:
            raise no_gl(error) from error
        self.contexts: dict[int, tuple[Any, Any, Any]] = {}
        self.classes: dict[tuple[int, frozenset[str]], np.ndarray] = {}
        self.option = self.mujoco.MjvOption()
        self.camera = self.mujoco.MjvCamera()
        self.camera.type = self.mujoco.mjtCamera.mjCAMERA_FIXED
        self.camera.fixedcamid = 0

    def close(self) -> None:
        """Free the GL objects; nothing can be drawn afterwards."""
        for _, _, context in self.contexts.values():
            context.free()
        self.contexts.clear()
        self.gl.free()

    def frame(self, world: World, track: CameraTrack, index: int) -> np.ndarray:
        """The picture at frame `index` of a camera track: uint8 (size, size, 3)."""
        scene, context = self._aim(world, track, index)
        self._set_segmentation(scene, False)
        return self._draw(scene, context, self.size)

    def mask(
        self, world: World, track: CameraTrack, index: int, size: int, things: set[str]
    ) -> np.ndarray:
        """What each pixel shows: uint8 (size, size) of BACKGROUND, HAND or OBJECT (those in
        `things`).
        """
        scene, context = self._aim(world, track, index)
        self._set_segmentation(scene, True)
        colors = self._draw(scene, context, size).astype(np.int32)
        geom = colors[..., 0] + (colors[..., 1] << 8) + (colors[..., 2] << 16)
        return self._classes(world, scene, frozenset(things))[geom]

    def _classes(self, world: World, scene: Any, things: frozenset[str]) -> np.ndarray:
        """Class of each segmentation color (0 is nothing, k is the scene's k-th geom), uint8."""
        key = (id(world), things)
        if key not in self.classes:
            owners = world.owner[[scene.geoms[i].objid for i in range(scene.ngeom)]]
            table = np.full(MAX_GEOMS + 1, BACKGROUND, np.uint8)
            table[1 : scene.ngeom + 1][owners == "hand"] = HAND
            table[1 : scene.ngeom + 1][np.isin(owners, list(things))] = OBJECT
            self.classes[key] = table
        return self.classes[key]

    def _aim(self, world: World, track: CameraTrack, index: int) -> tuple[Any, Any]:
        scene, context = self._contexts_of(world)
        world.data.cam_xpos[0] = track.position[index]
        world.data.cam_xmat[0] = track.axes[index].reshape(-1)
        world.model.cam_fovy[0] = track.fovy_deg[index]
        self.mujoco.mjv_updateScene(
            world.model, world.data, self.option, None, self.camera,
            self.mujoco.mjtCatBit.mjCAT_ALL, scene,
        )  # fmt: skip
        return scene, context

    def _contexts_of(self, world: World) -> tuple[Any, Any]:
        key = id(world)
        if key not in self.contexts:
            scene = self.mujoco.MjvScene(world.model, MAX_GEOMS)
            flags = self.mujoco.mjtRndFlag
            for flag in (
                flags.mjRND_SHADOW,
                flags.mjRND_REFLECTION,
                flags.mjRND_SKYBOX,
                flags.mjRND_HAZE,
            ):
                scene.flags[flag] = 0
            context = self.mujoco.MjrContext(world.model, self.mujoco.mjtFontScale.mjFONTSCALE_50)
            self.contexts[key] = (world, scene, context)  # the world is kept: its id stays taken
        _, scene, context = self.contexts[key]
        # a drawing context doesn't take the frame buffer back by itself when another one had it
        self.mujoco.mjr_setBuffer(self.mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
        return scene, context

    def _set_segmentation(self, scene: Any, on: bool) -> None:
        scene.flags[self.mujoco.mjtRndFlag.mjRND_SEGMENT] = on
        scene.flags[self.mujoco.mjtRndFlag.mjRND_IDCOLOR] = on

    def _draw(self, scene: Any, context: Any, size: int) -> np.ndarray:
        viewport = self.mujoco.MjrRect(0, 0, size, size)
        pixels = np.empty((size, size, 3), np.uint8)
        self.mujoco.mjr_render(viewport, scene, context)
        self.mujoco.mjr_readPixels(pixels, None, viewport, context)
        return pixels[::-1]
