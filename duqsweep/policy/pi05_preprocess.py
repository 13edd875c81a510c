"""Conversions between LIBERO's simulator and a pi0.5 checkpoint: images, prompt, actions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.checkpoint.io_spec import IoSpec
from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.checkpoint.tokenizer import PromptTokenizer
from duqsweep.policy.preprocess import camera_pictures
from duqsweep.seams import Observation


@dataclass(frozen=True)
class Pi05Preprocessing:
    """The `Preprocessing` of a `Pi05Policy` that was trained by openpi or LeRobot."""

    io_spec: IoSpec
    tokenizer: PromptTokenizer

    @property
    def sizes(self) -> PolicySizes:
        """See `frontend.Preprocessing`."""
        return self.io_spec.sizes

    def pictures(self, observation: Observation) -> list[NDArray[np.uint8]]:
        """See `frontend.Preprocessing`."""
        return camera_pictures(observation, self.io_spec.cameras)

    def pixels(self, pictures: Tensor) -> Tensor:
        """See `frontend.Preprocessing`."""
        # Policies were trained on the simulator's images rotated by 180 degrees, that is, flipped
        # in both directions. An observation's are already flipped vertically, so only the
        # horizontal flip is left. Source: openpi, examples/libero/main.py.
        planes = pictures.flip(2).movedim(-1, 1).float()
        side = self.sizes.vision.image_px
        return resize_with_pad(planes, side, self.io_spec.antialias) / 127.5 - 1.0

    def prompt(self, observation: Observation) -> NDArray[np.int64]:
        """See `frontend.Preprocessing`."""
        if self.io_spec.state_in_prompt:
            state = self.io_spec.state.normalise(libero_state(observation))
            return self.tokenizer.with_state(observation.instruction, state)
        return self.tokenizer.without_state(observation.instruction)

    def actions(self, normalised: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `frontend.Preprocessing`; clips to [-1, 1], as the controller does.

        The gripper's value is already LIBERO's (-1 opens). Source: openpi, examples/libero.
        """
        raw = self.io_spec.actions.denormalise(normalised.astype(np.float64))
        return np.asarray(np.clip(raw, -1.0, 1.0))


def libero_state(observation: Observation) -> NDArray[np.float64]:
    """(8,): position, rotation axis times angle, gripper fingers."""
    rotation = axis_angle(observation.eef_quat)
    return np.concatenate((observation.eef_pos, rotation, observation.gripper_qpos))


def axis_angle(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4,) xyzw → (3,) rotation axis times angle, with the angle in [0, 2π].

    Source: robosuite, utils/transform_utils.py, quat2axisangle, which openpi uses. The
    two quaternions q and -q of one rotation give different angles.
    """
    cosine = np.clip(quaternion[3], -1.0, 1.0)
    sine = np.sqrt(1.0 - cosine**2)
    if sine == 0.0:
        return np.zeros(3)
    return np.asarray(quaternion[:3] * 2.0 * np.arccos(cosine) / sine)


def resize_with_pad(planes: Tensor, side: int, antialias: bool) -> Tensor:
    """Fit images into a black square, undistorted and centred.

    Args:
        planes: (n, 3, height, width) in [0, 255].
        side: Side of the square in pixels.
        antialias: Resize as PIL does for 8-bit images; otherwise by plain bilinear interpolation.

    Returns:
        (n, 3, side, side) in [0, 255].

    Source: openpi, packages/openpi-client, image_tools.py; lerobot 0.6.1, common/vla_utils.py.
    """
    height, width = planes.shape[-2:]
    if (height, width) == (side, side):
        return planes
    ratio = max(height / side, width / side)
    size = (int(height / ratio), int(width / ratio))
    resized = F.interpolate(planes, size, mode="bilinear", antialias=antialias)
    if antialias:
        resized = resized.round()  # weights are positive and sum up to 1, so within [0, 255]
    if size == (side, side):
        return resized
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    return F.pad(resized, (left, side - size[1] - left, top, side - size[0] - top))
