"""One observation in memory that two processes share: pictures are not sent through a pipe."""

from __future__ import annotations

import mmap
import os

import numpy as np

from duqsweep.seams import Observation

CAMERAS = ("agentview", "wrist")
STATE = (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2))  # field, values; float64


class SharedObservation:
    """A fixed layout: the robot's state in float64, then one square uint8 picture per camera.

    One side writes before it sends a message, the other reads after it has received it, so the
    memory needs no lock.
    """

    def __init__(self, image_px: int, descriptor: int | None = None) -> None:
        """Make the memory, or map memory that another process has made.

        Args:
            image_px: Side of the pictures.
            descriptor: An open file of the other process's memory; None: make new memory. It
                belongs to this object from now on.
        """
        self._shape = (len(CAMERAS), image_px, image_px, 3)
        values = sum(count for _, count in STATE)
        pixels = int(np.prod(self._shape))
        size = 8 * values + pixels
        if descriptor is None:
            descriptor = os.memfd_create("duqsweep-observation")
            os.truncate(descriptor, size)
        self.descriptor = descriptor
        memory = mmap.mmap(descriptor, size)
        self._state = np.frombuffer(memory, np.float64, values)
        self._pictures = np.frombuffer(memory, np.uint8, pixels, 8 * values).reshape(self._shape)

    def write(self, observation: Observation) -> None:
        """Store all but the instruction.

        Raises:
            ValueError: A picture has another size, or a camera is missing or unknown.
        """
        if sorted(observation.images) != sorted(CAMERAS):
            raise ValueError(f"cameras must be {CAMERAS}, got {sorted(observation.images)}")
        for number, camera in enumerate(CAMERAS):
            picture = observation.images[camera]
            if picture.shape != self._shape[1:]:
                raise ValueError(f"pictures must be {self._shape[1:]}, got {picture.shape}")
            self._pictures[number] = picture
        self._state[:] = np.concatenate([getattr(observation, name) for name, _ in STATE])

    def read(self, instruction: str) -> Observation:
        """A copy of what was written last."""
        state = np.split(self._state.copy(), np.cumsum([count for _, count in STATE])[:-1])
        images = {camera: self._pictures[i].copy() for i, camera in enumerate(CAMERAS)}
        fields = {name: values for (name, _), values in zip(STATE, state, strict=True)}
        return Observation(images=images, instruction=instruction, **fields)

    def close(self) -> None:
        """Close the descriptor; the memory goes with the last process that maps it."""
        os.close(self.descriptor)
