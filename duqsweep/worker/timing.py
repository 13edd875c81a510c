"""Latency of policy calls: synchronised, warm, two policies in alternation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from duqsweep.result import LatencyStats
from duqsweep.worker import pulse

Call = Callable[[int], object]  # makes the call of round n
Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class StoppingRule:
    """When to stop measuring."""

    floor: int = 3  # rounds made whatever they cost
    least: int = 7  # rounds before the medians may count as stable
    most: int = 30
    seconds: float = 2.0  # of all calls together, after which `floor` rounds are enough
    precision: float = 0.02  # half-width of a median's interval, relative, that counts as stable


def time_call(call: Call, number: int, sync: Callable[[], None], clock: Clock) -> float:
    """Milliseconds of `call(number)`, the device idle before and after."""
    pulse.advance()
    sync()
    start = clock()
    call(number)
    sync()
    return 1e3 * (clock() - start)


def alternate(
    calls: Sequence[Call],
    sync: Callable[[], None],
    stopping: StoppingRule | None = None,
    clock: Clock = time.perf_counter,
) -> list[list[float]]:
    """Milliseconds of each call, made in turns (A B A B ...): a loaded node slows all alike.

    Args:
        calls: What to compare; round n calls each with n. All must be warm.
        sync: Waits until the device is idle.
        stopping: When to stop.
        clock: Seconds, monotonic.

    Returns:
        One list per call, of equal lengths, in the order of the rounds.
    """
    stopping = stopping or StoppingRule()
    times: list[list[float]] = [[] for _ in calls]
    for number in range(stopping.most):
        for call, series in zip(calls, times, strict=True):
            series.append(time_call(call, number, sync, clock))
        if _enough(times, stopping):
            break
    return times


def warm_up(
    call: Call, rounds: int, sync: Callable[[], None], clock: Clock = time.perf_counter
) -> list[float]:
    """Milliseconds of the first `rounds` calls, which pay for compilation and caches."""
    return [time_call(call, number, sync, clock) for number in range(rounds)]


def compile_seconds(warm_up_ms: Sequence[float], warm_ms: float) -> float:
    """Seconds that warm-up calls took beyond what the same calls take when warm."""
    return sum(max(0.0, ms - warm_ms) for ms in warm_up_ms) / 1e3


def latency(times_ms: Sequence[float]) -> LatencyStats:
    """Median and 95th percentile (nearest rank) of at least one time."""
    ordered = sorted(times_ms)
    p50 = statistics.median(ordered)
    rank = -(-95 * len(ordered) // 100)
    return LatencyStats(p50=p50, p95=max(p50, ordered[rank - 1]), n=len(ordered))


def _enough(times: list[list[float]], stopping: StoppingRule) -> bool:
    rounds = len(times[0])
    spent_s = sum(sum(series) for series in times) / 1e3
    if rounds >= stopping.floor and spent_s >= stopping.seconds:
        return True
    return rounds >= stopping.least and all(
        half_width(series) <= stopping.precision for series in times
    )


def half_width(times_ms: Sequence[float]) -> float:
    """Half-width of the 95 % interval of a median, relative to it.

    Source: McGill, Tukey, Larsen 1978, notches of box plots: 1.57 interquartile ranges over √n.
    """
    quarter, middle, three_quarters = statistics.quantiles(times_ms, n=4)
    return float(1.57 * (three_quarters - quarter) / (len(times_ms) ** 0.5 * middle))
