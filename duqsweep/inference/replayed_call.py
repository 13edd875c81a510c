"""The eager call in CUDA graphs, for a worker that makes many of them before it times anything.

Launches from Python limit an eager call on a GPU: pi0.5 takes 160 ms on an H200. Its parts are
captured at the first call of a shape and replayed by all that follow, one graph for a denoising
step of any number. They run the same kernels, so the actions are equal to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.policy.called_policy import CalledPolicy
from duqsweep.policy.eager_call import EagerCall
from duqsweep.policy.frontend import CallInputs
from duqsweep.policy.pi05 import PrefixCache
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.seams import EagerPolicy, Policy


def replayed(policy: EagerPolicy) -> Policy:
    """A policy that acts as `policy` does, to the bit, in less time; on a CPU, `policy` itself.

    It shares the module: hooks of its layers see every call, as long as what they do can be
    captured (no new memory in what they keep, nothing read back) and may be done twice.
    """
    if not isinstance(policy, Pi05Policy) or policy.frontend.device.type != "cuda":
        return policy
    return CalledPolicy(policy.frontend, policy.num_steps, ReplayedCall.of(policy))


class Captured:
    """A function of tensors in a graph."""

    def __init__(
        self, function: Callable[..., Any], given: Sequence[Tensor], device: torch.device, pool: Any
    ) -> None:
        """Run it once, so that libraries and hooks have what they need, then capture it."""
        self.given = [tensor.to(device, copy=True) for tensor in given]
        function(*self.given)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self.result = function(*self.given)

    def replay(self) -> None:
        """Compute `result` from what lies in `given`."""
        self._graph.replay()


class ReplayedCall(EagerCall):
    """An `EagerCall` whose parts are graphs."""

    @classmethod
    def of(cls, policy: Pi05Policy) -> ReplayedCall:
        """That of an eager policy."""
        pixels = policy.preprocessing.pixels
        call = cls(policy.module, policy.num_steps, pixels, policy.schedule)
        call._captured = {}
        call._pool = torch.cuda.graph_pool_handle()
        return call

    _captured: dict[Hashable, Captured]
    _pool: Any

    def _see(self, inputs: CallInputs) -> Tensor:
        pictures = torch.from_numpy(np.stack(inputs.pictures))

        def see(pictures: Tensor) -> Tensor:
            return self.module.encode_images(self.pixels(pictures)[None])

        encoded: Tensor = self._run(("see", pictures.shape), (pictures,), see)
        return encoded

    def _read(self, inputs: CallInputs, encoded: Tensor) -> PrefixCache:
        tokens = torch.from_numpy(inputs.prompt())

        def read(encoded: Tensor, tokens: Tensor) -> PrefixCache:
            return self.module.prefix(encoded, tokens[None])

        key = ("read", encoded.shape, tokens.shape)
        cache: PrefixCache = self._run(key, (encoded, tokens), read)
        return cache

    def _denoise(self, inputs: CallInputs, cache: PrefixCache) -> NDArray[np.float32]:
        def velocity(actions: Tensor, modulation: Tensor) -> Tensor:
            return self.module.velocity(actions, cache, modulation)

        key = ("denoise", cache[0][0].data_ptr())  # where `_read` of this shape puts its result
        actions = torch.from_numpy(inputs.noise)[None].to(self.device)
        for modulation, size in zip(self.modulations, self.step_sizes, strict=True):
            found: Tensor = self._run(key, (actions, modulation), velocity)
            actions = self._step(actions, found, size)
        return actions[0].cpu().numpy()

    def _run(self, key: Hashable, given: Sequence[Tensor], function: Callable[..., Any]) -> Any:
        """`function` of `given`, in memory that the next run with this key overwrites."""
        if key not in self._captured:
            self._captured[key] = Captured(function, given, self.device, self._pool)
        captured = self._captured[key]
        for place, tensor in zip(captured.given, given, strict=True):
            place.copy_(tensor)
        captured.replay()
        return captured.result
