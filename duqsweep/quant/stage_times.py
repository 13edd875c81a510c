"""Times how long the layers of a policy rotate and round activations, while a call runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from duqsweep.quant.linear import DuQuantLinear, QuantizedLinear, RoundStatic, RoundTokens

ROTATIONS = "rotations"  # with permutations and smoothing
ROUNDING = "rounding"


class _Mark(Protocol):
    """A moment; `torch.cuda.Event` is one."""

    def record(self) -> None:
        """Set it to now."""

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds to a later one of the same kind."""


class _CpuMark:
    """A moment of a processor that computes while Python waits."""

    at = 0.0

    def record(self) -> None:
        """Set it to now."""
        self.at = perf_counter()

    def elapsed_time(self, end: Any) -> float:
        """Milliseconds to a later one of the same kind."""
        return float(1e3 * (end.at - self.at))


class StageTimes:
    """The stages that ran, each with its begin and end."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._spans: dict[str, list[tuple[_Mark, _Mark]]] = {ROTATIONS: [], ROUNDING: []}

    def watch(self, stage: nn.Module) -> list[RemovableHandle]:
        """Times every pass of a stage from now on, until the handles are removed."""
        spans = self._spans[_kind(stage)]

        def begin(*_: object) -> None:
            spans.append((self._mark(), self._mark()))
            spans[-1][0].record()

        def end(*_: object) -> None:
            spans[-1][1].record()

        return [stage.register_forward_pre_hook(begin), stage.register_forward_hook(end)]

    def milliseconds(self) -> dict[str, float]:
        """In all stages of each kind; the device must be idle."""
        return {
            kind: sum(begin.elapsed_time(end) for begin, end in spans)
            for kind, spans in self._spans.items()
        }

    def _mark(self) -> _Mark:
        if self._device.type == "cuda":
            return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        return _CpuMark()


def separable(module: nn.Module) -> bool:
    """Whether every quantized layer rotates and rounds in stages of their own.

    The integer kernels do both in one kernel. A compiled policy must not be asked: it joins the
    stages with their neighbours.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, QuantizedLinear)]
    return all(isinstance(layer, DuQuantLinear) for layer in layers)


@contextmanager
def timed_stages(module: nn.Module, device: torch.device) -> Iterator[StageTimes]:
    """Times the stages of each `DuQuantLinear` in the calls that are made inside the block.

    What is computed stays the same; a clock is read before and after each stage. On a GPU the clock
    is an event of the stream, so a stage that waits for its launches counts the wait, as the time
    of a call does.

    Args:
        module: Runs layer by layer, not compiled, and is `separable`.
        device: Where it computes.
    """
    times = StageTimes(device)
    layers = [layer for layer in module.modules() if isinstance(layer, DuQuantLinear)]
    stages = [stage for layer in layers for stage in (*layer.before, *layer.after)]
    handles = [handle for stage in stages for handle in times.watch(stage)]
    try:
        yield times
    finally:
        for handle in handles:
            handle.remove()


def _kind(stage: nn.Module) -> str:
    return ROUNDING if isinstance(stage, RoundTokens | RoundStatic) else ROTATIONS
