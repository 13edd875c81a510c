"""Turns observations into network inputs and outputs into actions, for every kind of policy."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.checkpoint.io_spec import ACTIONS
from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.seams import Observation

CallTensors = tuple[Tensor, Tensor, Tensor]  # pixels, tokens and noise of a `Call`


class Preprocessing(Protocol):
    """Conversions between simulator and network, which differ between policies."""

    @property
    def sizes(self) -> PolicySizes:
        """Sizes of the network."""

    def images(self, observation: Observation, device: torch.device) -> Tensor:
        """(1, cameras, 3, px, px) in [-1, 1], without masked cameras."""

    def prompt(self, observation: Observation) -> Tensor:
        """(1, tokens) ids of instruction and state, without masked padding."""

    def actions(self, normalised: NDArray[np.float32]) -> NDArray[np.float64]:
        """(horizon, 7) network outputs → actions in [-1, 1]."""


class Call(Protocol):
    """One way to compute actions; every method takes the same three tensors.

    pixels: (cameras, 3, px, px) in [-1, 1]. tokens: (n,) token ids, without padding. noise:
    (horizon, action_dim) in float32, on any device.
    """

    def run(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> Tensor:
        """(horizon, action_dim) in float32; the next call may overwrite it."""

    def seconds(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> dict[str, float]:
        """Seconds of one call's parts "vision", "llm" and "dit"."""

    def launches(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> dict[str, int]:
        """How often one call launches each kernel, and the products that its kernels counted."""

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, without scratch buffers; some may share memory."""


@dataclass(frozen=True)
class Frontend:
    """Turns observations into a call's tensors, and its results into actions."""

    preprocessing: Preprocessing
    device: torch.device

    def tensors(self, observation: Observation, noise: NDArray[np.float32]) -> CallTensors:
        """Pixels and tokens on the device, noise on the CPU."""
        pixels, tokens = self._inputs(observation)
        return pixels, tokens, torch.from_numpy(np.asarray(noise, dtype=np.float32))

    def run(
        self, call: Call, observation: Observation, noise: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(horizon, 7) actions as the network outputs them, before denormalisation."""
        actions = call.run(*self.tensors(observation, noise))
        return actions[:, :ACTIONS].cpu().numpy()

    def seconds(
        self, call: Call, observation: Observation, noise: NDArray[np.float32]
    ) -> dict[str, float]:
        """Seconds of one call's parts "vision" (with preprocessing), "llm" and "dit"."""
        self.synchronize()
        start = perf_counter()
        tensors = self.tensors(observation, noise)
        self.synchronize()
        preprocessing_s = perf_counter() - start
        parts = call.seconds(*tensors)
        return {**parts, "vision": parts["vision"] + preprocessing_s}

    def reads(self, observation: Observation) -> tuple[int, int]:
        """Numbers of images and prompt tokens of a call."""
        pixels, tokens = self._inputs(observation)
        return len(pixels), len(tokens)

    def synchronize(self) -> None:
        """Wait until the device is idle; on a CPU, nothing."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _inputs(self, observation: Observation) -> tuple[Tensor, Tensor]:
        pixels = self.preprocessing.images(observation, self.device)
        return pixels[0], self.preprocessing.prompt(observation).to(self.device)[0]
