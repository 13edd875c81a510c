"""A whole policy call as one CUDA graph per prompt length.

The graph contains image encoder, prefix and denoising loop. The first call with a new prompt length
captures its graph; code that was compiled for another length is used again.
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

COMPILED_FORMS = 256  # per function, over all trials of a process
WARM_UP_CALLS = 2  # before a capture: for compilation, and for libraries that choose kernels


@dataclass(frozen=True)
class Stage:
    """A part of a call: maps the results of earlier stages, by name, to its own result."""

    name: str
    run: Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True)
class Captured:
    """The graph of one prompt length, with its static inputs and output."""

    inputs: dict[str, Tensor]
    graph: torch.cuda.CUDAGraph
    actions: Tensor
    launched: Counter[str]  # kernel launches during the capture


class GraphedCall:
    """Computes actions by CUDA graphs that are captured when needed; a `frontend.Call`."""

    def __init__(self, prefix: FusedPrefix, expert: Expert) -> None:
        """Set up; the first call compiles and captures."""
        self.prefix, self.expert = prefix, expert
        prefix.compile(any_length=True)
        expert.compile()
        self.stages = (
            Stage("vision", lambda made: prefix.encode_images(made["pixels"])),
            Stage("llm", lambda made: prefix.encode_prefix(made["vision"], made["tokens"])),
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
        """Every tensor that a call reads, without scratch buffers."""
        prefix = [*self.prefix.parameters(), *self.prefix.buffers()]
        return [*prefix, *self.expert.weights()]

    def launches(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> dict[str, int]:
        """How often one call launches each kernel, and the products that its kernels counted.

        Launches are counted when the graph is captured. Persistent kernels count their products
        on the GPU: this method makes a call and reads the counters back.
        """
        self.run(pixels, tokens, noise)
        launched = self.captured(pixels, tokens, noise).launched
        return {**launched, **self.expert.products_done()}

    @torch.no_grad()
    def captured(self, pixels: Tensor, tokens: Tensor, noise: Tensor) -> Captured:
        """The graph for inputs of these shapes; the first such call captures it."""
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
        """Seconds of "vision", "llm" and "dit": one graph each, captured only for this."""
        self.captured(pixels, tokens, noise)
        made: dict[str, Any] = {
            "pixels": pixels.clone(),
            "tokens": tokens.clone(),
            "noise": noise.to(pixels.device),
        }
        found, graphs = {}, []
        for stage in self.stages:
            graph = torch.cuda.CUDAGraph()
            graphs.append(graph)  # keeps the memory of its results allocated
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
