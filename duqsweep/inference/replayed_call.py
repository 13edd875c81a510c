"""The eager call in CUDA graphs, for the many that a worker makes and does not time.

Launches from Python limit an eager call on a GPU: pi0.5 takes 160 ms on an H200. Its parts are
captured at the first call of a shape and replayed by all that follow, one graph for a denoising
step of any number. They run the same kernels, so the actions are equal to the bit.

Two calls may have begun: the kernels of a denoising step are so small that one call leaves most of
the GPU to another. Each call has a lane: a stream and memory of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.inference.capture import captured
from duqsweep.policy.called_policy import CalledPolicy
from duqsweep.policy.eager_call import EagerCall
from duqsweep.policy.frontend import CallInputs, Pending
from duqsweep.policy.pi05 import PrefixCache
from duqsweep.policy.pi05_policy import Pi05Policy
from duqsweep.seams import EagerPolicy, Policy


def replayed(policy: EagerPolicy) -> Policy:
    """A policy that acts as `policy` does, to the bit, in less time.

    It is `policy` itself on a CPU, or if it keeps features of images, which no graph can choose.
    Every kind of quantized layer can be captured. What is captured stays in the GPU's memory for
    each length of prompt, until nobody refers to the replayed policy any more.

    It shares the module: hooks of its layers see every call, as long as what they do can be
    captured (no new memory in what they keep, nothing read back) and may be done twice. Calls that
    are waited for before the next one begins are in one lane, and hooks see one after the other.
    """
    if not isinstance(policy, Pi05Policy) or policy.frontend.device.type != "cuda":
        return policy
    if policy.reuse_images:
        return policy
    return CalledPolicy(policy.frontend, policy.num_steps, ReplayedCall(policy.call))


class ReplayedCall:
    """A `frontend.Call` whose parts are graphs of an eager call's; that one is timed and counted.

    Graphs are freed with it: its lanes do not refer to it.
    """

    at_once = 2

    def __init__(self, eager: EagerCall) -> None:
        """Capture nothing yet."""
        self.eager = eager
        captured_before: set[Hashable] = set()
        streams = [_stream(eager.device, number) for number in range(self.at_once)]
        self._lanes = [_Lane(eager, stream, captured_before) for stream in streams]
        self._begun = 0

    @torch.inference_mode()
    def begin(self, inputs: CallInputs) -> Pending:
        """See `frontend.Call`; a result that nobody reads is lost when two more have begun."""
        lane = min(self._lanes, key=lambda lane: lane.begun)  # a free one, or the oldest
        self._begun += 1
        lane.begin(inputs, self._begun)
        return lane

    def seconds(self, inputs: CallInputs) -> dict[str, float]:
        """See `frontend.Call`."""
        return self.eager.seconds(inputs)

    def launches(self, inputs: CallInputs) -> dict[str, int]:
        """See `frontend.Call`: the launches of an eager call, since a replay counts none."""
        return self.eager.launches(inputs)

    def weights(self) -> list[Tensor]:
        """See `frontend.Call`."""
        return self.eager.weights()


@functools.cache
def _stream(device: torch.device, number: int) -> torch.cuda.Stream:
    """One for the lanes with this number of all calls, one after the other.

    What cuBLAS works with belongs to a stream, and is kept as long as the process lives: 35 MB.
    """
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _Lane:
    """One call at a time; a `frontend.Pending`, of the call that began last."""

    def __init__(
        self, call: EagerCall, stream: torch.cuda.Stream, captured_before: set[Hashable]
    ) -> None:
        """Capture nothing yet.

        Args:
            call: What is captured.
            stream: On which it is captured and runs.
            captured_before: In any lane: libraries have what they need for it.
        """
        self.call, self.device, self._stream = call, call.device, stream
        self._captured_before = captured_before
        self.begun = 0  # number of the call; 0: it was waited for
        self._over = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._captured: dict[Hashable, Captured] = {}
        sizes = call.module.sizes
        shape = (sizes.horizon, sizes.action_dim)
        self._actions = torch.empty(shape, pin_memory=self.device.type == "cuda")

    def begin(self, inputs: CallInputs, number: int) -> None:
        """Enqueue a call."""
        self._over.synchronize()
        self.begun = number
        call, module = self.call, self.call.module
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            # All inputs at first: later, a copy would wait for kernels.
            pictures = torch.from_numpy(np.stack(inputs.pictures)).to(self.device)
            tokens = torch.from_numpy(inputs.prompt()).to(self.device)
            actions = torch.from_numpy(inputs.noise)[None].to(self.device)

            def see(pictures: Tensor) -> Tensor:
                return module.encode_images(call.pixels(pictures)[None])

            def read(encoded: Tensor, tokens: Tensor) -> PrefixCache:
                return module.prefix(encoded, tokens[None])

            def velocity(actions: Tensor, modulation: Tensor) -> Tensor:
                return module.velocity(actions, cache, modulation)

            shape = (pictures.shape, tokens.shape)
            encoded = self._run(("see", pictures.shape), (pictures,), see)
            cache = self._run(("read", *shape), (encoded, tokens), read)
            for modulation, size in zip(call.modulations, call.step_sizes, strict=True):
                found = self._run(("denoise", *shape), (actions, modulation), velocity)
                actions = call.step(actions, found, size)
            self._actions.copy_(actions[0], non_blocking=True)
            self._over.record()

    def is_over(self) -> bool:
        """See `frontend.Pending`."""
        return bool(self._over.query())  # type: ignore[no-untyped-call]

    def wait(self) -> NDArray[np.float32]:
        """See `frontend.Pending`."""
        self._over.synchronize()
        self.begun = 0
        return self._actions.numpy().copy()

    def _run(self, key: Hashable, given: Sequence[Tensor], function: Callable[..., Any]) -> Any:
        """`function` of `given`, in memory that the next run with this key overwrites."""
        if key not in self._captured:
            if not self._captured_before:
                torch.cuda.empty_cache()  # for the memory of all graphs
            if key not in self._captured_before:
                function(*given)  # so that libraries and hooks have what they need
                self._captured_before.add(key)
            self._captured[key] = Captured(function, given, self._stream, self._pool)
        captured = self._captured[key]
        for place, tensor in zip(captured.given, given, strict=True):
            place.copy_(tensor)
        captured.replay()
        return captured.result


class Captured:
    """A function of tensors in a graph."""

    def __init__(
        self,
        function: Callable[..., Any],
        given: Sequence[Tensor],
        stream: torch.cuda.Stream,
        pool: Any,
    ) -> None:
        """Capture it on a stream, which owns what libraries work with meanwhile."""
        self.given = [tensor.clone() for tensor in given]
        with captured(pool, stream, errors="thread_local") as self._graph:
            self.result = function(*self.given)

    def replay(self) -> None:
        """Compute `result` from what lies in `given`."""
        self._graph.replay()
