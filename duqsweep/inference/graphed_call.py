"""A whole policy call as two CUDA graphs: the images, then everything else.

The first graph converts and encodes the images. While it runs, the host makes the prompt, so that
this costs no time of the call. The second has the prefix and the denoising loop, one graph per
prompt length. Graphs are captured when a call first needs them; code that was compiled for another
prompt length is used again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.inference.backends import Expert
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.inference.stage_graph import Given, GraphStream, Stage, StageGraph
from duqsweep.policy.frontend import CallInputs, Pixels
from duqsweep.policy.pi05 import PrefixCache


class GraphedCall:
    """Computes actions by CUDA graphs that are captured when needed; a `frontend.Call`."""

    def __init__(self, prefix: FusedPrefix, expert: Expert, pixels: Pixels) -> None:
        """Set up; the first call compiles and captures."""
        self.prefix, self.expert = prefix, expert
        prefix.compile(any_length=True)
        expert.compile()

        def see(made: Mapping[str, Any]) -> Tensor:
            return prefix.encode_images(pixels(made["pictures"]))

        def read(made: Mapping[str, Any]) -> PrefixCache:
            return prefix.encode_prefix(made["vision"], made["tokens"])

        def denoise(made: Mapping[str, Any]) -> Tensor:
            return expert.denoise(made["noise"], expert.prepare(made["llm"]))

        self.see = Stage("vision", "pictures", see)
        self.act = (Stage("llm", "tokens", read), Stage("dit", "noise", denoise))
        self.graph_stream = GraphStream(prefix.embed_tokens.weight.device)
        self._seeing: dict[tuple[int, ...], StageGraph] = {}
        self._acting: dict[tuple[tuple[int, ...], int], StageGraph] = {}
        shape = (prefix.sizes.horizon, prefix.sizes.action_dim)
        self._actions = torch.empty(shape, dtype=torch.float32, pin_memory=True)

    @torch.no_grad()
    def run(self, inputs: CallInputs) -> NDArray[np.float32]:
        """(horizon, action_dim)."""
        stream, copies = self.graph_stream.stream, self.graph_stream.copies
        with torch.cuda.stream(stream):
            try:
                seeing = self._seeing_graph(inputs)
                np.stack(inputs.pictures, out=seeing.uploads["pictures"].host)
                seeing.send()
                seeing.graph.replay()
                tokens = inputs.prompt()
                acting = self._acting_graph(inputs, tokens)
                np.copyto(acting.uploads["tokens"].host, tokens)
                np.copyto(acting.uploads["noise"].host, inputs.noise)
                with torch.cuda.stream(copies):  # so that they do not wait for the images
                    acting.send()
                stream.wait_stream(copies)
                acting.graph.replay()
                self._actions.copy_(acting.result, non_blocking=True)
            finally:  # also after an error, since the next call writes to the same pinned memory
                stream.synchronize()
        return self._actions.numpy().copy()

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, without scratch buffers."""
        prefix = [*self.prefix.parameters(), *self.prefix.buffers()]
        return [*prefix, *self.expert.weights()]

    def graphs(self, inputs: CallInputs) -> tuple[StageGraph, StageGraph]:
        """The two graphs of such a call, in order, after one call."""
        self.run(inputs)
        return self._seeing_graph(inputs), self._acting_graph(inputs, inputs.prompt())

    def launches(self, inputs: CallInputs) -> dict[str, int]:
        """How often one call launches each kernel, and the products that its kernels counted.

        Launches are counted when a graph is captured. Persistent kernels count their products
        on the GPU: this method makes a call and reads the counters back.
        """
        seeing, acting = self.graphs(inputs)
        return {**(seeing.launched + acting.launched), **self.expert.products_done()}

    @torch.no_grad()
    def seconds(self, inputs: CallInputs) -> dict[str, float]:
        """Seconds of "vision", "llm" and "dit" with their inputs: one graph each, only for this."""
        self.run(inputs)
        given: dict[str, Callable[[], NDArray[Any]]] = {
            "pictures": lambda: np.stack(inputs.pictures),
            "tokens": inputs.prompt,
            "noise": lambda: inputs.noise,
        }
        made: dict[str, Any] = {}
        found, graphs = {}, []
        stream = self.graph_stream.stream
        with torch.cuda.stream(stream):
            for stage in (self.see, *self.act):
                make = given[stage.reads]
                first = {stage.reads: make()}
                captured = self.graph_stream.capture((stage,), first, made, warm_ups=0)
                graphs.append(captured)  # keeps the memory of its result allocated
                captured.send()
                captured.graph.replay()
                stream.synchronize()
                start = time.perf_counter()
                np.copyto(captured.uploads[stage.reads].host, make())
                captured.send()
                captured.graph.replay()
                stream.synchronize()
                found[stage.name] = time.perf_counter() - start
                made[stage.name] = captured.result
        return found

    def _seeing_graph(self, inputs: CallInputs) -> StageGraph:
        shape = _shape(inputs)
        if shape not in self._seeing:
            given = {"pictures": np.stack(inputs.pictures)}
            self._seeing[shape] = self.graph_stream.capture((self.see,), given, {})
        return self._seeing[shape]

    def _acting_graph(self, inputs: CallInputs, tokens: NDArray[np.int64]) -> StageGraph:
        key = (_shape(inputs), len(tokens))
        if key not in self._acting:
            given: Given = {"tokens": tokens, "noise": inputs.noise}
            made = {"vision": self._seeing[key[0]].result}
            self._acting[key] = self.graph_stream.capture(self.act, given, made)
        return self._acting[key]


def _shape(inputs: CallInputs) -> tuple[int, ...]:
    return (len(inputs.pictures), *inputs.pictures[0].shape)
