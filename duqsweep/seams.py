"""The protocols between the worker's parts: quantizer, policy and simulator stay strangers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from duqsweep.spec import LedgerEntry, Schedule


ACTION_DIM = 7  # of an action: position and rotation of the gripper, and its fingers


@dataclass(frozen=True)
class Observation:
    """What the robot sees at one moment, as the simulator gives it.

    Images are unscaled, upright and not mirrored; policies of openpi were trained on mirrored ones.
    """

    images: dict[str, NDArray[np.uint8]]  # camera → (height, width, 3); keys "agentview", "wrist"
    eef_pos: NDArray[np.float64]  # (3,) metres, world frame
    eef_quat: NDArray[np.float64]  # (4,) xyzw, world frame
    gripper_qpos: NDArray[np.float64]  # (2,) metres
    instruction: str


class Environment(Protocol):
    """One simulator that can play any task of its suite."""

    def reset(self, entry: LedgerEntry) -> Observation:
        """Start the episode of `entry` and settle; equal entries give equal episodes."""

    def step(self, action: NDArray[np.float64]) -> bool:
        """Apply one action, (7,) in [-1, 1]; returns whether the goal holds."""

    def observe(self) -> Observation:
        """What is seen now; drawing the pictures is a third of a step's cost."""

    def built(self) -> frozenset[tuple[int, int | None]]:
        """Tasks that need not be built (1 to 2 s), each with the seed of the episodes it serves.

        Instead of a seed, None: those of any seed.
        """

    def close(self) -> None:
        """Free the simulator."""


class PendingActions(Protocol):
    """What a call that has begun will give."""

    def is_over(self) -> bool:
        """Whether the call is over; does not wait."""

    def wait(self) -> NDArray[np.float64]:
        """(horizon, 7) actions for the environment, in [-1, 1]."""


class Policy(Protocol):
    """A policy that acts: eager or compiled."""

    @property
    def horizon(self) -> int:
        """Actions per call."""

    @property
    def action_dim(self) -> int:
        """Width of the flow's noise, >= 7."""

    @property
    def num_steps(self) -> int:
        """Euler steps per call."""

    @property
    def calls_at_once(self) -> int:
        """How many calls may have begun and not ended.

        More than one: while a GPU computes one, the host prepares the next. Each is of batch 1, and
        its numbers are those of a call that is made alone.
        """

    def begin(self, observation: Observation, noise: NDArray[np.float32]) -> PendingActions:
        """Begin what `act` does; calls end in the order in which they began.

        The arrays of the arguments must stay as they are until the call is over.
        """

    def act(self, observation: Observation, noise: NDArray[np.float32]) -> NDArray[np.float64]:
        """Predict a chunk of actions.

        Args:
            observation: What is seen now.
            noise: (horizon, action_dim), standard normal: where the flow starts.

        Returns:
            (horizon, 7) actions for the environment, in [-1, 1].
        """

    def act_normalised(
        self, observation: Observation, noise: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The chunk before un-normalisation, (horizon, 7): errors compare across joints."""

    def time_parts(self, observation: Observation, noise: NDArray[np.float32]) -> dict[str, float]:
        """One call, timed in its parts: seconds under the keys "vision", "llm" and "dit"."""

    def weights(self) -> list[torch.Tensor]:
        """Every tensor that a call reads; some may share their memory."""

    def launches(self, observation: Observation, noise: NDArray[np.float32]) -> Mapping[str, int]:
        """How often one call launches each of this package's GPU kernels.

        A kernel that makes many products also counts those, on the GPU.
        """

    def reads(self, observation: Observation) -> tuple[int, int]:
        """How many pictures and prompt tokens one call reads; what it would mask is left out."""

    def synchronize(self) -> None:
        """Wait until the device is idle; on a CPU, nothing."""


class EagerPolicy(Policy, Protocol):
    """A policy that runs module by module; compiling it gives another policy and leaves it be."""

    @property
    def module(self) -> torch.nn.Module:
        """The network, whose linear layers may be replaced; parameter names are openpi's."""

    def copy(self, num_steps: int, schedule: Schedule, reuse_images: bool) -> EagerPolicy:
        """The same weights in new modules (tensors shared), called as `PolicySpec` says."""
