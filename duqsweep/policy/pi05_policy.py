"""A loaded pi0.5 that runs layer by layer; it can be calibrated, quantized and compiled."""

from __future__ import annotations

import copy
import itertools

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.policy.eager_call import EagerCall
from duqsweep.policy.frontend import BegunActions, Frontend, Preprocessing
from duqsweep.policy.pi05 import Pi05
from duqsweep.seams import Observation
from duqsweep.spec import UNIFORM, Schedule


class Pi05Policy:
    """A pi0.5 as a `seams.EagerPolicy`; linear layers of `module` may be replaced in place."""

    def __init__(
        self,
        module: Pi05,
        preprocessing: Preprocessing,
        num_steps: int,
        schedule: Schedule = UNIFORM,
        reuse_images: bool = False,
    ) -> None:
        self.module = module
        self.preprocessing = preprocessing
        self.num_steps, self.schedule = num_steps, schedule
        self.reuse_images = reuse_images
        self.horizon = preprocessing.sizes.horizon
        self.action_dim = preprocessing.sizes.action_dim
        self.frontend = Frontend(preprocessing, module.action_in_proj.weight.device)
        self.call = EagerCall(module, num_steps, preprocessing.pixels, schedule, reuse_images)

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

    def copy(
        self, num_steps: int, schedule: Schedule = UNIFORM, reuse_images: bool = False
    ) -> Pi05Policy:
        """A policy of new modules that share this one's tensors, called in another way."""
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        memo = {id(tensor): tensor for tensor in tensors}
        module = copy.deepcopy(self.module, memo)
        return Pi05Policy(module, self.preprocessing, num_steps, schedule, reuse_images)

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads; some may share memory."""
        return self.call.weights()

    def launches(self, observation: Observation, noise: NDArray[np.float32]) -> dict[str, int]:
        """How often one call launches each of this package's kernels, counted at their launch."""
        return self.call.launches(self.frontend.inputs(observation, noise))

    def reads(self, observation: Observation) -> tuple[int, int]:
        """How many images and prompt tokens one call reads."""
        return self.frontend.reads(observation)

    def synchronize(self) -> None:
        """Wait until the device is idle; on a CPU, nothing."""
        self.frontend.synchronize()
