"""A whole policy call as two CUDA graphs: the images, then everything else.

The first graph converts and encodes the images. While it runs, the host makes the prompt, so that
this costs no time of the call. The second has the prefix and the denoising loop, one graph per
prompt length. Graphs are captured when a call first needs them; code that was compiled for another
prompt length is used again.

Two calls may have begun: the second graph of one and the first of the next run beside each other,
each in a stream and in memory of its own, so the GPU does not wait for the host. No kernel computes
for two calls at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from duqsweep.inference.backends import Expert
from duqsweep.inference.prefix import FusedPrefix
from duqsweep.inference.stage_graph import (
    SHAPE_CALLS,
    WARM_UP_CALLS,
    Given,
    GraphStream,
    Stage,
    StageGraph,
)
from duqsweep.policy.frontend import CallInputs, Pixels
from duqsweep.policy.pi05 import PrefixCache


class GraphedCall:
    """Computes actions by CUDA graphs that are captured when needed; a `frontend.Call`."""

    at_once = 2

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
        device, sizes = prefix.embed_tokens.weight.device, prefix.sizes
        self.seeing = GraphStream(device, self.at_once)
        self.acting = GraphStream(device, self.at_once)
        self._seen: dict[tuple[int, ...], _Seen] = {}  # by the shape of all pictures
        self._graphs: dict[tuple[tuple[int, ...], int], StageGraph] = {}  # and prompt length
        self._features_read = torch.cuda.Event()  # type: ignore[no-untyped-call]
        shape = (sizes.horizon, sizes.action_dim)
        self._turns = [GraphedActions(number, shape) for number in range(self.at_once)]
        self._begun = 0

    @torch.no_grad()
    def begin(self, inputs: CallInputs) -> GraphedActions:
        """See `frontend.Call`; a result that nobody reads is lost when two more have begun."""
        turn = self._turns[self._begun % self.at_once]
        self._begun += 1
        turn.wait_until_free()
        seeing, acting = self.seeing.stream, self.acting.stream
        with torch.cuda.stream(seeing):
            seen = self._seen_by(inputs)
            seeing.wait_event(self._features_read)
            seen.graph.uploads["pictures"].send_each(inputs.pictures, turn.number)
            seen.graph.graph.replay()
            turn.seen.record()
        tokens = inputs.prompt()
        with torch.cuda.stream(acting):
            graph = self._acting_graph(inputs, tokens)
            graph.uploads["tokens"].send(tokens, turn.number)
            graph.uploads["noise"].send(inputs.noise, turn.number)
            acting.wait_event(turn.seen)
            seen.features.copy_(seen.graph.result)
            self._features_read.record()
            graph.graph.replay()
            turn.actions.copy_(graph.result, non_blocking=True)
            turn.over.record()
        return turn

    def weights(self) -> list[Tensor]:
        """Every tensor that a call reads, without scratch buffers."""
        prefix = [*self.prefix.parameters(), *self.prefix.buffers()]
        return [*prefix, *self.expert.weights()]

    def graphs(self, inputs: CallInputs) -> tuple[StageGraph, StageGraph]:
        """The two graphs of such a call, in order, after one call."""
        self.begin(inputs).wait()
        return self._seen_by(inputs).graph, self._acting_graph(inputs, inputs.prompt())

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
        self.begin(inputs).wait()
        given: dict[str, Callable[[], NDArray[Any]]] = {
            "pictures": lambda: np.stack(inputs.pictures),
            "tokens": inputs.prompt,
            "noise": lambda: inputs.noise,
        }
        made: dict[str, Any] = {}
        found, graphs = {}, []
        line = GraphStream(self.acting.device, pieces=1)
        with torch.cuda.stream(line.stream):
            for stage in (self.see, *self.act):
                make = given[stage.reads]
                captured = line.capture((stage,), {stage.reads: make()}, made, warm_ups=0)
                graphs.append(captured)  # keeps the memory of its result allocated
                captured.graph.replay()
                line.stream.synchronize()
                start = time.perf_counter()
                captured.uploads[stage.reads].send(make(), 0)
                captured.graph.replay()
                line.stream.synchronize()
                found[stage.name] = time.perf_counter() - start
                made[stage.name] = captured.result
        return found

    def _seen_by(self, inputs: CallInputs) -> _Seen:
        shape = _shape(inputs)
        if shape not in self._seen:
            graph = self.seeing.capture((self.see,), {"pictures": np.stack(inputs.pictures)}, {})
            self._seen[shape] = _Seen(graph, torch.empty_like(graph.result))
        return self._seen[shape]

    def _acting_graph(self, inputs: CallInputs, tokens: NDArray[np.int64]) -> StageGraph:
        shape = _shape(inputs)
        key = (shape, len(tokens))
        if key not in self._graphs:
            given: Given = {"tokens": tokens, "noise": inputs.noise}
            made = {"vision": self._seen[shape].features}
            warm_ups = SHAPE_CALLS if self._graphs else WARM_UP_CALLS
            self._graphs[key] = self.acting.capture(self.act, given, made, warm_ups)
        return self._graphs[key]


class GraphedActions:
    """A `frontend.Pending`: where one of the calls that have begun puts its result."""

    def __init__(self, number: int, shape: tuple[int, int]) -> None:
        """Allocate; `shape`: horizon and action_dim."""
        self.number = number
        self.actions = torch.empty(shape, dtype=torch.float32, pin_memory=True)
        # Moments on the GPU: its features are there, its actions are there.
        self.seen, self.over = (torch.cuda.Event() for _ in range(2))  # type: ignore[no-untyped-call]

    def is_over(self) -> bool:
        """See `frontend.Pending`."""
        return bool(self.over.query())  # type: ignore[no-untyped-call]

    def wait(self) -> NDArray[np.float32]:
        """See `frontend.Pending`."""
        self.over.synchronize()
        return self.actions.numpy().copy()

    def wait_until_free(self) -> None:
        """Wait for the last call that used it, which may have failed after its first graph."""
        self.seen.synchronize()
        self.over.synchronize()


@dataclass(frozen=True)
class _Seen:
    """What is made of pictures of one shape."""

    graph: StageGraph
    features: Tensor  # a copy of its result, so that it can run again while that is read


def _shape(inputs: CallInputs) -> tuple[int, ...]:
    return (len(inputs.pictures), *inputs.pictures[0].shape)
