"""Times a form's calls, compares its result with the eager reference, measures its memory."""

from __future__ import annotations

import math
import signal
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from time import perf_counter

import torch
from torch import Tensor, nn

from latency.bench import Bench
from latency.registry import Call, Form

WARM_UPS = 3
MOST_CALLS = 300
SLOW_MS = 100.0  # calls slower than this are warmed up only once


@dataclass(frozen=True)
class Measurement:
    """The measurements of one form at one horizon."""

    ms: float  # median of a call, from an idle device to its result
    p95_ms: float
    calls: int
    # ‖result - reference‖ / ‖reference‖, the larger one of the first call and of one after all that
    # were timed; of actions, as moves from the noise
    error: float
    weights_mb: Mapping[str, float]  # part → memory of its weights in the allocator; empty on a CPU
    build_s: float  # building, compiling, capturing and the first call


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block when it has run too long."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"took more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@torch.no_grad()
def measure(bench: Bench, form: Form, seconds: float) -> Measurement:
    """Build a form, check its result and time its calls for about `seconds`."""
    start = perf_counter()
    built = form.make(bench)
    bench.sync()
    result = built.call().clone()
    bench.sync()
    build_s = perf_counter() - start
    series = _time_calls(bench, built.call, seconds)
    last = built.call().clone() if series[-1] < SLOW_MS else result
    weights_mb = {}
    if bench.device == "cuda":
        weights_mb = {part: allocated_mb(held) for part, held in built.weights.items()}
    ranked = sorted(series)
    return Measurement(
        ms=statistics.median(series),
        p95_ms=ranked[math.ceil(0.95 * len(ranked)) - 1],
        calls=len(series),
        error=max(_error(bench, form, result), _error(bench, form, last)),
        weights_mb=weights_mb,
        build_s=build_s,
    )


def time_call(bench: Bench, call: Call) -> float:
    """Milliseconds of one call on an idle device: CUDA events on a GPU, wall time on a CPU."""
    bench.sync()
    if bench.device == "cpu":
        tick = perf_counter()
        call()
        return 1e3 * (perf_counter() - tick)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    bench.sync()
    return float(start.elapsed_time(end))


def allocated_mb(held: object) -> float:
    """MB (10^6 bytes) that the allocator uses for a copy of every tensor that `held` refers to.

    What forms share with the policy under test is so counted as if it stood alone.
    """
    storages = {tensor.untyped_storage().data_ptr(): tensor for tensor in tensors_in(held)}
    before = torch.cuda.memory_allocated()
    copies = [tensor.untyped_storage().clone() for tensor in storages.values()]
    taken = torch.cuda.memory_allocated() - before
    del copies
    return taken / 1e6


def tensors_in(held: object, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor that can be reached through modules, records and containers, once."""
    seen = set() if seen is None else seen
    if id(held) in seen:
        return
    seen.add(id(held))
    if isinstance(held, Tensor):
        yield held
    elif isinstance(held, Mapping):
        for value in held.values():
            yield from tensors_in(value, seen)
    elif isinstance(held, list | tuple):
        for value in held:
            yield from tensors_in(value, seen)
    elif isinstance(held, nn.Module) or is_dataclass(held):
        yield from tensors_in(vars(held), seen)


def reference(bench: Bench, form: Form) -> Tensor:
    """The eager form with the same weights: of a policy or expert, how far actions move."""
    key = (form.scope, form.quant)
    if key not in bench.references:
        bench.references[key] = _eager(bench, form)
    return bench.references[key]


def _eager(bench: Bench, form: Form) -> Tensor:
    module = bench.frozen(form.quant)
    eager: dict[str, Callable[[], Tensor]] = {
        "vision": lambda: module.encode_images(bench.images),
        "prefix": lambda: bench.prefix(module)[-1][0],
        "expert": lambda: bench.follow(module, bench.cache) - bench.noise,
        "policy": lambda: bench.follow(module, bench.prefix(module)) - bench.noise,
    }
    return eager[form.scope]()


def _error(bench: Bench, form: Form, result: Tensor) -> float:
    expected = reference(bench, form).float()
    found = result.float().view_as(expected)
    if form.scope in ("expert", "policy"):
        found = found - bench.noise
    return float((found - expected).norm() / expected.norm())


def _time_calls(bench: Bench, call: Call, seconds: float) -> list[float]:
    second = time_call(bench, call)  # the first may have compiled
    series = [second]
    if second < SLOW_MS:
        for _ in range(WARM_UPS):
            call()
        series = []
    begun = perf_counter()
    while len(series) < 2 or (perf_counter() - begun < seconds and len(series) < MOST_CALLS):
        series.append(time_call(bench, call))
    return series
