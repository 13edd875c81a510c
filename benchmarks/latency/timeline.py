"""One call of a compiled policy step by step, on the host's clock and on the GPU's."""

from __future__ import annotations

import statistics
from collections import defaultdict
from itertools import pairwise
from time import perf_counter
from typing import TYPE_CHECKING

import torch

from duqsweep.policy.frontend import CallInputs

if TYPE_CHECKING:
    from duqsweep.inference.graphed_call import GraphedCall  # needs Triton

HOST_STEPS = (
    "pictures to pinned memory, their upload",
    "launch the image graph",
    "prompt and noise to pinned memory, their upload",
    "launch the other graph",
    "enqueue the download of the actions",
    "wait",
)
GPU_STEPS = (
    "upload of the pictures",
    "image graph",
    "change to the other stream, copy of the features",
    "other graph",
    "download of the actions",
)
WARM_UPS = 5


class Marks:
    """Moments of one call: on the host, and on the GPU."""

    def __init__(self) -> None:
        self.times = [perf_counter()]
        self.events: list[torch.cuda.Event] = []

    def on_host(self) -> None:
        """A moment of the host."""
        self.times.append(perf_counter())

    def on_gpu(self) -> None:
        """The moment at which the current stream has done all its work so far."""
        self.events.append(torch.cuda.Event(enable_timing=True))
        self.events[-1].record()

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
    """Medians of the steps of `GraphedCall.begin`, each on an idle GPU, in milliseconds."""
    seeing, acting = call.graphs(inputs)
    features = torch.empty_like(seeing.result)
    target = torch.empty_like(acting.result, device="cpu", pin_memory=True)
    series = defaultdict(list)
    for number in range(WARM_UPS + rounds):
        torch.cuda.synchronize()
        marks = Marks()
        with torch.cuda.stream(call.seeing.stream):
            marks.on_gpu()
            seeing.uploads["pictures"].send_each(inputs.pictures, 0)
            marks.on_gpu()
            marks.on_host()
            seeing.graph.replay()
            marks.on_gpu()
            marks.on_host()
        with torch.cuda.stream(call.acting.stream):
            acting.uploads["tokens"].send(inputs.prompt(), 0)
            acting.uploads["noise"].send(inputs.noise, 0)
            marks.on_host()
            call.acting.stream.wait_event(marks.events[-1])
            features.copy_(seeing.result)
            marks.on_gpu()
            acting.graph.replay()
            marks.on_gpu()
            marks.on_host()
            target.copy_(acting.result, non_blocking=True)
            marks.on_gpu()
            marks.on_host()
            call.acting.stream.synchronize()
        marks.on_host()
        if number >= WARM_UPS:
            for name, ms in marks.milliseconds().items():
                series[name].append(ms)
    return {name: statistics.median(found) for name, found in series.items()}
