"""A loaded policy: one call encodes images and prompt once and follows the flow step by step."""

from __future__ import annotations

import copy
import itertools
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from duqsweep.checkpoint.io_spec import ACTIONS
from duqsweep.checkpoint.sizes import PolicySizes
from duqsweep.kernels.launches import counted
from duqsweep.policy.pi05 import Pi05, PrefixCache, euler_times
from duqsweep.seams import Observation

if TYPE_CHECKING:
    from duqsweep.policy.graphed import Fuse, GraphedCall


class Preprocessing(Protocol):
    """What stands between the simulator and the network, and differs from policy to policy."""

    @property
    def sizes(self) -> PolicySizes:
        """Of the network."""

    def images(self, observation: Observation, device: torch.device) -> Tensor:
        """(1, cameras, 3, px, px) in [-1, 1], without cameras that would be masked."""

    def prompt(self, observation: Observation) -> Tensor:
        """(1, tokens) ids of instruction and state, without padding that would be masked."""

    def actions(self, normalised: NDArray[np.float32]) -> NDArray[np.float64]:
        """(horizon, 7) network outputs → actions in [-1, 1]."""


class FlowPolicy:
    """A pi0.5 behind `seams.Policy`.

    The linear layers of `module` may be replaced in place. What depends on the flow's time alone is
    computed once, here, for the fixed schedule.
    """

    def __init__(self, module: Pi05, config: Preprocessing, num_steps: int) -> None:
        self.module: nn.Module = module
        self.network = module
        self.config = config
        self.num_steps = num_steps
        self.horizon = config.sizes.horizon
        self.action_dim = config.sizes.action_dim
        self._device = module.action_in_proj.weight.device
        with torch.no_grad():
            table = module.modulation(euler_times(num_steps).to(self._device))
        self.modulations = [step[:, None].contiguous() for step in table.unbind(1)]
        self._graphed: GraphedCall | None = None

    def act(self, observation: Observation, noise: NDArray[np.float32]) -> NDArray[np.float64]:
        """(horizon, 7) actions in [-1, 1]; noise: (horizon, action_dim), standard normal."""
        return self.config.actions(self.act_normalised(observation, noise))

    @torch.no_grad()
    def act_normalised(
        self, observation: Observation, noise: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """(horizon, 7) actions as the network makes them: scaled alike across joints."""
        pixels, tokens = self._inputs(observation)
        if self._graphed is not None:
            made = self._graphed.run(pixels[0], tokens[0], torch.from_numpy(noise))
            return made[:, :ACTIONS].cpu().numpy()
        cache = self.network.prefix(self.network.encode_images(pixels), tokens)
        return self._follow(cache, noise)

    @torch.no_grad()
    def time_parts(self, observation: Observation, noise: NDArray[np.float32]) -> dict[str, float]:
        """One call, in seconds: "vision" (with preprocessing), "llm" and "dit"."""
        self.synchronize()
        marks = [perf_counter()]
        pixels, tokens = self._inputs(observation)
        if self._graphed is not None:
            self._mark(marks)
            found = self._graphed.seconds(pixels[0], tokens[0], torch.from_numpy(noise))
            return {**found, "vision": found["vision"] + marks[1] - marks[0]}
        encoded = self.network.encode_images(pixels)
        self._mark(marks)
        cache = self.network.prefix(encoded, tokens)
        self._mark(marks)
        self._follow(cache, noise)
        self._mark(marks)
        parts = [end - start for start, end in itertools.pairwise(marks)]
        return dict(zip(("vision", "llm", "dit"), parts, strict=True))

    def copy(self, num_steps: int) -> FlowPolicy:
        """The same tensors in new modules, not compiled, with another number of steps."""
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        memo = {id(tensor): tensor for tensor in tensors}
        return FlowPolicy(copy.deepcopy(self.network, memo), self.config, num_steps)

    def compile(self, fuse: Fuse | None = None) -> None:
        """Make calls fast; the next one pays for it.

        On a GPU the layers are exchanged for fused ones, compiled where they are not written as
        kernels, and captured in one CUDA graph for each length of the prompt; `module` is then
        empty. On a CPU the layers of all three stacks are compiled in place. The layers of a stack
        share one compiled form, so this takes a layer's time and not a network's: on two CPU cores
        20 s where the whole denoising step took 40, for a call as fast.

        Args:
            fuse: Makes the fused parts of a policy on a GPU; None: all layers are unquantized.
        """
        if self._device.type != "cuda":
            for layer in self.network.layers():
                layer.compile(fullgraph=True)
            return
        from duqsweep.policy.graphed import GraphedCall, fuse_plain  # Triton is a GPU's

        with torch.no_grad():
            parts = (fuse or fuse_plain)(self.network, self.num_steps)
        self._graphed = GraphedCall(*parts)
        # Layers that were merged would otherwise be held twice.
        del self.network
        self.module = nn.Module()

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, scratch space apart; some may share their memory."""
        if self._graphed is not None:
            return self._graphed.weights()
        return [*self.module.parameters(), *self.module.buffers()]

    def launches(self, observation: Observation, noise: NDArray[np.float32]) -> dict[str, int]:
        """How often one call launches each of this package's kernels, counted at their launch."""
        if self._graphed is not None:
            pixels, tokens = self._inputs(observation)
            captured = self._graphed.captured(pixels[0], tokens[0], torch.from_numpy(noise))
            return dict(captured.launched)
        with counted() as counts:
            self.act_normalised(observation, noise)
        return dict(counts)

    def reads(self, observation: Observation) -> tuple[int, int]:
        """How many pictures and prompt tokens one call reads."""
        pixels, tokens = self._inputs(observation)
        return pixels.shape[1], tokens.shape[1]

    def synchronize(self) -> None:
        """Wait until the device is idle; on a CPU, nothing."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)

    def _inputs(self, observation: Observation) -> tuple[Tensor, Tensor]:
        pixels = self.config.images(observation, self._device)
        return pixels, self.config.prompt(observation).to(self._device)

    def _follow(self, cache: PrefixCache, noise: NDArray[np.float32]) -> NDArray[np.float32]:
        actions = torch.from_numpy(np.asarray(noise, dtype=np.float32))[None].to(self._device)
        for modulation in self.modulations:
            velocity = self.network.velocity(actions, cache, modulation)
            actions = actions - velocity.float() / self.num_steps
        return actions[0, :, :ACTIONS].cpu().numpy()

    def _mark(self, marks: list[float]) -> None:
        self.synchronize()
        marks.append(perf_counter())
