"""Keeps from the renderer what a camera cannot see: the same picture, to the bit, in less time.

MuJoCo hands all geoms to OpenGL, for every camera, and once more for what mirrors them. Most of
LIBERO's triangles belong to the robot, of which a camera on its hand sees little.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

HIDDEN = 5  # the last geom group, which neither LIBERO nor MuJoCo by default draws
MARGIN_M = 1e-3

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Culling:
    """What the cameras of one model see."""

    def __init__(self, model: Any) -> None:
        """Read the bounding boxes.

        Args:
            model: MuJoCo's, whose geom groups are changed while a picture is drawn.
        """
        import mujoco

        kinds = mujoco.mjtGeom
        self._model, self._groups = model, model.geom_group.copy()
        middle, half = model.geom_aabb[:, None, :3], model.geom_aabb[:, None, 3:]
        self._corners = middle + half * np.array(list(product((-1, 1), repeat=3)))
        boxes, planes = (model.geom_type == kind for kind in (kinds.mjGEOM_BOX, kinds.mjGEOM_PLANE))
        self._endless = model.geom_rbound == 0  # planes: they have no box
        shines = np.append(model.mat_reflectance, 0.0)[model.geom_matid] > 0  # -1: no material
        self._mirrors = np.flatnonzero((boxes | planes) & shines)
        self._heights = np.where(boxes, model.geom_size[:, 2], 0.0)  # of the face that mirrors

    @contextmanager
    def only_seen(self, data: Any, camera: int) -> Iterator[None]:
        """In the block, MuJoCo draws only geoms that the camera may see, directly or mirrored.

        Args:
            data: MuJoCo's state.
            camera: Its number; its pictures are square.
        """
        seen = self._seen(data, camera)
        self._model.geom_group[:] = np.where(seen, self._groups, HIDDEN)
        try:
            yield
        finally:
            self._model.geom_group[:] = self._groups

    def _seen(self, data: Any, camera: int) -> Bools:
        """(geoms,)."""
        axes = data.geom_xmat.reshape(-1, 3, 3)
        corners = data.geom_xpos[:, None] + self._corners @ axes.transpose(0, 2, 1)
        position, rotation = data.cam_xpos[camera], data.cam_xmat[camera].reshape(3, 3)
        half = np.tan(np.radians(self._model.cam_fovy[camera]) / 2)
        whole = np.array([-half, half, -half, half])
        view = (corners - position) @ rotation
        seen: Bools = self._endless | _may_be_inside(view, whole)
        for mirror in self._mirrors[seen[self._mirrors]]:
            normal = axes[mirror][:, 2]
            point = data.geom_xpos[mirror] + self._heights[mirror] * normal
            distances = (corners - point) @ normal
            mirrored = corners - 2 * distances[..., None] * normal
            frame = whole if self._endless[mirror] else _frame(view[mirror], whole)
            seen |= _may_be_inside((mirrored - position) @ rotation, frame)
        return seen


def _may_be_inside(view: Floats, frame: Floats) -> Bools:
    """Whether boxes may reach into a part of the picture.

    Args:
        view: (boxes, 8, 3), their corners: to the right of the camera, above and behind it.
        frame: Left, right, lower and upper tangents of the part.
    """
    right, up, depth = view[..., 0], view[..., 1], -view[..., 2]
    left_end, right_end, lower_end, upper_end = frame
    outside = np.zeros(len(view), dtype=np.bool_)
    for beyond in (
        -depth,
        left_end * depth - right,
        right - right_end * depth,
        lower_end * depth - up,
        up - upper_end * depth,
    ):
        outside |= (beyond > MARGIN_M).all(axis=1)
    return ~outside


def _frame(corners: Floats, whole: Floats) -> Floats:
    """The part of the picture that one box lies in; all of it where the box is near the camera."""
    depth = -corners[:, 2]
    if depth.min() < MARGIN_M:
        return whole
    tangents = corners[:, :2] / depth[:, None]
    (left, lower), (right, upper) = tangents.min(axis=0), tangents.max(axis=0)
    edge = MARGIN_M / depth.min()
    return np.array([left - edge, right + edge, lower - edge, upper + edge])
