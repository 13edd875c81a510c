"""A policy that turns observations into the inputs of one way to compute actions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.policy.frontend import BegunActions, Call, Frontend
from duqsweep.seams import Observation


class CalledPolicy:
    """What eager and compiled policies share: a `seams.Policy` around a `Call`."""

    def __init__(self, frontend: Frontend, num_steps: int, call: Call) -> None:
        self.frontend, self.num_steps, self.call = frontend, num_steps, call
        self.horizon = frontend.preprocessing.sizes.horizon
        self.action_dim = frontend.preprocessing.sizes.action_dim

    def act(self, observation: Observation, noise: NDArray[np.float32]) -> NDArray[np.float64]:
        """(horizon, 7) actions in [-1, 1]; noise: (horizon, action_dim), standard normal."""
        return self.begin(observation, noise).wait()

    @property
    def calls_at_once(self) -> int:
        """See `seams.Policy`."""
        return self.call.at_once

    def begin(self, observation: Observation, noise: NDArray[np.float32]) -> BegunActions:
        """See `seams.Policy`."""
        return self.frontend.begin(self.call, observation, noise)

    def act_normalised(
        self, observation: Observation, noise: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(horizon, 7) actions as the network outputs them, before denormalisation."""
        return self.frontend.run(self.call, observation, noise)

    def time_parts(self, observation: Observation, noise: NDArray[np.float32]) -> dict[str, float]:
        """Seconds of one call's parts "vision", "llm" and "dit", each with its inputs."""
        return self.call.seconds(self.frontend.inputs(observation, noise))

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, without scratch buffers; some may share memory."""
        return self.call.weights()

    def launches(self, observation: Observation, noise: NDArray[np.float32]) -> dict[str, int]:
        """How often one call launches each kernel, and the products that its kernels counted."""
        return self.call.launches(self.frontend.inputs(observation, noise))

    def reads(self, observation: Observation) -> tuple[int, int]:
        """How many images and prompt tokens one call reads."""
        return self.frontend.reads(observation)

    def synchronize(self) -> None:
        """Wait until the device is idle; on a CPU, nothing."""
        self.frontend.synchronize()
