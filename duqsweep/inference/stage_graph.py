"""Parts of a policy call in CUDA graphs whose inputs come from pinned memory of the host."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from duqsweep.kernels import launches

log = logging.getLogger(__name__)

Given = Mapping[str, NDArray[Any]]  # inputs by name

COMPILED_FORMS = 256  # per function, over all trials of a process
WARM_UP_CALLS = 2  # before a capture: for compilation, and for libraries that choose kernels


@dataclass(frozen=True)
class Stage:
    """A part of a call: maps its input and the results of earlier stages, by name, to its own."""

    name: str
    reads: str  # its input's name
    run: Callable[[Mapping[str, Any]], Any]


class Upload:
    """An input of a graph: a tensor at a fixed address, and the pinned memory it is filled from.

    Copies from pinned memory do not wait: what is written to `host` must stay until the copy that
    `send` enqueued is over.
    """

    def __init__(self, first: NDArray[Any], device: torch.device) -> None:
        """Allocate for arrays of the shape and type of `first`, and send it."""
        like = torch.from_numpy(first)
        self._pinned = torch.empty_like(like, pin_memory=True)
        self.host: NDArray[Any] = self._pinned.numpy()
        self.tensor = torch.empty_like(like, device=device)
        np.copyto(self.host, first)
        self.send()

    def send(self) -> None:
        """Enqueue the copy of `host` to `tensor` on the current stream."""
        self.tensor.copy_(self._pinned, non_blocking=True)


@dataclass(frozen=True)
class StageGraph:
    """Stages in one graph, with its inputs and the last stage's result."""

    uploads: dict[str, Upload]  # by the input's name
    graph: torch.cuda.CUDAGraph
    result: Any
    launched: Counter[str]  # kernel launches during the capture

    def send(self) -> None:
        """Enqueue the inputs that were written to the uploads on the current stream."""
        for upload in self.uploads.values():
            upload.send()


class GraphStream:
    """A stream, memory that its graphs share because they follow each other, and one for copies."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def capture(
        self,
        stages: Sequence[Stage],
        given: Given,
        made: Mapping[str, Any],
        warm_ups: int = WARM_UP_CALLS,
    ) -> StageGraph:
        """Capture stages in one graph; this stream must be the current one.

        Args:
            stages: What runs, in this order.
            given: The first values of their inputs.
            made: Results of other graphs that they read; their memory must stay.
            warm_ups: Calls before the capture; 0 only where the stages ran before.
        """
        start = time.perf_counter()
        torch.cuda.synchronize(self.device)  # weights were made on another stream
        uploads = {name: Upload(array, self.device) for name, array in given.items()}
        known = {**made, **{name: upload.tensor for name, upload in uploads.items()}}
        with torch._dynamo.config.patch(recompile_limit=COMPILED_FORMS):
            for _ in range(warm_ups):
                _run(stages, known)
        graph = torch.cuda.CUDAGraph()
        with (
            launches.counted() as launched,
            torch.cuda.graph(graph, pool=self._pool, stream=self.stream),
        ):
            result = _run(stages, known)
        shapes = ", ".join(f"{name} {array.shape}" for name, array in given.items())
        log.info("captured a graph of %s: %.2f s", shapes, time.perf_counter() - start)
        return StageGraph(uploads, graph, result, launched)


def _run(stages: Sequence[Stage], known: Mapping[str, Any]) -> Any:
    """The last stage's result."""
    made = dict(known)
    for stage in stages:
        made[stage.name] = stage.run(made)
    return made[stages[-1].name]
