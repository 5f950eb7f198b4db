"""A light copy of robosuite's Panda: the same MJCF and collision meshes, coarser visual meshes.

The arm's visual meshes have 135,000 triangles (168,000 with its mount), more than a whole LIBERO
scene, and a software renderer spends its time on triangles. They are thinned by vertex clustering
with quadric error placement (Lindstrom, "Out-of-core simplification of large polygonal models",
SIGGRAPH 2000). Physics does not see visual meshes.
"""

import importlib.util
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from invact_vla.core.errors import UserError

FOLDER = "robosuite"
# File -> size of a cluster of vertices in meters; the hand is near the wrist camera.
LIGHTENED: dict[str, float] = {
    "robots/panda/robot.xml": 0.016,
    "grippers/panda_gripper.xml": 0.005,
    "mounts/rethink_mount.xml": 0.035,
}
COPIED = ("base.xml", "mounts/null_mount.xml")
FEWEST_FACES = 8
# of a binary STL file, after a header of 80 bytes and the number of triangles in 4
TRIANGLE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def robosuite_assets() -> Path:
    """The assets folder of the installed robosuite, without importing it."""
    spec = importlib.util.find_spec("robosuite")
    if spec is None or not spec.submodule_search_locations:
        raise UserError("robosuite is not installed: pip install 'invact-vla[libero]'")
    return Path(next(iter(spec.submodule_search_locations))) / "models" / "assets"


def write_robot(folder: Path) -> None:
    """Write the light robot below `folder`/robosuite, in the layout of robosuite's assets."""
    source, target = robosuite_assets(), folder / FOLDER
    for name in COPIED:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
    for name, cell in LIGHTENED.items():
        _lighten_file(source / name, target / name, cell)


def _lighten_file(source: Path, target: Path, cell: float) -> None:
    """Copy an MJCF file and its meshes, those that are only seen with fewer triangles."""
    tree = ET.parse(source)
    seen, touched = set(), set()
    for geom in tree.iter("geom"):
        is_seen = (geom.get("contype"), geom.get("group")) == ("0", "1")
        (seen if is_seen else touched).add(geom.get("mesh"))
    for mesh in tree.iter("mesh"):
        file = mesh.attrib["file"]
        (target.parent / file).parent.mkdir(parents=True, exist_ok=True)
        if mesh.get("name") not in seen - touched:
            shutil.copyfile(source.parent / file, target.parent / file)
            continue
        light = str(Path(file).with_suffix(".stl"))
        mesh.set("file", light)
        mesh.set("inertia", "shell")
        vertices, faces = read_mesh(source.parent / file)
        write_stl(target.parent / light, *thin(vertices, faces, cell))
    tree.write(target)


def thin(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], cell: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Merge the vertices of every cube of side `cell` into one; fewer faces, the same shape.

    vertices (V, 3), faces (F, 3). The merged vertex is where the planes of the faces around it
    meet best (least squares, drawn to the mean). Small pieces keep more detail: the cell is halved
    until at least 8 faces are left, or all of them.
    """
    while True:
        low = vertices.min(axis=0)
        cubes = np.floor((vertices - low) / cell).astype(np.int64)
        _, cluster = np.unique(cubes, axis=0, return_inverse=True)
        cluster = cluster.reshape(-1)
        merged = np.sort(cluster[faces], axis=1)
        whole = (np.diff(merged, axis=1) > 0).all(axis=1)
        _, first = np.unique(merged[whole], axis=0, return_index=True)
        kept = cluster[faces][whole][first]
        if len(kept) >= min(FEWEST_FACES, len(faces)) or cell < 1e-4:
            break
        cell /= 2
    if len(kept) < 4:
        return vertices, faces
    return _best_points(vertices, faces, cluster, cell), kept


def _best_points(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], cluster: NDArray, cell: float
) -> NDArray[np.float64]:
    """One point (C, 3) a cluster: minimises the squared distances to the planes of its faces."""
    count = int(cluster.max()) + 1
    mean = np.stack([np.bincount(cluster, axis) for axis in vertices.T], axis=1)
    mean /= np.bincount(cluster)[:, None]
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normal = np.cross(b - a, c - a)  # length: twice the area, so large faces weigh more
    matrix, vector = np.zeros((count, 3, 3)), np.zeros((count, 3))
    for corner in range(3):
        owner = cluster[faces[:, corner]]
        outer = normal[:, :, None] * normal[:, None, :]
        offset = ((a - mean[owner]) * normal).sum(axis=1)
        np.add.at(matrix, owner, outer)
        np.add.at(vector, owner, normal * offset[:, None])
    weight = np.trace(matrix, axis1=1, axis2=2)[:, None, None] * 0.05 + 1e-20
    shift = np.linalg.solve(matrix + weight * np.eye(3), vector[:, :, None])[:, :, 0]
    return mean + np.clip(shift, -cell / 2, cell / 2)


def read_mesh(path: Path) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices (V, 3) and triangles (F, 3) of an OBJ or binary STL file, equal vertices joined."""
    points = _read_stl(path) if path.suffix == ".stl" else _read_obj(path)
    vertices, index = np.unique(np.round(points, 6), axis=0, return_inverse=True)
    return vertices, index.reshape(-1, 3)


def _read_stl(path: Path) -> NDArray[np.float64]:
    triangles = np.frombuffer(path.read_bytes(), TRIANGLE, offset=84)
    return triangles["corners"].reshape(-1, 3).astype(np.float64)


def _read_obj(path: Path) -> NDArray[np.float64]:
    vertices, corners = [], []
    for line in path.read_text().splitlines():
        words = line.split()
        if words[:1] == ["v"]:
            vertices.append([float(word) for word in words[1:4]])
        elif words[:1] == ["f"]:
            ids = [int(word.split("/")[0]) - 1 for word in words[1:]]
            for index in range(1, len(ids) - 1):
                corners += [ids[0], ids[index], ids[index + 1]]
    return np.asarray(vertices)[np.asarray(corners)]


def write_stl(path: Path, vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> None:
    """Write a binary STL file."""
    triangles = np.zeros(len(faces), dtype=TRIANGLE)
    triangles["corners"] = vertices[faces]
    path.write_bytes(bytes(80) + len(faces).to_bytes(4, "little") + triangles.tobytes())
