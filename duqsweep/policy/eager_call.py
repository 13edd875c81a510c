"""One call of the network, stage by stage: images, prefix, denoising steps."""

from __future__ import annotations

import itertools
from time import perf_counter

import torch
from torch import Tensor

from duqsweep.kernels.launches import counted
from duqsweep.policy.pi05 import Pi05, PrefixCache, euler_times


class EagerCall:
    """Computes actions by calling the network's modules one after the other; a `frontend.Call`."""

    def __init__(self, module: Pi05, num_steps: int) -> None:
        """Compute the modulations of the fixed schedule; they depend only on the flow's time."""
        self.module, self.num_steps = module, num_steps
        self.device = module.action_in_proj.weight.device
        with torch.no_grad():
            table = module.modulation(euler_times(num_steps).to(self.device))
        self.modulations = [step[:, None].contiguous() for step in table.unbind(1)]

    @torch.no_grad()
    def run(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> Tensor:
        """(horizon, action_dim) in float32; see `frontend.Call` for the arguments."""
        encoded = self.module.encode_images(pixels[None])
        return self._denoise(noise, self.module.prefix(encoded, tokens[None]))

    @torch.no_grad()
    def seconds(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> dict[str, float]:
        """Seconds of one call's parts "vision", "llm" and "dit"."""
        marks = [self._now()]
        encoded = self.module.encode_images(pixels[None])
        marks.append(self._now())
        cache = self.module.prefix(encoded, tokens[None])
        marks.append(self._now())
        self._denoise(noise, cache).cpu()
        marks.append(self._now())
        vision, llm, dit = (end - start for start, end in itertools.pairwise(marks))
        return {"vision": vision, "llm": llm, "dit": dit}

    def launches(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> dict[str, int]:
        """How often one call launches each of this package's kernels, counted at their launch."""
        with counted() as counts:
            self.run(pixels, tokens, noise)
        return dict(counts)

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads."""
        return [*self.module.parameters(), *self.module.buffers()]

    def _denoise(self, noise: Tensor, cache: PrefixCache) -> Tensor:
        actions = noise[None].to(self.device)
        for modulation in self.modulations:
            velocity = self.module.velocity(actions, cache, modulation)
            actions = actions - velocity.float() / self.num_steps
        return actions[0]

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return perf_counter()
