"""One call of a compiled policy step by step, on the host's clock and on the GPU's."""

from __future__ import annotations

import statistics
from collections import defaultdict
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import torch

from duqsweep.policy.frontend import CallInputs

if TYPE_CHECKING:
    from duqsweep.inference.graphed_call import GraphedCall  # needs Triton

HOST_STEPS = (
    "pictures to pinned memory",
    "enqueue their upload",
    "launch the image graph",
    "prompt and noise to pinned memory, their upload",
    "launch the other graph",
    "enqueue the download of the actions",
    "wait",
)
GPU_STEPS = (
    "upload of the pictures",
    "image graph",
    "wait for prompt and noise",
    "other graph",
    "download of the actions",
)
WARM_UPS = 5


class Marks:
    """Moments of one call: on the host, and in a stream."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self.stream = stream
        self.times = [perf_counter()]
        self.events: list[torch.cuda.Event] = []

    def host_only(self) -> None:
        """A moment of the host."""
        self.times.append(perf_counter())

    def both(self) -> None:
        """A moment of the host, and the one at which the stream has done all work so far."""
        self.events.append(torch.cuda.Event(enable_timing=True))
        self.events[-1].record(self.stream)
        self.times.append(perf_counter())

    def milliseconds(self) -> dict[str, float]:
        """The time of each step, and of the whole."""
        host = zip(HOST_STEPS, pairwise(self.times), strict=True)
        found = {f"host: {name}": 1e3 * (end - start) for name, (start, end) in host}
        gpu = zip(GPU_STEPS, pairwise(self.events), strict=True)
        found |= {f"GPU: {name}": start.elapsed_time(end) for name, (start, end) in gpu}
        whole = 1e3 * (self.times[-1] - self.times[0])
        outside = whole - self.events[0].elapsed_time(self.events[-1])
        return {**found, "host: all of it": whole, "before and after the GPU's steps": outside}


def timeline(call: GraphedCall, inputs: CallInputs, rounds: int) -> dict[str, float]:
    """Medians of the steps of `GraphedCall.run`, each call on an idle GPU, in milliseconds."""
    seeing, acting = call.graphs(inputs)
    stream, copies = call.graph_stream.stream, call.graph_stream.copies
    target = torch.empty_like(acting.result, device="cpu", pin_memory=True)
    series = defaultdict(list)
    for number in range(WARM_UPS + rounds):
        torch.cuda.synchronize()
        marks = Marks(stream)
        with torch.cuda.stream(stream):
            np.stack(inputs.pictures, out=seeing.uploads["pictures"].host)
            marks.both()
            seeing.send()
            marks.both()
            seeing.graph.replay()
            marks.both()
            np.copyto(acting.uploads["tokens"].host, inputs.prompt())
            np.copyto(acting.uploads["noise"].host, inputs.noise)
            with torch.cuda.stream(copies):
                acting.send()
            stream.wait_stream(copies)
            marks.both()
            acting.graph.replay()
            marks.both()
            target.copy_(acting.result, non_blocking=True)
            marks.both()
            stream.synchronize()
        marks.host_only()
        if number >= WARM_UPS:
            for name, ms in marks.milliseconds().items():
                series[name].append(ms)
    return {name: statistics.median(found) for name, found in series.items()}
