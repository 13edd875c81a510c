"""LIBERO's assets with tiny pictures and meshes, for tests that look at no single picture."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from duqsweep.envs.asset_files import needed_files

# A box's corners are 0 to 7: bit 0 says which x, bit 1 which y, bit 2 which z. Faces from outside.
FACES = [
    (0, 2, 1), (1, 2, 3), (4, 5, 6), (5, 7, 6), (0, 1, 4), (1, 5, 4),
    (2, 6, 3), (3, 6, 7), (0, 4, 2), (2, 4, 6), (1, 3, 5), (3, 7, 5),
]  # fmt: skip


def write_plain_assets(source: Path, folder: Path, suites: Iterable[str]) -> None:
    """Link the files of some suites into `folder`, but for those that are only seen.

    Each PNG is replaced by one of 8 x 8 pixels, and each visual mesh by the box around it, so that
    objects still look different. They move as they do with `source`. MuJoCo compiles a task's model
    in a tenth of the time.
    """
    for name in {name for suite in suites for name in needed_files(suite)}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".png"):
            Image.new("RGB", (8, 8), "gray").save(folder / name)
        elif name.endswith(".msh"):
            (folder / name).write_bytes(box_around((source / name).read_bytes()))
        else:
            (folder / name).symlink_to(source / name)


def box_around(mesh: bytes) -> bytes:
    """The box around a mesh, both in MuJoCo's format: four counts, vertices, …, faces."""
    (count,) = struct.unpack_from("i", mesh)
    vertices = np.frombuffer(mesh, np.float32, 3 * count, offset=16).reshape(-1, 3)
    ends = np.stack([vertices.min(0), vertices.max(0)])
    corners = [[ends[corner >> axis & 1, axis] for axis in range(3)] for corner in range(8)]
    counts = struct.pack("4i", len(corners), 0, 0, len(FACES))
    return counts + np.array(corners, np.float32).tobytes() + np.array(FACES, np.int32).tobytes()
