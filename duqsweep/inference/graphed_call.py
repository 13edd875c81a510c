"""A whole policy call captured in one CUDA graph for each length of the prompt.

The graph holds the merged image encoder, prefix and denoising loop. A prompt of a new length is
captured when it first comes; what was compiled for another length serves it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from duqsweep.inference.backends import Expert
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.kernels import launches

log = logging.getLogger(__name__)

COMPILED_FORMS = 256  # of one function, over all trials of a process
WARM_UP_CALLS = 2  # before a capture: they compile, and choose among a library's kernels


@dataclass(frozen=True)
class Stage:
    """A part of a call: takes the results of the earlier ones by name, gives its own."""

    name: str
    run: Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Captured:
    """What one length of the prompt has on the GPU."""

    inputs: dict[str, Tensor]
    graph: torch.cuda.CUDAGraph
    actions: Tensor
    launched: Counter[str]


class GraphedCall:
    """From pixels, tokens and noise to actions, by graphs that are captured when needed."""

    def __init__(self, prefix: FusedPrefix, expert: Expert) -> None:
        """Nothing is compiled or captured before the first call."""
        self.prefix, self.expert = prefix, expert
        prefix.compile(any_length=True)
        expert.compile()
        self.stages = (
            Stage("vision", lambda made: prefix.encode_images(made["pixels"])),
            Stage("llm", lambda made: prefix.read(made["vision"], made["tokens"])),
            Stage("dit", lambda made: expert.denoise(made["noise"], expert.prepare(made["llm"]))),
        )
        self._captured: dict[tuple[torch.Size, ...], Captured] = {}
        self._pool = torch.cuda.graph_pool_handle()

    @torch.no_grad()
    def run(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> Tensor:
        """(horizon, action_dim) in float32; the next call overwrites it. See `frontend.Call`."""
        captured = self.captured(pixels, tokens, noise)
        for name, tensor in (("pixels", pixels), ("tokens", tokens), ("noise", noise)):
            captured.inputs[name].copy_(tensor, non_blocking=True)
        captured.graph.replay()
        return captured.actions

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, scratch space apart."""
        prefix = [*self.prefix.parameters(), *self.prefix.buffers()]
        return [*prefix, *self.expert.weights()]

    def launches(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> dict[str, int]:
        """What one call does, by kernel.

        Launches are counted when the graph is captured. A kernel that makes many products counts
        them on the GPU: a call is made, and the counts are read back.
        """
        self.run(pixels, tokens, noise)
        launched = self.captured(pixels, tokens, noise).launched
        return {**launched, **self.expert.products_done()}

    @torch.no_grad()
    def captured(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> Captured:
        """The graph for inputs of these shapes, made at the first such call."""
        key = (pixels.shape, tokens.shape)
        if key not in self._captured:
            given = {"pixels": pixels, "tokens": tokens, "noise": noise}
            start = time.perf_counter()
            self._captured[key] = self._capture(given, pixels.device)
            seconds = time.perf_counter() - start
            log.info("captured a call with %d prompt tokens: %.2f s", len(tokens), seconds)
        return self._captured[key]

    @torch.no_grad()
    def seconds(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> dict[str, float]:
        """One call as three graphs, each timed; they are captured for this call alone."""
        self.captured(pixels, tokens, noise)
        made: dict[str, Any] = {
            "pixels": pixels.clone(),
            "tokens": tokens.clone(),
            "noise": noise.to(pixels.device),
        }
        found, graphs = {}, []
        for stage in self.stages:
            graph = torch.cuda.CUDAGraph()
            graphs.append(graph)  # its results live in its memory
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                made[stage.name] = stage.run(made)
            graph.replay()
            torch.cuda.synchronize()
            start = time.perf_counter()
            graph.replay()
            torch.cuda.synchronize()
            found[stage.name] = time.perf_counter() - start
        return found

    def _call(self, inputs: Mapping[str, Tensor]) -> Tensor:
        made: dict[str, Any] = dict(inputs)
        for stage in self.stages:
            made[stage.name] = stage.run(made)
        actions: Tensor = made[self.stages[-1].name]
        return actions

    def _capture(self, given: Mapping[str, Tensor], device: torch.device) -> Captured:
        inputs = {name: tensor.to(device, copy=True) for name, tensor in given.items()}
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with (
            torch.cuda.stream(side),
            torch._dynamo.config.patch(recompile_limit=COMPILED_FORMS),
        ):
            for _ in range(WARM_UP_CALLS):
                self._call(inputs)
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with launches.counted() as launched, torch.cuda.graph(graph, pool=self._pool):
            actions = self._call(inputs)
        return Captured(inputs, graph, actions, launched)
