"""Frames: the fast renderer's are MuJoCo's own, bit for bit."""

import importlib.util

import numpy as np
import pytest

if importlib.util.find_spec("robosuite") is None:
    pytest.skip("needs the libero extra", allow_module_level=True)

from libero_eval.env.assets.pack import ProceduralPack
from libero_eval.env.render.soft_renderer import SoftRenderer
from libero_eval.env.render.triangles import touching
from libero_eval.env.sim import LiberoSim
from tests.paths import LIBERO_ASSETS, needs_libero_assets

SAMPLES = np.array(
    [[0.375, 0.125], [0.875, 0.375], [0.125, 0.625], [0.625, 0.875]], dtype=np.float32
)


def covered(corners: np.ndarray, size: int) -> bool:
    """Whether a triangle (3, 2), counter-clockwise, contains a sample of the picture: all tried."""
    rows, columns = np.mgrid[:size, :size]
    places = np.stack([columns, rows], axis=-1)[..., None, :] + SAMPLES.astype(np.float64)
    inside = np.ones(places.shape[:-1], dtype=bool)
    for first, second in ((0, 1), (1, 2), (2, 0)):
        edge, to = corners[second] - corners[first], places - corners[first]
        inside &= edge[0] * to[..., 1] - edge[1] * to[..., 0] >= 0
    (a, b, c) = corners
    looks_here = (b - a)[0] * (c - a)[1] - (b - a)[1] * (c - a)[0] > 0
    return bool(looks_here and inside.any())


@pytest.mark.parametrize("extent", [0.3, 1.0, 4.0])
def test_triangles_that_touch_a_sample_are_kept(extent: float) -> None:
    rng = np.random.default_rng(0)
    count, size = 600, 8
    centers = rng.uniform(-1, size + 1, size=(count, 1, 2))
    shapes = (centers + rng.normal(size=(count, 3, 2)) * extent).astype(np.float32)
    half = count // 2  # slivers, which turn the other way when their corners are snapped
    along = rng.uniform(-0.1, 1.1, size=(half, 1))
    shapes[:half, 2] = shapes[:half, 0] * along + shapes[:half, 1] * (1 - along)
    snapped = np.round(shapes * 256).astype(np.float64) / 256
    points = np.ones((3, 3 * count), dtype=np.float32)
    points[:2] = shapes.reshape(-1, 2).T
    faces = np.arange(3 * count, dtype=np.uint32).reshape(count, 3)
    kept = np.empty((count + 1, 3), dtype=np.uint32)
    number = touching(points, faces, faces, SAMPLES, size, 0.5, kept)
    chosen = {int(face[0]) // 3 for face in kept[:number]}
    expected = {index for index in range(count) if covered(snapped[index], size)}
    assert expected and expected <= chosen
    assert len(chosen) < 0.75 * count, "many are left out"
    near = touching(points, faces, faces, SAMPLES, size, 2.0, kept)
    assert near == count, "what is too near to tell is kept"


def compare(sim: LiberoSim, steps: int, seed: int) -> tuple[int, int]:
    """Hold the fast renderer's frames against `mjr_render`'s; returns (frames, frames drawn fast)."""
    rng = np.random.default_rng(seed)
    frames = fast = 0
    for _ in range(steps):
        for _ in range(3):
            sim.step(np.clip(rng.normal(size=7) * 0.8 + [0, 0, -0.4, 0, 0, 0, 0], -1, 1))
        for camera in ("agentview", "wrist"):
            for size in (256, 100):
                sim.raw_image(camera, size)
                assert sim._camera is not None
                eye = sim._camera
                soft = SoftRenderer(eye._model, eye._buffers) if eye._soft is None else eye._soft
                eye._soft = soft
                ours = sim.raw_image(camera, size)
                viewport = eye._mujoco.MjrRect(0, 0, size, size)
                geoms = [eye._scene.geoms[i] for i in range(eye._scene.ngeom)]
                fast += soft._is_plain(viewport, eye._scene, geoms)
                eye._soft = None
                np.testing.assert_array_equal(ours, sim.raw_image(camera, size))
                eye._soft = soft
                frames += 1
    return frames, fast


def test_frames_are_mujocos_own() -> None:
    sim = LiberoSim("libero_10", 0, ProceduralPack().build(), image_size=256)
    sim.reset(0, settle=False)
    frames, fast = compare(sim, steps=2, seed=0)
    assert fast == frames == 8
    sim.close()


@pytest.mark.slow
@needs_libero_assets
@pytest.mark.parametrize("task", range(10))
def test_frames_are_mujocos_own_with_official_assets(task: int) -> None:
    assert LIBERO_ASSETS is not None
    sim = LiberoSim("libero_10", task, LIBERO_ASSETS, image_size=256)
    for episode in (0, 7):
        sim.reset(episode, settle=False)
        compare(sim, steps=4, seed=task)
    sim.close()
