"""One call of the network, stage by stage: images, prefix, denoising steps."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.kernels.launches import counted
from duqsweep.policy.frontend import CallInputs, Computed, Pending, Pixels
from duqsweep.policy.kept_images import KeptImages
from duqsweep.policy.pi05 import Pi05, PrefixCache
from duqsweep.policy.schedule import step_sizes
from duqsweep.spec import UNIFORM, Schedule

Velocity = Callable[[Tensor, PrefixCache, Tensor], Tensor]  # see `Pi05.velocity`


class EagerCall:
    """Computes actions by calling the network's modules one after the other; a `frontend.Call`."""

    at_once = 1

    def __init__(
        self,
        module: Pi05,
        num_steps: int,
        pixels: Pixels,
        schedule: Schedule = UNIFORM,
        reuse_images: bool = False,
    ) -> None:
        """Compute the modulations of the fixed schedule; they depend only on the flow's time."""
        self.kept = KeptImages(lambda picture: self._encode([picture])) if reuse_images else None
        self.module, self.pixels = module, pixels
        self.velocity: Velocity = module.velocity  # what computes it may be replaced
        self.step_sizes = step_sizes(num_steps, schedule)
        self.device = module.action_in_proj.weight.device
        with torch.no_grad():
            table = module.modulations(num_steps, schedule)
        self.modulations = [step[:, None].contiguous() for step in table.unbind(1)]

    @torch.inference_mode()
    def begin(self, inputs: CallInputs) -> Pending:
        """See `frontend.Call`; it is over when this returns."""
        encoded = self._see(inputs)
        return Computed(self._denoise(inputs, self._read(inputs, encoded)))

    @torch.inference_mode()
    def seconds(self, inputs: CallInputs) -> dict[str, float]:
        """Seconds of one call's parts "vision", "llm" and "dit", each with its inputs."""
        self._forget()
        marks = [self._now()]
        encoded = self._see(inputs)
        marks.append(self._now())
        cache = self._read(inputs, encoded)
        marks.append(self._now())
        self._denoise(inputs, cache)
        marks.append(self._now())
        vision, llm, dit = (end - start for start, end in itertools.pairwise(marks))
        return {"vision": vision, "llm": llm, "dit": dit}

    def launches(self, inputs: CallInputs) -> dict[str, int]:
        """How often one call launches each of this package's kernels, counted at their launch."""
        self._forget()
        with counted() as counts:
            self.begin(inputs)
        return dict(counts)

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads."""
        return [*self.module.parameters(), *self.module.buffers()]

    def _see(self, inputs: CallInputs) -> Tensor:
        if self.kept is None:
            return self._encode(inputs.pictures)
        return torch.cat(self.kept.features(inputs.pictures), dim=1)

    def _encode(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        stacked = torch.from_numpy(np.stack(pictures)).to(self.device)
        return self.module.encode_images(self.pixels(stacked)[None])

    def _forget(self) -> None:
        """What is timed and counted is a whole call."""
        if self.kept is not None:
            self.kept.forget()

    def _read(self, inputs: CallInputs, encoded: Tensor) -> PrefixCache:
        tokens = torch.from_numpy(inputs.prompt()).to(self.device)
        return self.module.prefix(encoded, tokens[None])

    def _denoise(self, inputs: CallInputs, cache: PrefixCache) -> NDArray[np.float32]:
        actions = torch.from_numpy(inputs.noise)[None].to(self.device)
        for modulation, size in zip(self.modulations, self.step_sizes, strict=True):
            actions = self.step(actions, self.velocity(actions, cache, modulation), size)
        return actions[0].cpu().numpy()

    @staticmethod
    def step(actions: Tensor, velocity: Tensor, size: float) -> Tensor:
        """The actions after a step along the velocity."""
        return actions - velocity.float() / (1.0 / size)  # as openpi: divided by the number

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return perf_counter()
