"""The meshes of a MuJoCo model as one vertex buffer: what MuJoCo's renderer draws, corner by corner."""

from dataclasses import dataclass
from typing import Any

import numpy as np

SMOOTH_COSINE = 0.8  # where a stored normal turns further from its face, MuJoCo draws the face flat


@dataclass(frozen=True)
class Mesh:
    """One mesh. vertices: float32 (3, V), m. faces: uint32 (F, 3), columns of `vertices`. corners:
    uint32 (F, 3), rows of the vertex buffer. textured: whether it has texture coordinates."""

    vertices: np.ndarray
    faces: np.ndarray
    corners: np.ndarray
    textured: bool


def mesh_buffer(model: Any) -> tuple[list[Mesh], np.ndarray]:
    """All meshes and their buffer, float32 (N, 8): position, normal, texture coordinates.

    Follows MuJoCo 3.3.2, `mjr_uploadMesh`, so that every corner has the same bits.
    """
    meshes, blocks, start = [], [], 0
    for index in range(model.nmesh):
        vertices, faces = _geometry(model, index)
        keys, normals, coordinates = _attributes(model, index, vertices, faces)
        _, first, corner = np.unique(keys, return_index=True, return_inverse=True)
        block = np.concatenate([vertices[faces.reshape(-1)], normals, coordinates], axis=1)[first]
        corners = (corner.reshape(faces.shape) + start).astype(np.uint32)
        textured = bool(model.mesh_texcoordadr[index] >= 0)
        columns = np.ascontiguousarray(vertices.T)
        meshes.append(Mesh(columns, faces.astype(np.uint32), corners, textured))
        blocks.append(block.astype(np.float32))
        start += len(block)
    return meshes, np.concatenate(blocks) if blocks else np.zeros((0, 8), np.float32)


def _geometry(model: Any, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and faces (F, 3) of a mesh."""
    start, count = model.mesh_vertadr[index], model.mesh_vertnum[index]
    return model.mesh_vert[start : start + count], model.mesh_face[_faces(model, index)]


def _faces(model: Any, index: int) -> slice:
    start = model.mesh_faceadr[index]
    return slice(start, start + model.mesh_facenum[index])


def _attributes(
    model: Any, index: int, vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of all 3F corners: a key that is equal where all attributes are, normal, coordinates."""
    rows = _faces(model, index)
    which = model.mesh_facenormal[rows].reshape(-1).astype(np.int64)
    normals = model.mesh_normal[model.mesh_normaladr[index] + which]
    key = faces.reshape(-1).astype(np.int64)
    if model.mesh_texcoordadr[index] >= 0:
        place = model.mesh_facetexcoord[rows].reshape(-1).astype(np.int64)
        coordinates = model.mesh_texcoord[model.mesh_texcoordadr[index] + place]
    else:
        flat = np.repeat(_face_normals(vertices, faces), 3, axis=0)
        products = normals * flat
        cosines = products[:, 0] + products[:, 1] + products[:, 2]
        is_flat = cosines.astype(np.float64) < SMOOTH_COSINE
        normals = np.where(is_flat[:, None], flat, normals)
        face = np.repeat(np.arange(len(faces)), 3)
        which = np.where(is_flat, model.mesh_normalnum[index] + face, which)
        place, coordinates = np.zeros_like(which), np.zeros((len(which), 2), np.float32)
    key = (key * (which.max(initial=0) + 1) + which) * (place.max(initial=0) + 1) + place
    return key, normals, coordinates


def _face_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (F, 3) in float32, operation by operation as MuJoCo computes them."""
    first, second, third = (vertices[faces[:, k]] for k in range(3))
    a, b = second - first, third - first
    cross = np.stack(
        [a[:, i] * b[:, j] - a[:, j] * b[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], axis=1
    )
    squares = cross * cross
    length = np.sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2])
    is_point = length < np.float32(1e-10)
    scale = np.float32(1) / np.where(is_point, np.float32(1), length)
    return np.where(is_point[:, None], np.array([0, 0, 1], np.float32), cross * scale[:, None])
