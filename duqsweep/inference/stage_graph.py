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

from duqsweep.inference.capture import captured
from duqsweep.kernels import launches

log = logging.getLogger(__name__)

Given = Mapping[str, NDArray[Any]]  # inputs by name

WARM_UP_CALLS = 2  # before a capture: for compilation, and for libraries that choose kernels
SHAPE_CALLS = 1  # before that of another shape


@dataclass(frozen=True)
class Stage:
    """A part of a call: maps its input and the results of earlier stages, by name, to its own."""

    name: str
    reads: str  # its input's name
    run: Callable[[Mapping[str, Any]], Any]


class Upload:
    """An input of a graph: a tensor at a fixed address, and pinned memory that it is filled from.

    Copies from pinned memory do not wait. So there are several pieces of it: one can be written
    while copies from the others are still to be made.
    """

    def __init__(self, first: NDArray[Any], device: torch.device, pieces: int) -> None:
        """Allocate for arrays of the shape and type of `first`, and send it from piece 0."""
        like = torch.from_numpy(first)
        self._pinned = [torch.empty_like(like, pin_memory=True) for _ in range(pieces)]
        self.tensor = torch.empty_like(like, device=device)
        self.send(first, 0)

    def send(self, value: NDArray[Any], piece: int) -> None:
        """Enqueue a copy of `value` on the current stream; until it is made, `piece` is taken."""
        pinned = self._pinned[piece]
        np.copyto(pinned.numpy(), value)
        self.tensor.copy_(pinned, non_blocking=True)

    def send_each(self, rows: Sequence[NDArray[Any]], piece: int) -> None:
        """The same for a value of which there are only the rows."""
        for row, pinned, target in zip(rows, self._pinned[piece], self.tensor, strict=True):
            np.copyto(pinned.numpy(), row)
            target.copy_(pinned, non_blocking=True)


@dataclass(frozen=True)
class StageGraph:
    """Stages in one graph, with its inputs and the last stage's result."""

    uploads: dict[str, Upload]  # by the input's name
    graph: torch.cuda.CUDAGraph
    result: Any
    launched: Counter[str]  # kernel launches during the capture


class GraphStream:
    """A stream, and memory that its graphs share because they follow each other."""

    def __init__(self, device: torch.device, pieces: int) -> None:
        """Make the stream; `pieces` of pinned memory for each input of a graph, see `Upload`."""
        self.device, self._pieces = device, pieces
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._is_empty = True

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
        uploads = {name: Upload(array, self.device, self._pieces) for name, array in given.items()}
        known = {**made, **{name: upload.tensor for name, upload in uploads.items()}}
        for _ in range(warm_ups):
            _run(stages, known)
        if self._is_empty:
            torch.cuda.empty_cache()  # for the memory of all graphs
            self._is_empty = False
        with launches.counted() as launched, captured(self._pool, self.stream) as graph:
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
