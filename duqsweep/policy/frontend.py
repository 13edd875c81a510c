"""Turns observations into a call's inputs and outputs into actions, for every kind of policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.checkpoint.io_spec import ACTIONS
from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.seams import Observation

# (cameras, height, width, 3) bytes → (cameras, 3, px, px) in [-1, 1], on the same device
Pixels = Callable[[Tensor], Tensor]


class Preprocessing(Protocol):
    """Conversions between simulator and network, which differ between policies."""

    @property
    def sizes(self) -> PolicySizes:
        """Sizes of the network."""

    def pictures(self, observation: Observation) -> Sequence[NDArray[np.uint8]]:
        """One image per camera, (height, width, 3) each, without masked cameras."""

    def pixels(self, pictures: Tensor) -> Tensor:
        """Images as the network reads them; see `Pixels`.

        The same code runs on CPU and GPU, where a CUDA graph captures it: it reads no value back.
        """

    def prompt(self, observation: Observation) -> NDArray[np.int64]:
        """(tokens,) ids of instruction and state, without masked padding."""

    def actions(self, normalised: NDArray[np.float32]) -> NDArray[np.float64]:
        """(horizon, 7) network outputs → actions in [-1, 1]."""


@dataclass(frozen=True)
class CallInputs:
    """What one call reads, in the host's memory."""

    pictures: Sequence[NDArray[np.uint8]]  # one per camera, (height, width, 3), all of one size
    # (tokens,) ids without padding; a call asks for them when its device has something to do
    prompt: Callable[[], NDArray[np.int64]]
    noise: NDArray[np.float32]  # (horizon, action_dim)


class Pending(Protocol):
    """What a call that has begun will give."""

    def is_over(self) -> bool:
        """Whether the call is over; does not wait."""

    def wait(self) -> NDArray[np.float32]:
        """(horizon, action_dim)."""


@dataclass(frozen=True)
class Computed:
    """A `Pending` of a call that was over as soon as it had begun."""

    found: NDArray[np.float32]

    def is_over(self) -> bool:
        """See `Pending`."""
        return True

    def wait(self) -> NDArray[np.float32]:
        """See `Pending`."""
        return self.found


class Call(Protocol):
    """One way to compute actions."""

    @property
    def at_once(self) -> int:
        """How many calls may have begun and not ended."""

    def begin(self, inputs: CallInputs) -> Pending:
        """Begin to compute; calls end in the order in which they began."""

    def seconds(self, inputs: CallInputs) -> dict[str, float]:
        """Seconds of one call's parts "vision", "llm" and "dit", each with its inputs."""

    def launches(self, inputs: CallInputs) -> dict[str, int]:
        """How often one call launches each kernel, and the products that its kernels counted."""

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, without scratch buffers; some may share memory."""


@dataclass(frozen=True)
class BegunActions:
    """A `seams.PendingActions`."""

    preprocessing: Preprocessing
    pending: Pending

    def is_over(self) -> bool:
        """See `seams.PendingActions`."""
        return self.pending.is_over()

    def wait(self) -> NDArray[np.float64]:
        """See `seams.PendingActions`."""
        return self.preprocessing.actions(self.pending.wait()[:, :ACTIONS])


@dataclass(frozen=True)
class Frontend:
    """Turns observations into a call's inputs, and its results into actions."""

    preprocessing: Preprocessing
    device: torch.device

    def inputs(self, observation: Observation, noise: NDArray[np.float32]) -> CallInputs:
        """What a call reads of an observation; the prompt is computed when it asks for it."""
        return CallInputs(
            self.preprocessing.pictures(observation),
            lambda: self.preprocessing.prompt(observation),
            np.asarray(noise, dtype=np.float32),
        )

    def begin(
        self, call: Call, observation: Observation, noise: NDArray[np.float32]
    ) -> BegunActions:
        """See `seams.Policy`."""
        return BegunActions(self.preprocessing, call.begin(self.inputs(observation, noise)))

    def run(
        self, call: Call, observation: Observation, noise: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(horizon, 7) actions as the network outputs them, before denormalisation."""
        return call.begin(self.inputs(observation, noise)).wait()[:, :ACTIONS]

    def reads(self, observation: Observation) -> tuple[int, int]:
        """Numbers of images and prompt tokens of a call."""
        pictures = self.preprocessing.pictures(observation)
        return len(pictures), len(self.preprocessing.prompt(observation))

    def synchronize(self) -> None:
        """Wait until the device is idle; on a CPU, nothing."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
