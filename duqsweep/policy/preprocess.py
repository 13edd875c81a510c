"""Conversions between the simulator and the embedded policy: images, prompt, actions.

As in pi0.5, the robot's state is part of the prompt: each value is discretised into 256 bins, and
each bin is a token. In the embedded policy, each word of the instruction is one token, and each
value's bins have their own tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.checkpoint.embedded_config import STATE_VALUES, EmbeddedConfig
from duqsweep.checkpoint.io_spec import CAMERAS, STATE_BINS
from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.errors import EvaluationError
from duqsweep.seams import Observation

PADDING = 0  # token that fills an instruction up; the policy was trained with it in sight


@dataclass(frozen=True)
class EmbeddedPreprocessing:
    """The `Preprocessing` of an embedded policy."""

    config: EmbeddedConfig

    @property
    def sizes(self) -> PolicySizes:
        """See `frontend.Preprocessing`."""
        return self.config.sizes

    def pictures(self, observation: Observation) -> list[NDArray[np.uint8]]:
        """See `frontend.Preprocessing`."""
        return camera_pictures(observation, CAMERAS)

    def pixels(self, pictures: Tensor) -> Tensor:
        """See `frontend.Preprocessing`; images of other sizes are resized bilinearly."""
        return fit_pixels(pictures, self.config.sizes.vision.image_px)

    def prompt(self, observation: Observation) -> NDArray[np.int64]:
        """See `frontend.Preprocessing`."""
        return prompt(observation, self.config)

    def actions(self, normalised: NDArray[np.float32]) -> NDArray[np.float64]:
        """See `frontend.Preprocessing`."""
        return denormalise_actions(normalised, self.config)


def state_vector(
    eef_pos: NDArray[np.float64], eef_quat: NDArray[np.float64], gripper_qpos: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Position, first two columns of the rotation matrix, gripper fingers: (..., 11).

    Unlike quaternions and axis-angle, two columns are unique and continuous in the rotation.

    Args:
        eef_pos: (..., 3) metres.
        eef_quat: (..., 4) xyzw.
        gripper_qpos: (..., 2) metres.
    """
    x, y, z, w = np.moveaxis(np.asarray(eef_quat, dtype=np.float64), -1, 0)
    first = (1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w))
    second = (2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w))
    columns = np.stack((*first, *second), axis=-1)
    return np.concatenate((eef_pos, columns, gripper_qpos), axis=-1)


def state_tokens(state: NDArray[np.float64], config: EmbeddedConfig) -> NDArray[np.int64]:
    """(..., 11) state → token ids; values outside the range get the outermost bins."""
    low, high = np.asarray(config.state_low), np.asarray(config.state_high)
    bins = np.floor((state - low) / (high - low) * STATE_BINS).astype(np.int64)
    offsets = config.first_bin + STATE_BINS * np.arange(STATE_VALUES)
    return np.asarray(np.clip(bins, 0, STATE_BINS - 1) + offsets)


def text_tokens(instruction: str, config: EmbeddedConfig) -> NDArray[np.int64]:
    """(text_tokens,) ids of an instruction's words, padded.

    Raises:
        EvaluationError: A word was not in the training data, or there are too many.
    """
    words = instruction.lower().split()
    unknown = [word for word in words if word not in config.words]
    if unknown:
        raise EvaluationError(
            f"the embedded policy does not know {unknown[0]!r} in {instruction!r}; "
            f"its words are {', '.join(sorted(config.words[1:]))}"
        )
    if len(words) > config.text_tokens:
        raise EvaluationError(
            f"the embedded policy reads {config.text_tokens} words, got {instruction!r}"
        )
    ids = [config.words.index(word) for word in words]
    return np.array(ids + [PADDING] * (config.text_tokens - len(ids)), dtype=np.int64)


def prompt(observation: Observation, config: EmbeddedConfig) -> NDArray[np.int64]:
    """(tokens,) ids: the instruction, then the state."""
    state = state_vector(observation.eef_pos, observation.eef_quat, observation.gripper_qpos)
    words = text_tokens(observation.instruction, config)
    return np.concatenate((words, state_tokens(state, config)))


def camera_pictures(observation: Observation, cameras: Sequence[str]) -> list[NDArray[np.uint8]]:
    """The images of `cameras`, (height, width, 3) each.

    Raises:
        EvaluationError: A camera is missing.
    """
    missing = [camera for camera in cameras if camera not in observation.images]
    if missing:
        raise EvaluationError(f"no image of {missing[0]!r}, only {sorted(observation.images)}")
    return [observation.images[camera] for camera in cameras]


def fit_pixels(pictures: Tensor, image_px: int) -> Tensor:
    """(..., height, width, 3) bytes → (..., 3, px, px) in [-1, 1], resized bilinearly."""
    scaled = scale_pixels(pictures)
    if scaled.shape[-1] == image_px:
        return scaled
    return F.interpolate(scaled, (image_px, image_px), mode="bilinear", antialias=True)


def scale_pixels(pixels: Tensor) -> Tensor:
    """(..., height, width, 3) bytes → (..., 3, height, width) in [-1, 1]."""
    return pixels.movedim(-1, -3).float() / 127.5 - 1.0


def denormalise_actions(
    actions: NDArray[np.float32], config: EmbeddedConfig
) -> NDArray[np.float64]:
    """(horizon, 7) network outputs → actions in [-1, 1]."""
    scaled = actions.astype(np.float64) * np.asarray(config.action_std)
    return np.asarray(np.clip(scaled + np.asarray(config.action_mean), -1.0, 1.0))
